"""What is done already: texts that survive any stop, so that the next scan goes on from there.

One SQLite file. A text that `put` has taken is there after `kill -9`; a file that cannot be used
as a ledger is set aside and a new one begun, since all that is lost is time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import OutputError
from geotag.locks import is_on_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    T = TypeVar("T")

logger = logging.getLogger(__name__)

LEDGER_FILE = ".geotag-ledger.sqlite"
SCHEMA = 1
MAX_TEXTS = 400_000
"""Beyond, the oldest are forgotten: 200,000 videos with their telemetry and their pictures."""
WAIT_S = 10.0
"""How long another scan may hold the file; writing takes it a millisecond."""

_BATCH = 500
_UNSETTLED_NS = 2_000_000_000
"""FAT keeps times to two seconds: a file changed this shortly before may change unnoticed."""
# What SQLite says when the fault is not in the file.  Source: sqlite3ErrStr in its main.c;
# Python 3.10 does not tell the codes.
_CIRCUMSTANCES = (
    "disk I/O error",
    "database or disk is full",
    "is locked",
    "interrupted",
    "locking protocol",
    "large file support is disabled",
    "out of memory",
    "readonly",
    "unable to open database file",
)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS paths ("
    " path BLOB PRIMARY KEY, stamp TEXT NOT NULL, seen_ns INTEGER NOT NULL,"
    " content_id TEXT NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: the number says the age, also after the newest was replaced.
    "CREATE TABLE IF NOT EXISTS evidence ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT, content_id TEXT NOT NULL, kind TEXT NOT NULL,"
    " settings TEXT NOT NULL, text TEXT NOT NULL, crc INTEGER NOT NULL,"
    " UNIQUE (content_id, kind, settings))",
)
_GET = (
    "SELECT kind, settings, text, crc FROM evidence"
    " WHERE content_id = ? AND kind = ? AND settings = ?"
)


def ledger_path(outs: Sequence[str], state_folder: Path | None = None) -> Path | None:
    """Where the ledger of a scan is: in the state folder, else beside the first output file.

    None where everything goes to standard output and no state folder is given.
    """
    if state_folder is not None:
        return state_folder / LEDGER_FILE
    first = next((out for out in outs if out != "-"), None)
    return None if first is None else Path(os.path.realpath(first)).with_name(LEDGER_FILE)


class Ledger:
    """A ledger for as long as a scan runs; every thread may use it."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, or begin one.

        Raises:
            OutputError: the file can be neither written nor replaced.
        """
        self.path = path
        self.warning: str | None = None
        """What a person should know of how it was opened."""
        self._lock = threading.RLock()
        self._fresh: dict[bytes, tuple[str, int, str]] = {}
        """Paths that are not written yet."""
        self._connection = self._explained("opening", self._open_or_begin)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def recall(self, path: Path, stat: os.stat_result) -> str | None:
        """The content id of a file that has not changed since it was remembered."""
        key, stamp = _key(path), _stamp(stat)
        with self._lock:
            found = self._fresh.get(key) or self._one(
                "SELECT stamp, seen_ns, content_id FROM paths WHERE path = ?", key
            )
        if found is None or found[0] != stamp:
            return None
        # Changed so shortly before it was read that it may have changed again since.
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > found[1] - _UNSETTLED_NS:
            return None
        return str(found[2])

    def remember(
        self, path: Path, stat: os.stat_result, content_id: str, *, seen_ns: int | None = None
    ) -> None:
        """Keep the content id of a file; written with the next text, or on closing.

        Args:
            path: where it is.
            stat: as it was before the file was read.
            content_id: digest of what was read.
            seen_ns: when it was read, in Unix nanoseconds; None: now.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock:
            seen_ns = time.time_ns() if seen_ns is None else seen_ns
            self._fresh[_key(path)] = (_stamp(stat), seen_ns, content_id)
            if len(self._fresh) >= _BATCH:
                self._write(lambda: None)

    def get(self, content_id: str, *keys: tuple[str, str]) -> list[str | None]:
        """The texts that were put under (kind, settings), None where there is none.

        One query for all of them: each lets go of the interpreter, and waits to get it back.
        """
        query = " UNION ALL ".join([_GET] * len(keys))
        values = [value for key in keys for value in (content_id, *key)]
        with self._lock:
            rows = self._all(query, values)
        # SQLite does not see a flipped bit in a text.
        texts = {(kind, key): text for kind, key, text, crc in rows if crc == _crc(text)}
        return [texts.get(key) for key in keys]

    def put(self, content_id: str, kind: str, settings: str, text: str) -> None:
        """Keep a text; once this returns, it survives the process.

        Raises:
            OutputError: it cannot be written; what was put before is kept.
        """

        def insert() -> None:
            self._connection.execute(
                "INSERT OR REPLACE INTO evidence (content_id, kind, settings, text, crc)"
                " VALUES (?, ?, ?, ?, ?)",
                (content_id, kind, settings, text, _crc(text)),
            )

        self._write(insert)

    def close(self) -> None:
        """Write what is pending, as far as that is possible, and let go of the file."""
        with self._lock:
            with contextlib.suppress(OutputError):  # paths only save time
                self._write(self._forget_oldest)
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _forget_oldest(self) -> None:
        self._connection.execute(
            "DELETE FROM evidence WHERE number <="
            " (SELECT seq FROM sqlite_sequence WHERE name = 'evidence') - ?",
            (MAX_TEXTS,),
        )

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """A row, or None."""
        return next(iter(self._all(query, values)), None)

    def _all(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Rows; none where they cannot be read, which costs time and no result."""
        try:
            return self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            logger.debug("reading %s failed", self.path, exc_info=exc)
            return []

    def _write(self, change: Callable[[], object]) -> None:
        """Make a change and write the pending paths, all or nothing.  Raises OutputError."""

        def write_once() -> None:
            with self._lock, _transaction(self._connection):
                rows = [(path, *values) for path, values in self._fresh.items()]
                self._connection.executemany(
                    "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?)", rows
                )
                change()
            self._fresh.clear()

        def write() -> None:
            try:
                write_once()
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                if not _is_damage(exc):
                    raise
                self._connection.close()
                self._connection = self._begin_anew(str(exc))
                logger.warning("%s", self.warning)
                write_once()

        with self._lock:
            self._explained("writing", write)

    def _open_or_begin(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = _identity(self.path)
        if before is not None and not os.access(self.path, os.R_OK | os.W_OK):
            return self._begin_anew("it may not be read and written", before)
        try:
            return _open(self.path)
        except _ForeignError as exc:
            return self._begin_anew(str(exc), before)
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            if _is_damage(exc):
                return self._begin_anew(str(exc), before)
            if not _cannot_lock(exc):
                raise
            self.warning = (
                f"the file system of {self.path} cannot lock files ({exc}): let no other scan "
                "write into this folder at the same time."
            )
            return _open(self.path, locks=False)

    def _begin_anew(self, reason: str, before: tuple[int, int] | None = None) -> sqlite3.Connection:
        """Set the file aside, unless another scan just did, and open a new one."""
        if before is None or _identity(self.path) == before:
            aside = self.path.with_name(f"{self.path.name}.bad")
            for suffix in ("-wal", "-shm", "-journal", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH105
        self.warning = (
            f"the ledger {self.path} cannot be used ({reason}). It is set aside as "
            f"{self.path.name}.bad, and a new one is begun: every file is read again."
        )
        return _open(self.path)

    def _explained(self, doing: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except _ForeignError as exc:
            raise OutputError(self._text(doing, str(exc))) from exc
        except (OSError, sqlite3.Error) as exc:
            reason = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
            raise OutputError(self._text(doing, reason)) from exc

    def _text(self, doing: str, reason: str) -> str:
        return (
            f"{doing} the ledger {self.path}: {reason}. What was finished is kept. Free some "
            "space, make its folder writable, or choose another with the setting `state`; then "
            "run the same command again."
        )


class _ForeignError(Exception):
    """An SQLite file that is no ledger of this version."""


def _open(path: Path, *, locks: bool = True) -> sqlite3.Connection:
    """Open a file that is sound and ours, or make one.

    Raises:
        _ForeignError: the schema is another one.
        sqlite3.Error: anything else.
    """
    connection = sqlite3.connect(
        path.absolute().as_uri() + ("" if locks else "?nolock=1"),
        timeout=WAIT_S,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        _set_up(connection, path)
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("database disk image is malformed")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    _check_schema(connection)
    wants_wal = not is_on_network(path)
    mode = connection.execute(f"PRAGMA journal_mode = {'WAL' if wants_wal else 'DELETE'}")
    # With a write-ahead log, a power cut may cost the last texts but never the file; without
    # one, only FULL promises that.  Source: https://www.sqlite.org/pragma.html#pragma_synchronous
    is_wal = mode.fetchone() == ("wal",)
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_wal else 'FULL'}")
    with _transaction(connection):
        _check_schema(connection)  # another scan may have begun it meanwhile
        for table in _TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _check_schema(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version != SCHEMA and (version, tables) != (0, 0):
        raise _ForeignError(f"its schema version is {version}, this geotag writes {SCHEMA}")


class _transaction:  # noqa: N801 - used like a function
    """All of the statements inside, or none."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        if self._connection.in_transaction:  # an interrupt came between BEGIN and what ends it
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # SQLite ends some by itself
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")


def _is_damage(exc: Exception) -> bool:
    """Whether the bytes of the file are wrong, and not the disk, the rights or the moment."""
    if isinstance(exc, sqlite3.ProgrammingError):  # a call that makes no sense, as after closing
        return False
    return not any(words in str(exc) for words in _CIRCUMSTANCES)


def _cannot_lock(exc: Exception) -> bool:
    """What SQLite says where the file system refuses the call (and on some broken disks)."""
    return str(exc) in ("locking protocol", "disk I/O error")


def _crc(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
