"""The README is true: its commands run, its Python runs, its promises about files hold."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from geotag.demo import plan_videos, write_gpx
from geotag.models import read_known
from tests.checkpoints import write_clip
from tests.hub import COMMIT, Hub, running
from train.data.rendered import write_video
from train.data.world import draw_drive

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = {
    "train.fit": ["--steps", "1", "--val-clips", "8", "--test-clips", "8"],
    "train.evaluate": ["--val-clips", "8", "--test-clips", "8"],
    # Of a network that was trained for one step, any change is within chance.
    "export": ["--calib-clips", "32", "--gate-clips", "32", "--force"],
}
"""A run of minutes is cut to one of seconds; everything else is executed as written."""


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in fenced("bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: footage, and a model of their own."""
    place = tmp_path_factory.mktemp("stranger")
    (place / "dashcam").mkdir()
    write_video(draw_drive("test", 1), place / "dashcam/a.mp4", duration_s=12.0, render_width=160)
    write_gpx(plan_videos(1)[0], place / "dashcam/a.gpx")
    shutil.copytree(ROOT / "geotag/demo_bundle", place / "mymodel")
    return place


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on this machine that holds a small network under the name that the page pulls."""
    known = read_known()["clip"]
    write_clip(tmp_path / "net")
    entry = asdict(known) | {"revision": COMMIT, "weights": "model.safetensors"}
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in entry.items()
        if key not in ("name", "sha256")
    ]
    (tmp_path / "known.toml").write_text("[clip]\n" + "\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("GEOTAG_KNOWN_MODELS", str(tmp_path / "known.toml"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running(Hub(repositories={known.hub_id: tmp_path / "net"})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    program, *rest = command
    if program == "make":
        command = ["make", "-C", str(ROOT), "--dry-run", *rest]
    elif program in ("geotag", ".venv/bin/geotag"):
        extra = QUICK["export"] if "--precision" in rest else []
        command = [sys.executable, "-m", "geotag", *rest, *extra]
    elif rest[0] == "-m":
        command = [sys.executable, *rest, *QUICK[rest[1]]]
    else:  # a benchmark: minutes of work, so that it starts and explains itself must do
        command = [sys.executable, str(ROOT / rest[0]), "--help"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("hub")
def test_every_command_runs_in_the_order_of_the_page(folder: Path) -> None:
    ran = commands()
    assert len(ran) >= 8
    for command in ran:
        result = execute(command, folder)
        assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"
    for name in (
        "tags.geojson",
        "tags.gpkg",
        "manifest.csv",
        "run.json",
        "bundles/mine/bundle.json",
    ):
        assert (folder / name).is_file(), name


def test_the_python_example_prints_a_tag(folder: Path) -> None:
    (example,) = fenced("python")
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("a.mp4 ")


def test_every_command_and_every_exit_code_is_documented() -> None:
    for word in ("scan", "export", "doctor", "demo", "where", "label", "models", "places", "bench"):
        assert re.search(rf"geotag {word}|make {word}", README), word
    for code in (0, 2, 3, 4, 5, 6, 130):
        assert re.search(rf"\b{code}\b", README), code


def test_every_link_into_the_repository_leads_somewhere() -> None:
    for path in re.findall(r"`((?:docs|benchmarks|geotag|train)/[\w/.-]*)`", README):
        assert (ROOT / path).exists(), path
