"""Compiled models kept on disk: found again only where everything they depend on is the same.

A plan is machine code for one build of TensorRT on one kind of GPU. Beside each lies a record of
what it was made from and on, and its hash; a plan is given out only if the record says what is
wanted and the hash is right, so nothing foreign or damaged is ever handed to TensorRT.

    CACHE/plans/BUNDLE-PRECISION-BACKEND/KEY/plan, plan.json, jit
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
PLAN, RECORD, JIT = "plan", "plan.json", "jit"
KEPT = 3
"""Plans of one bundle, precision and backend: the present one and the last good ones, for a
system that is set back to what it was before an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanKey:
    """All that a plan depends on; two that are equal may share it."""

    graph_sha256: str
    """Of the ONNX file and of the weights beside it."""
    precision: str
    max_batch: int
    targets: tuple[str, ...]
    type_flags: tuple[str, ...]
    backend: str
    backend_version: str
    builder: str
    """What made it: onnx, or torch-tensorrt with its version."""
    device: str
    """Orin Nano and AGX Orin share code and differ in which is fastest: the name matters."""
    capability: str
    multiprocessors: int
    driver: str
    l4t: str | None
    """Release of Jetson Linux; None elsewhere."""

    @property
    def digest(self) -> str:
        """Short and unlike that of any other key."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """How a plan came to be; nothing depends on it."""

    bundle: str
    seconds: float
    power_mode: str | None = None
    """Of a Jetson, which decides the clocks that kernels were timed at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPlan:
    """A plan that may be loaded."""

    folder: Path
    content: bytes
    facts: BuildFacts

    @property
    def jit(self) -> Path:
        """Where TensorRT-RTX keeps what it compiles on loading."""
        return self.folder / JIT


class PlanFolder:
    """The plans of one bundle, precision and backend."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is read or made."""
        self.path = path

    def find(self, key: PlanKey) -> KeptPlan | None:
        """The plan of a key, if it is there and whole."""
        folder = self.path / key.digest
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA or record["key"] != _plain(key):
                return None
            content = (folder / PLAN).read_bytes()
            facts = BuildFacts(**record["facts"])
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):  # the newest are kept
            os.utime(folder)
        return KeptPlan(folder=folder, content=content, facts=facts)

    def keep(self, key: PlanKey, content: bytes, facts: BuildFacts) -> KeptPlan:
        """Put a plan in its place; a stop at any moment leaves the old one, or none.

        Raises:
            EngineError: the disk is full or cannot be written.
        """
        folder = self.path / key.digest
        record = {
            "schema": SCHEMA,
            "key": _plain(key),
            "sha256": hashlib.sha256(content).hexdigest(),
            "facts": asdict(facts),
        }
        with explained(f"keeping the plan of {facts.bundle} in {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / PLAN, content)
            (folder / JIT).unlink(missing_ok=True)
            text = json.dumps(record, indent=2, sort_keys=True) + "\n"
            write_whole(folder / RECORD, text.encode())
        self._forget_oldest()
        return KeptPlan(folder=folder, content=content, facts=facts)

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Let one process at a time build: two would need twice the memory.

        Raises:
            EngineError: the folder cannot be written.
        """
        with explained(f"preparing {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock:
            with contextlib.suppress(ImportError, OSError):  # not everywhere can a file be locked
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.path.rglob(".*.part"):  # of a build that was killed
                with contextlib.suppress(OSError):
                    left.unlink()
            yield

    def _forget_oldest(self) -> None:
        with contextlib.suppress(OSError):
            kept = [entry for entry in self.path.iterdir() if entry.is_dir()]
            kept.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
            for entry in kept[KEPT:]:
                shutil.rmtree(entry, ignore_errors=True)


def cache_folder() -> Path:
    """Where compiled models are kept: GEOTAG_CACHE, or the user's cache."""
    import platformdirs

    return Path(os.environ.get("GEOTAG_CACHE") or platformdirs.user_cache_path("geotag"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there complete or not at all, after a power cut too.  Raises OSError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some file systems sync no folders
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the file system says into an EngineError with the next step."""
    try:
        yield
    except OSError as exc:
        advice = (
            "Free some space, or name another folder with GEOTAG_CACHE."
            if exc.errno in (errno.ENOSPC, errno.EDQUOT)
            else "Name a folder that can be written with GEOTAG_CACHE."
        )
        raise EngineError(f"{doing}: {exc.strerror or exc}. {advice}") from exc


def _plain(key: PlanKey) -> object:
    """As JSON gives it back."""
    return json.loads(json.dumps(asdict(key)))
