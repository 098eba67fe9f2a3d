from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from geotag import ledger as module
from geotag.errors import OutputError
from geotag.ledger import LEDGER_FILE, Ledger, ledger_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LONG_AGO_S = 1_500_000_000


def text_of(
    ledger: Ledger, content_id: str, kind: str = "survey", settings: str = "s1"
) -> str | None:
    return ledger.get(content_id, (kind, settings))[0]


def texts_of(ledger: Ledger, content_ids: Iterable[str]) -> dict[str, str]:
    texts = {each: text_of(ledger, each) for each in content_ids}
    return {each: text for each, text in texts.items() if text is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER_FILE


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour passes between making files and scanning them."""
    now_ns = time.time_ns() + 3_600_000_000_000
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _file(folder: Path, text: bytes = b"film") -> Path:
    film = folder / "film.mp4"
    film.write_bytes(text)
    return film


def test_is_beside_the_first_output_file(tmp_path: Path) -> None:
    outs = ("-", str(tmp_path / "tags.csv"), "/elsewhere/tags.csv")
    assert ledger_path(outs) == tmp_path / LEDGER_FILE


def test_is_beside_what_a_linked_output_leads_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "tags.csv").symlink_to(tmp_path / "far" / "tags.csv")
    assert ledger_path([str(tmp_path / "tags.csv")]) == tmp_path / "far" / LEDGER_FILE


def test_the_state_folder_goes_before_the_output(tmp_path: Path) -> None:
    assert ledger_path(["out/tags.csv"], tmp_path) == tmp_path / LEDGER_FILE


def test_standard_output_alone_has_no_ledger() -> None:
    assert ledger_path(["-"]) is None


def test_a_text_is_there_for_the_next_scan(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", '{"city": "Ålesund"}')
        assert ledger.warning is None
    with Ledger(path) as ledger:
        assert text_of(ledger, "abc") == '{"city": "Ålesund"}'
        assert ledger.warning is None


@pytest.mark.parametrize(
    "key", [("abd", "survey", "s1"), ("abc", "picture", "s1"), ("abc", "survey", "s2")]
)
def test_another_key_has_another_text(path: Path, key: tuple[str, str, str]) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", "one")
        assert text_of(ledger, *key) is None


def test_the_newest_text_of_a_key_counts(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", "one")
        ledger.put("abc", "survey", "s1", "two")
        assert text_of(ledger, "abc") == "two"


def test_texts_of_several_kinds_are_found_at_once(path: Path) -> None:
    with Ledger(path) as ledger:
        for kind in ("survey", "picture"):
            ledger.put("c1", kind, "s1", f"a {kind}")
        ledger.put("c2", "other", "s1", "of another")
        found = ledger.get("c1", ("picture", "s1"), ("other", "s1"), ("survey", "s1"))
    assert found == ["a picture", None, "a survey"]


def test_nothing_is_left_beside_the_file(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", "one")
    assert [each.name for each in path.parent.iterdir()] == [LEDGER_FILE]


@pytest.mark.usefixtures("later")
def test_an_unchanged_file_is_recalled(path: Path, tmp_path: Path) -> None:
    film = _file(tmp_path)
    with Ledger(path) as ledger:
        ledger.remember(film, film.stat(), "abc")
        assert ledger.recall(film, film.stat()) == "abc"
    with Ledger(path) as ledger:
        assert ledger.recall(film, film.stat()) == "abc"
        assert ledger.recall(tmp_path / "other.mp4", film.stat()) is None


@pytest.mark.usefixtures("later")
def test_a_file_is_the_same_however_its_path_is_spelled(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = _file(tmp_path)
    monkeypatch.chdir(tmp_path)
    with Ledger(path) as ledger:
        ledger.remember(film.relative_to(tmp_path), film.stat(), "abc")
        assert ledger.recall(tmp_path / "x" / ".." / "film.mp4", film.stat()) == "abc"


@pytest.mark.usefixtures("later")
def test_a_name_that_is_not_utf8_is_remembered(path: Path, tmp_path: Path) -> None:
    film = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    film.write_bytes(b"film")
    with Ledger(path) as ledger:
        ledger.remember(film, film.stat(), "abc")
    with Ledger(path) as ledger:
        assert ledger.recall(film, film.stat()) == "abc"


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", ["size", "time", "replaced", "time_set_back"])
def test_a_changed_file_is_not_recalled(path: Path, tmp_path: Path, change: str) -> None:
    film = _file(tmp_path)
    os.utime(film, (LONG_AGO_S, LONG_AGO_S))
    with Ledger(path) as ledger:
        ledger.remember(film, film.stat(), "abc")
        if change == "size":
            film.write_bytes(b"films")
        elif change == "replaced":
            other = tmp_path / "other"
            other.write_bytes(b"firm")
            other.replace(film)
        else:
            time.sleep(0.02)  # the clock of the file system is coarse
            film.write_bytes(b"firm")
        if change != "time":
            os.utime(film, (LONG_AGO_S, LONG_AGO_S))
        assert ledger.recall(film, film.stat()) is None


def test_a_file_written_a_moment_ago_is_not_trusted(path: Path, tmp_path: Path) -> None:
    film = _file(tmp_path)
    with Ledger(path) as ledger:
        ledger.remember(film, film.stat(), "abc")
        assert ledger.recall(film, film.stat()) is None


def test_what_was_read_before_the_ledger_was_opened_counts_from_then(
    path: Path, tmp_path: Path
) -> None:
    film = _file(tmp_path)
    now_ns = film.stat().st_ctime_ns
    with Ledger(path) as ledger:
        ledger.remember(film, film.stat(), "abc", seen_ns=now_ns + 3_000_000_000)
        assert ledger.recall(film, film.stat()) == "abc"
        ledger.remember(film, film.stat(), "abc", seen_ns=now_ns + 1_000_000_000)
        assert ledger.recall(film, film.stat()) is None


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but long enough" * 40, b"short", b"SQLite format 3\0" + bytes(4080)],
)
def test_a_file_that_is_no_ledger_is_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with Ledger(path) as ledger:
        assert ledger.warning is not None
        assert ".bad" in ledger.warning
        ledger.put("abc", "survey", "s1", "one")
        assert text_of(ledger, "abc") == "one"
    assert path.with_name(f"{LEDGER_FILE}.bad").read_bytes() == content


def test_an_empty_file_is_a_ledger_to_be(path: Path) -> None:
    path.write_bytes(b"")
    with Ledger(path) as ledger:
        assert ledger.warning is None
        ledger.put("abc", "survey", "s1", "one")


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "CREATE TABLE songs (name)"])
def test_a_database_of_another_program_or_version_is_set_aside(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    with Ledger(path) as ledger:
        assert ledger.warning is not None
        assert "schema version" in ledger.warning


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_in_the_file_never_stops_a_scan(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with Ledger(path) as ledger:
        for number in range(300):
            ledger.put(f"c{number}", "survey", "s1", str(number) * 50)
    content = bytearray(path.read_bytes())
    for _ in range(40):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content[: rng.randrange(len(content) // 2, len(content) + 1)])
    with Ledger(path) as ledger:
        for number in range(300):
            assert text_of(ledger, f"c{number}") in (None, str(number) * 50)
            ledger.put(f"c{number}", "survey", "s1", str(number))
        assert text_of(ledger, "c7") == "7"


def test_a_flipped_bit_in_a_text_is_not_believed(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", '{"lat_deg": 48.137}')
    path.write_bytes(path.read_bytes().replace(b"48.137", b"49.137"))
    with Ledger(path) as ledger:
        assert text_of(ledger, "abc") is None


def test_a_ledger_damaged_while_in_use_is_begun_anew(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", "one")
        breaking = sqlite3.connect(path, isolation_level=None)
        breaking.execute("PRAGMA writable_schema = ON")
        breaking.execute("UPDATE sqlite_master SET rootpage = 1 WHERE name = 'evidence'")
        breaking.execute("PRAGMA schema_version = 999")
        breaking.close()
        ledger.put("abd", "survey", "s1", "two")
        assert text_of(ledger, "abd") == "two"
    assert "set aside" in caplog.text


def test_a_folder_in_place_of_the_file_is_told(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("x")
    path.with_name(f"{LEDGER_FILE}.bad").write_text("x")
    with pytest.raises(OutputError, match="opening the ledger"):
        Ledger(path)


def test_a_state_folder_is_made(tmp_path: Path) -> None:
    with Ledger(tmp_path / "state" / "geotag" / LEDGER_FILE) as ledger:
        ledger.put("abc", "survey", "s1", "one")
    assert (tmp_path / "state" / "geotag" / LEDGER_FILE).is_file()


def test_a_full_disk_is_told_and_keeps_what_was_put(small_disk: Path) -> None:
    path = small_disk / LEDGER_FILE
    put: list[str] = []

    def fill(ledger: Ledger) -> None:
        for number in range(1000):
            ledger.put(f"c{number}", "survey", "s1", "x" * 3000)
            put.append(f"c{number}")

    with Ledger(path) as ledger, pytest.raises(OutputError, match="full"):
        fill(ledger)
    assert put
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    with Ledger(path) as ledger:
        assert ledger.warning is None
        assert list(texts_of(ledger, put)) == put


def test_a_disk_too_full_to_begin_a_ledger_is_told(small_disk: Path) -> None:
    (small_disk / "film.mp4").write_bytes(bytes(256 << 10))
    with pytest.raises(OutputError, match="Free some space"):
        Ledger(small_disk / LEDGER_FILE)


def test_a_disk_that_fails_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(path) as ledger:
        ledger.put("abc", "survey", "s1", "one")
        good = ledger._connection

        class Broken:
            in_transaction = False

            def execute(self, *_: object) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            def close(self) -> None:
                good.close()

        monkeypatch.setattr(ledger, "_connection", Broken())
        with pytest.raises(OutputError, match=r"disk I/O error\. What was finished is kept"):
            ledger.put("abd", "survey", "s1", "two")
        assert text_of(ledger, "abc") is None
    with Ledger(path) as ledger:
        assert text_of(ledger, "abc") == "one"


def test_a_file_system_without_locks_is_used_with_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._set_up

    def refuses_locks(connection: sqlite3.Connection, file: Path) -> None:
        (row,) = connection.execute("PRAGMA database_list").fetchall()
        if not asked:
            asked.append(row)
            raise sqlite3.OperationalError("locking protocol")
        real(connection, file)

    asked: list[object] = []
    monkeypatch.setattr(module, "_set_up", refuses_locks)
    with Ledger(path) as ledger:
        assert ledger.warning is not None
        assert "cannot lock" in ledger.warning
        ledger.put("abc", "survey", "s1", "one")
    with Ledger(path) as ledger:
        assert text_of(ledger, "abc") == "one"


def test_another_that_never_lets_go_is_not_waited_for_forever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    with Ledger(path) as ledger:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="locked"):
            ledger.put("abc", "survey", "s1", "one")
        holder.execute("ROLLBACK")
        holder.close()
        ledger.put("abc", "survey", "s1", "one")


@pytest.mark.parametrize("on_network", [False, True])
def test_two_scans_use_one_ledger_at_a_time(
    path: Path, on_network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_on_network", lambda _: on_network)
    with Ledger(path) as one, Ledger(path) as two:
        one.put("abc", "survey", "s1", "one")
        two.put("abd", "survey", "s1", "two")
        assert text_of(two, "abc") == "one"
        assert text_of(one, "abd") == "two"


def test_threads_share_a_ledger(path: Path) -> None:
    with Ledger(path) as ledger:

        def work(worker: int) -> None:
            for number in range(50):
                ledger.put(f"{worker}-{number}", "survey", "s1", "x")

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        keys = [f"{worker}-{number}" for worker in range(4) for number in range(50)]
        assert len(texts_of(ledger, keys)) == 200


def test_the_oldest_texts_are_forgotten_beyond_a_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TEXTS", 10)
    with Ledger(path) as ledger:
        for number in range(30):
            ledger.put(f"c{number}", "survey", "s1", "x")
    with Ledger(path) as ledger:
        kept = texts_of(ledger, [f"c{number}" for number in range(30)])
    assert list(kept) == [f"c{number}" for number in range(20, 30)]


WRITER = """
import sys
from pathlib import Path
from geotag.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    for number in range(int(sys.argv[2]), 1_000_000):
        ledger.put(f"c{number}", "survey", "s1", f"{number}" * 100)
        print(number, flush=True)
"""


def test_what_was_put_survives_kill_9_at_any_moment(path: Path) -> None:
    rng = random.Random(5)
    done = -1
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(path), str(done + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            done = int(writer.stdout.readline())
            time.sleep(rng.random() * 0.05)
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split("\n")
            done = max([done, *(int(line) for line in lines[:-1])])
        with Ledger(path) as ledger:
            assert ledger.warning is None
            for number in range(done + 1):
                assert text_of(ledger, f"c{number}") == f"{number}" * 100


def test_closing_twice_keeps_what_was_put(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.put("a", "survey", "s", "text")
    ledger.close()
    ledger.close()
    with pytest.raises(OutputError):
        ledger.put("b", "survey", "s", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.sqlite"]
    with Ledger(path) as again:
        assert text_of(again, "a", "survey", "s") == "text"


class InterruptedAt:
    """A connection, during one statement of which Ctrl-C arrives: after it is done."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._connection = connection
        self._statement: str | None = statement

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: object) -> object:
        found = self._connection.execute(statement, *values)  # type: ignore[arg-type]
        if statement == self._statement:
            self._statement = None
            raise KeyboardInterrupt
        return found


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_an_interrupt_while_writing_is_no_damage(path: Path, statement: str) -> None:
    with Ledger(path) as ledger:
        ledger.put("a", "survey", "s1", "kept")
        ledger._connection = InterruptedAt(ledger._connection, statement)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            ledger.put("b", "survey", "s1", "lost or kept")
        ledger.put("c", "survey", "s1", "kept too")
        assert ledger.warning is None
    assert [each.name for each in path.parent.iterdir()] == [LEDGER_FILE]
    with Ledger(path) as again:
        assert text_of(again, "a") == "kept"
        assert text_of(again, "c") == "kept too"
