"""Children are killed, stopped and orphaned for real; what they read is whole."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from geotag.footage.child import Child
from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import open_video
from geotag.footage.isolation import DecodeBugError, DecodeProcess, DecodeStoppedError
from geotag.footage.limits import Limits
from geotag.types import FootageError, Policy, Video
from tests.media import drop_moov, write_video
from tests.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMPATIENT = Limits(base_s=1.0)
WINDOW = Window(start_s=0.4, end_s=1.9)
SAMPLING = Sampling(
    policy="exact", span_s=1.5, frames=8, height_px=48, width_px=96, max_keyframe_gap_s=1.0
)


def video_at(path: Path) -> Video:
    return Video(path=path, name=path.name, video_id="0" * 32, size_bytes=path.stat().st_size)


def is_running(pid: int) -> bool:
    """Whether a process exists and is more than an entry that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(is_true: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 20
    while not is_true() and time.monotonic() < until_s:
        time.sleep(0.02)
    return is_true()


def child_pid(process: DecodeProcess) -> int:
    assert process.pid is not None
    return process.pid


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames=66, gop=15)


@pytest.fixture(scope="module")
def video(path: Path) -> Video:
    return video_at(path)


@pytest.fixture(scope="module")
def shared() -> Iterator[DecodeProcess]:
    """For tests that leave it whole."""
    with DecodeProcess() as process:
        yield process


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_a_clip_is_the_same_as_without_a_process(
    shared: DecodeProcess, video: Video, policy: Policy
) -> None:
    sampling = replace(SAMPLING, policy=policy)
    with open_video(video) as here, shared.open_video(video, decode_threads=1) as there:
        assert there.facts == here.facts
        mine, other = here.read_clip(WINDOW, sampling), there.read_clip(WINDOW, sampling)
    assert np.array_equal(mine.frames_THWC, other.frames_THWC)
    assert mine.times_s == other.times_s
    assert (mine.policy, mine.fallback, mine.damaged) == (
        other.policy,
        other.fallback,
        other.damaged,
    )
    assert other.frames_THWC.flags.writeable


def test_what_is_wrong_with_a_file_is_told_as_without_a_process(
    shared: DecodeProcess, tmp_path: Path
) -> None:
    broken = [drop_moov(write_video(tmp_path / "a.mp4")), tmp_path / "b.mp4", tmp_path / "c.mp4"]
    broken[1].write_text("no video")
    broken[2].write_bytes(b"")
    for path in broken:
        with pytest.raises(FootageError) as here:
            open_video(video_at(path))
        with pytest.raises(FootageError) as there:
            shared.open_video(video_at(path))
        assert (there.value.stage, there.value.code) == (here.value.stage, here.value.code)
        assert there.value.message == here.value.message


def test_a_video_without_enough_frames_fails_in_its_clip_and_the_next_one_opens(
    shared: DecodeProcess, tmp_path: Path, video: Video
) -> None:
    short = video_at(write_video(tmp_path / "a.mp4", frames=1))
    with shared.open_video(short) as reader, pytest.raises(FootageError) as caught:
        reader.read_clip(WINDOW, SAMPLING)
    assert (caught.value.stage, caught.value.code) == ("decode", "too_short")
    with shared.open_video(video) as reader:
        assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8


