"""docs/training.md is true: its commands run, on datasets in miniature."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geotag.demo import plan_videos, write_gpx
from geotag.models import read_known
from tests.checkpoints import write_clip, write_videomae
from tests.cityguessr import write_labels, write_release
from tests.hub import COMMIT, Hub, running
from train.config import preset_names
from train.data.rendered import write_video
from train.data.world import draw_drive
from train.texts import CLIP

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
QUICK = {
    "train.fit": "--steps 2 --batch 4 --val-clips 4 --test-clips 4 --workers 0 --device cpu",
    "train.evaluate": "--test-clips 4 --val-clips 4 --workers 0",
    "train.pack": "--workers 0",
    "train.tables": "--steps 1 --workers 0",
}
"""What takes days on the real data is cut to seconds; everything else is executed as written."""


SECTIONS = {
    text.partition("\n")[0]: text
    for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    if "```bash" in text
}
"""What a reader may begin with: each runs on a machine where nothing was done before."""


def commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Footage with GPS, and five cities of CityGuessr68k."""
    (tmp_path / "dashcam").mkdir()
    write_video(
        draw_drive("test", 1), tmp_path / "dashcam/a.mp4", duration_s=24.0, render_width=160
    )
    write_gpx(plan_videos(1)[0], tmp_path / "dashcam/a.gpx")
    root = write_release(tmp_path / "CityGuessr68k", clips=60)
    for part in ("train", "val"):
        write_labels(root, 533, part)
    return tmp_path


@pytest.fixture(autouse=True)
def hub(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A hub on this machine that holds small networks under the names that the page asks for."""
    place = tmp_path_factory.mktemp("hub")
    known = read_known()["videomae-s"]
    entry = asdict(known) | {"revision": COMMIT, "weights": "model.safetensors"}
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in entry.items()
        if key not in ("name", "sha256")
    ]
    (place / "known.toml").write_text("[videomae-s]\n" + "\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("GEOTAG_KNOWN_MODELS", str(place / "known.toml"))
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    repositories = {
        known.hub_id: write_videomae(place / "videomae"),
        CLIP: write_clip(place / "clip"),
    }
    with running(Hub(repositories=repositories)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    program, *rest = command
    assert program in ("geotag", "python"), f"the page runs {program}"
    if program == "geotag":
        rest = ["-m", "geotag", *rest]
    return subprocess.run(
        [sys.executable, *rest, *shlex.split(QUICK.get(rest[1], ""))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_of_the_page_runs_in_its_order(folder: Path, section: str) -> None:
    for command in commands(SECTIONS[section]):
        result = execute(command, folder)
        told = f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == 0, told
    if "paper" not in section:
        return
    evaluation = json.loads((folder / "runs/geotag/evaluation.json").read_text())
    assert evaluation["clips"] == 4
    assert json.loads((folder / "bundles/cityguessr/bundle.json").read_text())["licence"] == (
        "CC-BY-NC-4.0, as the weights that training began from"
    )
    assert str(folder) not in (folder / "bundles/cityguessr/bundle.json").read_text()
    for picture in ("confusion.png", "reliability.png"):
        (found,) = (folder / "runs/geotag").glob(f"evaluation*/{picture}")
        assert np.asarray(Image.open(found)).std() > 1


def test_every_preset_is_explained() -> None:
    for name in preset_names():
        assert f"`{name}`" in PAGE, name
