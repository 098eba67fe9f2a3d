"""On a device of 8 GB a scan must not load what it does not need, in any of its processes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fakes import write_colour_video
from tests.process import geotag_command, geotag_environ

if TYPE_CHECKING:
    from pathlib import Path

TOO_LARGE = {
    "torch",
    "torchvision",
    "torch_tensorrt",
    "transformers",
    "onnx",
    "onnxruntime",
    "pandas",
    "geopandas",
    "pyarrow",
    "shapely",
    "matplotlib",
    "PIL",
    "cv2",
    "train",
    "calibration",
}
WANTED = {"geotag", "engines", "numpy", "av"}


NOTES_IMPORTS = """
import os, sys
class Notes:
    def find_spec(self, name, path=None, target=None):
        if path is None:
            with open(os.environ["NOTED_IMPORTS"], "a") as notes:
                notes.write(name + "\\n")
sys.meta_path.insert(0, Notes())
"""
"""Python loads it as `sitecustomize` when it starts, in every process."""


def imported_by(folder: Path, *arguments: str, code: int = 0) -> set[str]:
    """Top-level packages that a command, and every process it starts, imports or tries to."""
    hook, notes = folder / "hook", folder / "noted"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(NOTES_IMPORTS, encoding="utf-8")
    environ = geotag_environ()
    environ["PYTHONPATH"] = os.pathsep.join((str(hook), environ["PYTHONPATH"]))
    done = subprocess.run(
        [*geotag_command(), *arguments],
        cwd=folder,
        env=environ | {"NOTED_IMPORTS": str(notes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return set(notes.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "outputs",
    [("tags.geojson",), ("tags.csv",), ("tags.geojsonl", "tags.geojson", "tags.csv")],
    ids=["geojson", "csv", "three"],
)
def test_a_scan_loads_no_training_and_no_table_library(
    tmp_path: Path, onnx_bundle: Path, outputs: tuple[str, ...]
) -> None:
    pytest.importorskip("openvino")
    write_colour_video(tmp_path / "card" / "a.mp4", duration_s=3.0)
    out = [word for name in outputs for word in ("--out", name)]
    more = ["--tracks", "tracks.geojson", "--sidecars", "json,xmp"]
    found = imported_by(tmp_path, "scan", "card", "--bundle", str(onnx_bundle), *out, *more)
    assert found >= WANTED  # so the list is that of the processes that did the work
    assert not found & TOO_LARGE
    for name in outputs:
        assert (tmp_path / name).stat().st_size > 100


def test_only_what_is_written_as_a_table_loads_the_table_library(
    tmp_path: Path, onnx_bundle: Path
) -> None:
    """The test above would find it, if it were loaded."""
    pytest.importorskip("openvino")
    pytest.importorskip("geopandas")
    write_colour_video(tmp_path / "card" / "a.mp4", duration_s=3.0)
    scan = ("scan", "card", "--bundle", str(onnx_bundle), "--out", "tags.gpkg")
    assert "geopandas" in imported_by(tmp_path, *scan)


def test_without_a_model_no_engine_is_loaded(tmp_path: Path) -> None:
    write_colour_video(tmp_path / "card" / "a.mp4", duration_s=3.0)
    found = imported_by(tmp_path, "scan", "card", "--out", "tags.geojson", code=3)  # no_model
    assert not found & {"openvino", "tensorrt", "tensorrt_rtx", *TOO_LARGE}


def test_doctor_and_bench_load_no_training_library_either(
    tmp_path: Path, onnx_bundle: Path
) -> None:
    pytest.importorskip("openvino")
    imported_by(tmp_path, "doctor")
    found = imported_by(tmp_path, "bench", "--bundle", str(onnx_bundle))
    assert not found & TOO_LARGE