@pytest.mark.parametrize("name", ["ünïcode \n ☃.mp4", "a:b.mp4", os.fsdecode(b"\xff\xfe.mp4")])
def test_any_name_is_opened(shared: DecodeProcess, tmp_path: Path, path: Path, name: str) -> None:
    try:
        (tmp_path / name).write_bytes(path.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    with shared.open_video(video_at(tmp_path / name)) as reader:
        assert reader.facts.codec == "h264"


def test_one_process_serves_many_files(shared: DecodeProcess, video: Video) -> None:
    pids = set()
    for _ in range(3):
        with shared.open_video(video) as reader:
            reader.read_clip(WINDOW, SAMPLING)
            pids.add(shared.pid)
    assert len(pids) == 1


def test_a_child_that_dies_between_requests_is_replaced(video: Video) -> None:
    with DecodeProcess() as process:
        with process.open_video(video) as reader:
            pid = child_pid(process)
            os.kill(pid, signal.SIGSEGV)
            assert wait_until(lambda: not is_running(pid))
            assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8
        assert process.pid != pid


def killing_send(monkeypatch: pytest.MonkeyPatch, number: int, *, times: int) -> None:
    """Have the child die of a signal just when it reads a clip."""
    send = Child.send
    left = [times]

    def send_and_kill(self: Child, request: dict[str, object]) -> None:
        send(self, request)
        if request["do"] == "clip" and left[0]:
            left[0] -= 1
            os.kill(self.pid, number)

    monkeypatch.setattr(Child, "send", send_and_kill)


def test_a_crash_while_reading_is_told_with_its_signal(
    video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing_send(monkeypatch, signal.SIGSEGV, times=9)
    with DecodeProcess() as process:
        with process.open_video(video) as reader:
            for _ in range(2):  # and it is not tried again
                with pytest.raises(FootageError, match="SIGSEGV") as caught:
                    reader.read_clip(WINDOW, SAMPLING)
                assert (caught.value.stage, caught.value.code) == ("decode", "crashed")
        monkeypatch.undo()
        with process.open_video(video) as reader:
            assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8


def test_a_file_is_to_blame_only_for_a_crash_that_happens_again(
    video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DecodeProcess() as process:
        with process.open_video(video) as reader:
            expected = reader.read_clip(WINDOW, SAMPLING)
        killing_send(monkeypatch, signal.SIGABRT, times=1)
        with process.open_video(video) as reader:
            clip = reader.read_clip(WINDOW, SAMPLING)
    assert np.array_equal(clip.frames_THWC, expected.frames_THWC)


def test_a_child_that_stalls_is_ended_and_the_next_file_gets_a_fresh_one(video: Video) -> None:
    with DecodeProcess(limits=IMPATIENT) as process:
        with process.open_video(video) as reader:
            pid = child_pid(process)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(FootageError, match="cut off after") as caught:
                reader.read_clip(WINDOW, SAMPLING)
        assert (caught.value.stage, caught.value.code) == ("decode", "stalled")
        assert not is_running(pid)
        with process.open_video(video) as reader:
            assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8


def test_a_stall_while_opening_belongs_to_the_stage_open(video: Video) -> None:
    with DecodeProcess(limits=IMPATIENT) as process:
        process.open_video(video).close()
        os.kill(child_pid(process), signal.SIGSTOP)
        with pytest.raises(FootageError) as caught:
            process.open_video(video)
        assert (caught.value.stage, caught.value.code) == ("open", "stalled")


def test_time_in_which_nobody_waits_does_not_count(video: Video) -> None:
    with DecodeProcess(limits=IMPATIENT) as process, process.open_video(video) as reader:
        time.sleep(1.2)
        assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8


def test_a_mistake_of_ours_in_the_child_is_told_with_its_traceback(
    shared: DecodeProcess, video: Video
) -> None:
    with shared.open_video(video) as reader, pytest.raises(DecodeBugError) as caught:
        reader.read_clip(WINDOW, replace(SAMPLING, frames=0))
    assert "ZeroDivisionError" in str(caught.value)
    assert "clips.py" in str(caught.value)


def test_a_reader_is_of_no_use_once_another_video_is_open(
    shared: DecodeProcess, video: Video
) -> None:
    first = shared.open_video(video)
    with shared.open_video(video) as second:
        first.close()
        with pytest.raises(RuntimeError, match="another"):
            first.read_clip(WINDOW, SAMPLING)
        assert len(second.read_clip(WINDOW, SAMPLING).times_s) == 8


def test_closing_ends_the_child_and_leaves_no_handle_open(video: Video) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    process = DecodeProcess()
    with process.open_video(video) as reader:
        reader.read_clip(WINDOW, SAMPLING)
        pid = child_pid(process)
        process.close()
    process.close()
    assert not is_running(pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(DecodeStoppedError):
        process.open_video(video)


def test_closing_from_another_thread_frees_the_one_that_waits(video: Video) -> None:
    process = DecodeProcess()
    process.open_video(video).close()
    os.kill(child_pid(process), signal.SIGSTOP)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            process.open_video(video)
        except Exception as exc:  # noqa: BLE001
            errors.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    process.close()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [DecodeStoppedError]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_are_left_to_the_parent(video: Video, number: int) -> None:
    with DecodeProcess() as process, process.open_video(video) as reader:
        assert os.getsid(child_pid(process)) != os.getsid(0)
        os.kill(child_pid(process), number)
        assert len(reader.read_clip(WINDOW, SAMPLING).times_s) == 8


def test_no_child_outlives_a_parent_that_is_killed(path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from geotag.footage.isolation import DecodeProcess\nfrom geotag.types import Video\n"
        f"path = Path({str(path)!r})\nprocess = DecodeProcess()\n"
        "process.open_video(Video(path=path, name='a', video_id='', size_bytes=9**6))\n"
        "print(process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not is_running(pid))


def test_a_child_that_hangs_in_a_library_ends_itself_after_its_parent(path: Path) -> None:
    """Inside a call that lets no other thread of Python run, here a hopeless search."""
    code = (
        "import re, sys\nfrom geotag.footage import decode_worker\n"
        "decode_worker._ORPHAN_S = 0.2\n"
        "decode_worker.open_video = lambda *_, **__: re.match('(a+)+$', 'a' * 60 + 'b')\n"
        """decode_worker.main(['{"base_s": 0.2}'])"""
    )
    request = f'{{"do": "open", "path": "{path}", "size_bytes": 1, "decode_threads": 1}}\n'
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        child.stdin.write(request.encode())
        child.stdin.flush()
        assert child.wait(timeout=60) == -signal.SIGALRM


def test_it_works_from_any_folder_whatever_lies_there(path: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "b.mp4").write_bytes(path.read_bytes())
    for module in ("av", "numpy", "json", "geotag"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('the wrong module')")
    code = (
        f"import sys\nsys.path[:1] = [{str(ROOT)!r}]\nfrom pathlib import Path\n"
        "from geotag.footage.isolation import DecodeProcess\nfrom geotag.types import Video\n"
        "with DecodeProcess() as process:\n"
        "    video = Video(path=Path('clips/b.mp4'), name='b', video_id='', size_bytes=9**6)\n"
        "    print(process.open_video(video).facts.codec)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("h264\n", "")


def test_the_memory_of_the_child_is_bounded(video: Video) -> None:
    limits = Limits(most_memory_bytes=1 << 30, most_thread_bytes=1 << 20)
    with DecodeProcess(limits=limits) as process:
        process.open_video(video, decode_threads=4)
        soft, _ = resource.prlimit(child_pid(process), resource.RLIMIT_AS)
        assert soft == (1 << 30) + (4 << 20)
        assert resource.prlimit(child_pid(process), resource.RLIMIT_CORE)[0] == 0


def test_a_child_that_does_not_start_says_why(
    video: Video, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with DecodeProcess() as process, pytest.raises(RuntimeError, match="no such library"):
        process.open_video(video)


def test_a_child_that_talks_nonsense_counts_as_crashed(
    video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Child, size: int, timeout_s: float) -> bytes:
        return b"\xff" * size

    with DecodeProcess() as process, process.open_video(video) as reader:
        monkeypatch.setattr(Child, "receive_bytes", read)
        monkeypatch.setattr(Child, "wait_until_ready", lambda *_: None)
        with pytest.raises(FootageError) as caught:
            reader.read_clip(WINDOW, SAMPLING)
    assert caught.value.code == "crashed"
