from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from geotag.errors import ConfigError
from geotag.telemetry.exiftool import (
    ENVIRONMENT,
    ExifTool,
    ExifToolError,
    _launch,
    describe_version,
    exiftool_version,
    find_exiftool,
)
from tests.unit.telemetry.made import novatek, way

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")

# Answers `-ver` as ExifTool does, kept open, and then does what a test wants.
FAKE = """#!/usr/bin/env python3
import re, sys, time
first = True
words = []
for line in sys.stdin:
    words.append(line.strip())
    number = re.fullmatch(r"-execute(\\d+)", line.strip())
    if not number:
        continue
    if not first:
        {then}
    sys.stdout.write("13.59\\n" if first else "[{{}}]\\n")
    sys.stdout.write("{{ready%s}}\\n" % number[1])
    sys.stdout.flush()
    mark = next(w for w in words if w.startswith("=${{status}}="))
    sys.stderr.write(mark.replace("${{status}}", "0") + "\\n")
    sys.stderr.flush()
    first, words = False, []
"""


def fake(folder: Path, then: str) -> Path:
    program = folder / "exiftool-fake"
    program.write_text(FAKE.format(then=then))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_the_variable_names_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake(tmp_path, "pass")
    monkeypatch.setenv(ENVIRONMENT, str(program))
    assert find_exiftool() == program


def test_a_variable_that_names_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "/nowhere/exiftool")
    with pytest.raises(ConfigError, match="/nowhere/exiftool"):
        find_exiftool()


def test_without_the_program_there_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_exiftool() is None
    assert exiftool_version() is None
    assert "not found" in describe_version(None)


@pytest.mark.parametrize(
    ("version", "words"),
    [("12.57", "misses"), ("13.29", "misses"), ("13.30", "every"), ("14.1", "every")],
)
def test_an_old_version_is_told_what_it_misses(version: str, words: str) -> None:
    assert words in describe_version(version)


def test_a_program_that_hangs_is_ended_and_begun_again(tmp_path: Path) -> None:
    program = fake(tmp_path, "time.sleep(600) if 'slow' in ' '.join(words) else None")
    slow, quick = tmp_path / "slow.mp4", tmp_path / "quick.mp4"
    exiftool = ExifTool(program)
    with pytest.raises(ExifToolError, match="took more than 0 s"):
        exiftool.read_tags(slow, level="-ee", limit_s=0.3)
    assert exiftool.read_tags(quick, level="-ee", limit_s=20) == {}
    exiftool.close()


def test_a_program_that_dies_is_begun_again(tmp_path: Path) -> None:
    program = fake(tmp_path, "sys.exit(3) if 'bad' in ' '.join(words) else None")
    exiftool = ExifTool(program)
    for _ in range(2):
        with pytest.raises(ExifToolError, match="died"):
            exiftool.read_tags(tmp_path / "bad.mp4", level="-ee", limit_s=20)
        assert exiftool.read_tags(tmp_path / "good.mp4", level="-ee", limit_s=20) == {}
    exiftool.close()


def test_a_program_that_ends_between_two_files_is_begun_again(tmp_path: Path) -> None:
    exiftool = ExifTool(fake(tmp_path, "pass"))
    exiftool.read_tags(tmp_path / "a.mp4", level="-ee", limit_s=20)
    process = exiftool._tool._process
    process.kill()
    process.wait()
    assert exiftool.read_tags(tmp_path / "a.mp4", level="-ee", limit_s=20) == {}
    exiftool.close()


def test_a_program_that_talks_nonsense_is_an_error(tmp_path: Path) -> None:
    program = fake(tmp_path, 'sys.stdout.write("{")')
    exiftool = ExifTool(program)
    with pytest.raises(ExifToolError, match="no JSON"):
        exiftool.read_tags(tmp_path / "a.mp4", level="-ee", limit_s=20)
    exiftool.close()


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_a_program_that_cannot_be_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_waited_for: bool
) -> None:
    def launch_and_wait(program: Path) -> subprocess.Popen[bytes]:
        process = _launch(program)
        process.wait()
        return process

    if is_waited_for:  # whether it has died before it is asked is a matter of luck
        monkeypatch.setattr("geotag.telemetry.exiftool._launch", launch_and_wait)
    program = tmp_path / "exiftool"
    program.write_text("#!/nowhere/perl\n")
    program.chmod(0o755)
    with pytest.raises(ExifToolError, match=r"does not start"):
        ExifTool(program).read_tags(tmp_path / "a.mp4", level="-ee", limit_s=20)


def test_nothing_is_left_running(tmp_path: Path) -> None:
    exiftool = ExifTool(fake(tmp_path, "pass"))
    exiftool.read_tags(tmp_path / "a.mp4", level="-ee", limit_s=20)
    pid = exiftool._tool._process.pid
    exiftool.close()
    exiftool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not [one for one in threading.enumerate() if one.name == "exiftool watch"]


@needs_exiftool
def test_it_ends_with_the_process_that_began_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(novatek(way(5)))
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from geotag.telemetry.exiftool import ExifTool, find_exiftool;"
        "tool = ExifTool(find_exiftool());"
        f"tool.read_tags(Path({str(path)!r}), level='-ee', limit_s=60);"
        "print(tool._tool._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    pid = int(ended.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("ExifTool runs on")


@needs_exiftool
@pytest.mark.parametrize(
    "name",
    [
        b"plain.mp4",
        b"-ee3",
        b" leading and trailing ",
        b"line\nbreak\r.mp4",
        b"-execute\n-stay_open\nFalse\n",
        b"not utf-8 \xff\xfe.mp4",
        "\u00e9\u4e2d\U0001f697.mp4".encode(),
        b"%d #[CSTR]\\n $x @y \"q\" 'p' {ready}.mp4",
    ],
)
def test_any_name_can_be_read(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(novatek(way(5)))
    program = find_exiftool()
    assert program is not None
    exiftool = ExifTool(program)
    tags = exiftool.read_tags(path, level="-ee", limit_s=60)
    exiftool.close()
    assert sum(key.endswith("GPSLatitude") for key in tags) >= 5


@needs_exiftool
def test_one_process_reads_many_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(novatek(way(5)))
    program = find_exiftool()
    assert program is not None
    exiftool = ExifTool(program)
    exiftool.read_tags(path, level="-ee", limit_s=60)
    pid = exiftool._tool._process.pid
    for _ in range(5):
        exiftool.read_tags(path, level="-ee", limit_s=60)
    assert exiftool._tool._process.pid == pid
    exiftool.close()


@needs_exiftool
def test_a_file_that_is_gone_is_no_crash(tmp_path: Path) -> None:
    program = find_exiftool()
    assert program is not None
    exiftool = ExifTool(program)
    assert exiftool.read_tags(tmp_path / "gone.mp4", level="-ee", limit_s=60) == {}
    exiftool.close()
