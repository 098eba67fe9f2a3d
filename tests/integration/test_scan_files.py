"""Every kind of file that a card may hold, through the command itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import geopandas
import pytest

from tests import media
from tests.fakes import COLOURS, write_colour_video
from tests.process import run_geotag
from tests.rfc7946 import check_collection

PARIS, BERLIN = COLOURS["Paris"], COLOURS["Berlin"]
LONG = {"frames": 90, "fps": 15}

GOOD = {
    "Event/a.mp4": lambda path: write_colour_video(path, BERLIN),
    "Normal/a.mp4": lambda path: write_colour_video(path, PARIS),
    "with space, comma.MP4": write_colour_video,
    "qu'ote\"s [red]&<b>.mp4": write_colour_video,
    "Straße 東京 🚗.mp4": write_colour_video,
    "new\nline.mp4": write_colour_video,
    "-o.mp4": write_colour_video,
    "ntsc.mp4": lambda path: media.write_video(path, frames=150, fps=Fraction(30000, 1001)),
    "variable.mp4": lambda path: media.write_video(
        path, frames=60, times_s=[index / 10 + (index % 7) / 90 for index in range(60)]
    ),
    "rotated.mp4": lambda path: media.write_video(path, rotation_deg=90, **LONG),
    "ten-bit.mp4": lambda path: media.write_video(path, pix_fmt="yuv420p10le", **LONG),
    "odd.mp4": lambda path: media.write_video(path, pix_fmt="yuv444p", size=(97, 65), **LONG),
}
BAD = {
    "zero.mp4": (lambda path: path.touch(), "empty"),
    "text.mp4": (lambda path: path.write_text("not a video\n", encoding="utf-8"), "not_video"),
    "no-moov.mp4": (lambda path: media.drop_moov(media.write_video(path, **LONG)), "damaged"),
    "audio.mp4": (media.write_sound, "no_video_stream"),
    "one-frame.mp4": (lambda path: media.write_video(path, frames=1), "too_short"),
    "gone.mp4": (lambda path: path.symlink_to("nowhere"), "unreadable"),
}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    makers = GOOD | {name: maker for name, (maker, _) in BAD.items()}
    for name, maker in makers.items():
        (folder / name).parent.mkdir(exist_ok=True)
        maker(folder / name)
    write_colour_video(folder / "truncated.mp4")
    media.cut(folder / "truncated.mp4", 0.5)
    return folder


@pytest.fixture(scope="module")
def scanned(
    card: Path, onnx_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("out")
    outs = ("--out", "tags.geojson", "--out", "tags.csv", "--out", "tags.geojsonl")
    return run_geotag("scan", str(card), "--bundle", str(onnx_bundle), *outs, cwd=folder), folder


def tags_in(folder: Path) -> dict[str, dict[str, object]]:
    features = check_collection((folder / "tags.geojson").read_text(encoding="utf-8"))
    return {feature["properties"]["path"]: feature["properties"] for feature in features}


def test_every_file_is_one_feature_and_exit_3_says_that_some_failed(
    scanned: tuple[subprocess.CompletedProcess[str], Path], card: Path
) -> None:
    result, folder = scanned
    assert result.returncode == 3, result.stderr
    assert result.stdout == ""
    names = {name.replace("\n", "\\n") for name in (*GOOD, *BAD, "truncated.mp4")}
    assert set(tags_in(folder)) == names
    assert len((folder / "tags.csv").read_text(encoding="utf-8").splitlines()) == len(names) + 1
    assert len((folder / "tags.geojsonl").read_text(encoding="utf-8").splitlines()) == len(names)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_has_a_place(
    scanned: tuple[subprocess.CompletedProcess[str], Path], name: str
) -> None:
    tag = tags_in(scanned[1])[name.replace("\n", "\\n")]
    assert tag["status"] == "ok", tag["error"]
    assert tag["confidence_city"] is not None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_its_reason_in_the_output_and_on_the_terminal(
    scanned: tuple[subprocess.CompletedProcess[str], Path], name: str
) -> None:
    result, folder = scanned
    tag = tags_in(folder)[name]
    assert (tag["status"], tag["location_source"]) == ("failed", "none")
    assert str(tag["error"]).startswith(f"{BAD[name][1]}: ")
    assert f"failed: {name}: {tag['error']}\n" in result.stderr


def test_a_truncated_file_is_told(
    scanned: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    assert tags_in(scanned[1])["truncated.mp4"]["status"] in ("partial", "failed")


def test_one_name_in_two_folders_is_two_tags(
    scanned: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    tags = tags_in(scanned[1])
    assert (tags["Event/a.mp4"]["city"], tags["Normal/a.mp4"]["city"]) == ("Berlin", "Paris")
    assert tags["Event/a.mp4"]["id"] != tags["Normal/a.mp4"]["id"]


def test_names_reach_the_terminal_as_text(
    scanned: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    assert "\x1b" not in scanned[0].stderr
    assert "new\nline" not in scanned[0].stderr


@pytest.mark.parametrize("name", ["tags.geojson", "tags.csv", "tags.geojsonl"])
def test_geopandas_reads_every_format(
    scanned: tuple[subprocess.CompletedProcess[str], Path], name: str
) -> None:
    _, folder = scanned
    if name.endswith(".csv"):
        options = {"X_POSSIBLE_NAMES": "longitude", "Y_POSSIBLE_NAMES": "latitude"}
        table = geopandas.read_file(folder / name, **options)
    else:
        table = geopandas.read_file(folder / name)
        assert table.crs.to_epsg() == 4326
    assert set(table["path"]) == set(tags_in(folder))
    paris = table[table["path"] == "Normal/a.mp4"].iloc[0]
    assert (paris.geometry.x, paris.geometry.y) == (2.3488, 48.85341)
    assert paris["city"] == "Paris"
    assert paris["id"] == tags_in(folder)["Normal/a.mp4"]["id"]


def test_the_second_run_gives_the_same_bytes(
    scanned: tuple[subprocess.CompletedProcess[str], Path],
    card: Path,
    onnx_bundle: Path,
    tmp_path: Path,
) -> None:
    """Another folder, another working directory, another process."""
    shutil.copytree(card, tmp_path / "copy", symlinks=True)
    outs = ("--out", "tags.geojson", "--out", "tags.csv", "--out", "tags.geojsonl")
    run_geotag("scan", "copy", "--bundle", str(onnx_bundle), *outs, cwd=tmp_path)
    for name in ("tags.geojson", "tags.csv", "tags.geojsonl"):
        assert (tmp_path / name).read_bytes() == (scanned[1] / name).read_bytes()


def test_a_file_that_may_not_be_read_is_a_failure(onnx_bundle: Path, tmp_path: Path) -> None:
    path = write_colour_video(tmp_path / "card" / "locked.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything; gone.mp4 above takes the same way")
    result = run_geotag("scan", "card", "--bundle", str(onnx_bundle), cwd=tmp_path)
    assert result.returncode == 3
    assert str(tags_in(tmp_path)["locked.mp4"]["error"]).startswith("unreadable: ")


def test_a_scan_needs_no_training_library(onnx_bundle: Path, tmp_path: Path) -> None:
    write_colour_video(tmp_path / "card" / "a.mp4")
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "transformers", "onnx", "onnxruntime",
                                  "train", "calibration", "pandas"):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
from geotag.cli import main
sys.exit(main(["scan", "card", "--bundle", {str(onnx_bundle)!r}]))
"""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["counts"]["tagged"] == 1
