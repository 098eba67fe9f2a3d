from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geotag.errors import OutputError
from geotag.locks import OutputLock, is_on_network, lock_path

HOLDER = """
import sys, time
from geotag.locks import OutputLock
with OutputLock(sys.argv[1:]):
    print("held", flush=True)
    time.sleep(60)
"""


def _hold(*outs: object) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, outs)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_scan_into_one_output_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    out = tmp_path / "tags.geojson"
    with _hold(out) as holder:
        with pytest.raises(OutputError, match=f"another scan.*process {holder.pid} on ") as caught:
            OutputLock([str(out)]).__enter__()
        assert str(out) in str(caught.value)
        holder.kill()


def test_kill_9_lets_go(tmp_path: Path) -> None:
    out = tmp_path / "tags.geojson"
    with _hold(out) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with OutputLock([str(out)]) as lock:
        assert lock.warnings == []
    assert list(tmp_path.iterdir()) == []


def test_no_lock_file_is_left(tmp_path: Path) -> None:
    out = tmp_path / "tags.geojson"
    with OutputLock([str(out), str(tmp_path / "tags.csv")]):
        assert lock_path(out).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_scan_holds_nothing(tmp_path: Path) -> None:
    one, two = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")
    with OutputLock([two]):
        with pytest.raises(OutputError):
            OutputLock([one, two]).__enter__()
        with OutputLock([one]):
            pass


def test_other_outputs_are_free(tmp_path: Path) -> None:
    with OutputLock([str(tmp_path / "a.csv")]), OutputLock([str(tmp_path / "b.csv")]):
        pass


@pytest.mark.parametrize("spelling", ["tags.csv", "./x/../tags.csv", "link.csv", "folder/tags.csv"])
def test_spellings_and_links_of_one_output_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "tags.csv")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with OutputLock([str(tmp_path / "tags.csv")]), pytest.raises(OutputError):
        OutputLock([spelling]).__enter__()


def test_an_output_named_twice_is_locked_once(tmp_path: Path) -> None:
    out = str(tmp_path / "tags.csv")
    with OutputLock([out, out]):
        pass


def test_standard_output_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with OutputLock(["-"]), OutputLock(["-"]):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_left_behind_is_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    lock_path(out).write_text("1 elsewhere\n")
    with OutputLock([str(out)]) as lock:
        assert lock.warnings == []


def test_a_lock_file_removed_by_its_holder_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lock_path(tmp_path / "tags.csv")
    real = fcntl.flock
    calls = []

    def removed_before_it_is_locked(handle: int, what: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()
        real(handle, what)

    monkeypatch.setattr(fcntl, "flock", removed_before_it_is_locked)
    with OutputLock([str(tmp_path / "tags.csv")]):
        assert len(calls) == 2
        assert path.exists()


def test_the_lock_file_of_another_scan_is_not_removed(tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    with OutputLock([str(out)]):
        lock_path(out).unlink()  # a person, tidying up
        other = OutputLock([str(out)]).__enter__()
    assert lock_path(out).exists()
    other.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(handle: int, what: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with OutputLock([str(tmp_path / "tags.csv")]) as lock:
        assert len(lock.warnings) == 1
        assert "cannot be locked" in lock.warnings[0]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_left_to_the_output_to_tell(tmp_path: Path) -> None:
    with OutputLock([str(tmp_path / "nowhere" / "tags.csv")]) as lock:
        assert lock.warnings == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_not_a_lock_file_is_neither_followed_nor_waited_for(
    tmp_path: Path, kind: str
) -> None:
    path = lock_path(tmp_path / "tags.csv")
    if kind == "link":
        path.symlink_to(tmp_path / "precious")
        (tmp_path / "precious").write_text("kept")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with OutputLock([str(tmp_path / "tags.csv")]) as lock:
        assert kind == "pipe" or lock.warnings
    if kind == "link":
        assert (tmp_path / "precious").read_text() == "kept"


def test_a_local_folder_is_not_on_the_network(tmp_path: Path) -> None:
    assert not is_on_network(tmp_path / "tags.csv")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/mnt/my nas/a/tags.csv", True),
        ("/mnt/my nas/disk/tags.csv", False),
        ("/mnt/my nasal/tags.csv", False),
        ("/home/tags.csv", False),
    ],
)
def test_the_innermost_mount_says_whether_a_file_is_on_the_network(
    monkeypatch: pytest.MonkeyPatch, path: str, expected: bool
) -> None:
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\n"
        "nas:/export /mnt/my\\040nas nfs4 rw 0 0\n"
        "/dev/sdb1 /mnt/my\\040nas/disk exfat rw 0 0\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert is_on_network(Path(path)) is expected
