"""A scan that does not reach its end: interrupts, full disks, readers that go away."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fakes import write_colour_video
from tests.process import geotag_command, geotag_environ, run_geotag
from tests.rfc7946 import check_collection, check_feature, parse

MANY = 400


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many videos that nobody is done before a signal arrives."""
    folder = tmp_path_factory.mktemp("many")
    first = write_colour_video(folder / "000.mp4")
    for index in range(1, MANY):
        (folder / f"{index:03}.mp4").hardlink_to(first)
    return folder


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    # A signal between opening a file and `with` leaves closing it to the garbage collector, which
    # is right, and for which no user sees a warning either.
    environ = {key: text for key, text in geotag_environ().items() if key != "PYTHONWARNINGS"}
    return subprocess.Popen(
        [*geotag_command(), *arguments],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_keeps_what_is_finished(
    many: Path, onnx_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "tags.geojson").write_text("old", encoding="utf-8")
    arguments = ("scan", str(many), "--bundle", str(onnx_bundle), "-o", "tags.geojson", "-o", "-")
    with start(*arguments, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        # Not communicate(): it leaves out what readline() took ahead. What is written to the
        # other pipe meanwhile, a few lines, fits into it.
        lines += process.stdout.readlines()
        error = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130, error
    for line in lines:
        check_feature(parse(line))
    features = check_collection((tmp_path / "tags.geojson").read_text(encoding="utf-8"))
    assert len(lines) - 1 <= len(features) <= len(lines)
    assert 3 <= len(features) < MANY
    assert f"interrupted: {len(features)} of {MANY} videos are done" in error
    assert "Traceback" not in error
    # Coverage of subprocesses leaves hidden files of its own beside them.
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".coverage")}
    assert left == {".geotag-ledger.sqlite", "run.json", "tags.geojson"}


def test_a_reader_that_goes_away_ends_the_scan_quietly(
    many: Path, onnx_bundle: Path, tmp_path: Path
) -> None:
    with start("scan", str(many), "-b", str(onnx_bundle), "-o", "-", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 5
    assert "writing to standard output: its reader has closed" in error
    assert "Traceback" not in error
    assert "Exception ignored" not in error


def test_standard_output_that_is_full_is_exit_5(
    many: Path, onnx_bundle: Path, tmp_path: Path
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        result = subprocess.run(
            [*geotag_command(), "scan", str(many), "-b", str(onnx_bundle), "-o", "-"],
            cwd=tmp_path,
            env=geotag_environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 5
    assert "writing to standard output: No space left on device" in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_disk_that_fills_keeps_the_old_result(onnx_bundle: Path, tmp_path: Path) -> None:
    write_colour_video(tmp_path / "card" / "a.mp4")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here; the unit tests break the write instead")
    try:
        (disk / "tags.geojson").write_text("old", encoding="utf-8")
        (disk / "ballast").write_bytes(bytes(4096))
        out = str(disk / "tags.geojson")
        result = run_geotag("scan", "card", "-b", str(onnx_bundle), "-o", out, cwd=tmp_path)
        assert result.returncode == 5, result.stderr
        assert "disk is full" in result.stderr or "No space left on device" in result.stderr
        assert (disk / "tags.geojson").read_text(encoding="utf-8") == "old"
        left = {path.name for path in disk.iterdir()} - {".geotag-ledger.sqlite"}
        assert left == {"ballast", "tags.geojson"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_help_and_version_work_as_a_process(tmp_path: Path) -> None:
    assert run_geotag("--version", cwd=tmp_path).stdout.startswith("geotag ")
    result = run_geotag("scan", "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: geotag scan" in result.stdout
