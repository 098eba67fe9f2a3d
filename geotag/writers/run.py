"""`run.json`: when, where and how a scan ran; what must not be in tags, lest they differ."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from geotag import __version__
from geotag.writers.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

RUN_FILE = "run.json"
SECOND_RUN_FILE = "geotag-run.json"
"""The name where somebody else's file has the first."""
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One scan, for the record."""

    started_utc: str
    finished_utc: str
    command: tuple[str, ...]
    config: dict[str, object]
    """The resolved settings."""
    bundle: str | None
    """None: no model looked at pictures."""
    licence: str | None
    """Of the bundle's weights: what its answers may be used for."""
    engine: str
    """The choice of the engine, with why not another."""
    sampling: str
    """The choice of the sampling policy, with why."""
    outcome: str
    """`finished`, `interrupted`, or what stopped the scan."""
    counts: dict[str, int]


def write_run(path: Path, facts: RunFacts) -> None:
    """Write the facts of a run, replacing those of an earlier one.

    Raises:
        OutputError: the file cannot be written.
    """
    record = {
        "schema": SCHEMA,
        **asdict(facts),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"geotag": __version__, "python": platform.python_version()} | versions(),
        "executable": sys.executable,
    }
    write_file(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def choose_run_file(folder: Path) -> Path | None:
    """The file for the facts of a run: a free name or an earlier run's, or None.

    Other programs write a `run.json` too; theirs is never replaced.
    """
    paths = (folder / RUN_FILE, folder / SECOND_RUN_FILE)
    return next((path for path in paths if not os.path.lexists(path) or _is_ours(path)), None)


def _is_ours(path: Path) -> bool:
    """Whether `write_run` wrote the file; one that cannot be read is somebody else's."""
    if not os.path.isfile(path):  # noqa: PTH113 - never raises
        return False
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        return False
    found = record.get("versions")
    return isinstance(found, dict) and "geotag" in found


def versions(names: tuple[str, ...] = ("av", "numpy", "openvino")) -> dict[str, str | None]:
    """Installed versions of packages, without importing them; None where missing."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
