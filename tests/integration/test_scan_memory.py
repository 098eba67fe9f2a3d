"""A scan needs as much memory for many videos as for few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import write_colour_video
from tests.process import ROOT, geotag_command, geotag_environ

DEMO_BUNDLE = ROOT / "geotag" / "demo_bundle"
MOST_MB = 700
MOST_GROWTH_MB = 40

PEAK_OF_CHILD = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak / (1e6 if sys.platform == "darwin" else 1e3))
sys.exit(code)
"""
"""Linux counts into a child's peak what its parent held at the fork, hence a small parent."""


def peak_mb(count: int, bundle: Path, folder: Path) -> float:
    """Largest resident memory of a scan of `count` links to one video."""
    first = write_colour_video(folder / "card" / "000.mp4", duration_s=3.0)
    for index in range(1, count):
        (folder / "card" / f"{index:03}.mp4").hardlink_to(first)
    scan = (*geotag_command(), "scan", "card", "--bundle", str(bundle), "-o", "tags.csv")
    result = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CHILD, *scan],
        cwd=folder,
        env=geotag_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = (folder / "tags.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == count + 1
    return float(result.stdout)


@pytest.mark.parametrize("is_demo", [False, True], ids=["colours", "demo"])
def test_memory_is_small_and_does_not_grow_with_the_videos(
    tmp_path: Path, onnx_bundle: Path, is_demo: bool
) -> None:
    if is_demo and not DEMO_BUNDLE.is_dir():
        pytest.skip("this checkout holds no demo bundle; make demo-bundle trains it")
    bundle = DEMO_BUNDLE if is_demo else onnx_bundle
    few = peak_mb(10, bundle, tmp_path / "few")
    many = peak_mb(200, bundle, tmp_path / "many")
    assert max(few, many) < MOST_MB
    assert abs(many - few) < MOST_GROWTH_MB
