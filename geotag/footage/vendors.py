"""The table of how cameras name their files and folders: `vendors.toml`, ready to use."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from geotag.types import Channel, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = Path(__file__).with_name("vendors.toml")

_TIME_PARTS = {f"%{part}": rf"(?P<{part}>\d\d)" for part in "ymdHMS"} | {"%Y": r"(?P<Y>\d{4})"}
_COPIED = r"(?:[ _]?\(\d{1,3}\)| - copy(?: \(\d{1,3}\))?|[ _-]copy|~\d)?"
"""What computers add to the name of a second copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How one generation of one vendor's cameras names its files: a row of the table."""

    rule: str
    vendor: str
    pattern: re.Pattern[str]
    """Fits the whole name without its ending, or, if `is_path`, the end of the whole path."""
    loose: re.Pattern[str] | None
    """Fits a name that somebody put words before."""
    is_path: bool
    lenses: Mapping[str, Channel]
    """Channel for each word of the camera, in lower case; "" is a name without one."""
    modes: Mapping[str, Mode]
    mode: Mode | None
    copies: frozenset[str]
    """Words, in lower case, that mark a small copy."""
    shared_by: tuple[str, ...]
    numbered: bool
    part: int | None
    part_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Everything that is known of vendors; all words in lower case."""

    namings: tuple[Naming, ...]
    by_rule: Mapping[str, Naming]
    vendor_of_folder: Mapping[str, str]
    vendor_of_shared_folder: Mapping[str, str]
    """Only between vendors whose names look alike."""
    vendor_of_bytes: tuple[tuple[bytes, str], ...]
    mode_of_folder: Mapping[str, Mode]
    channel_of_word: Mapping[str, Channel]
    channel_of_letter: Mapping[str, Channel]
    layout: frozenset[str]
    """Folders that cameras make below the root of a card."""


@cache
def load_table() -> Table:
    """Read the table that comes with the package, once."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    return _table(tomllib.loads(TABLE.read_text(encoding="utf-8")))


def _table(toml: dict[str, Any]) -> Table:
    namings = tuple(_naming(row) for row in toml["naming"])
    vendor_of_folder = _inverted(toml["vendor_folders"])
    mode_of_folder = {
        folder: _mode(mode) for folder, mode in _inverted(toml["mode_folders"]).items()
    }
    brands = {vendor.lower() for vendor in toml["vendor_folders"]}
    return Table(
        namings=namings,
        by_rule={naming.rule: naming for naming in namings},
        vendor_of_folder=vendor_of_folder,
        vendor_of_shared_folder=_inverted(toml["telling_folders"]),
        vendor_of_bytes=tuple(
            (word.encode("ascii"), vendor)
            for vendor, words in toml["vendor_bytes"].items()
            for word in words
        ),
        mode_of_folder=mode_of_folder,
        channel_of_word={
            word: _channel(name) for word, name in _inverted(toml["channel_words"]).items()
        },
        channel_of_letter={
            letter.lower(): _channel(name) for letter, name in toml["channel_letters"].items()
        },
        # A folder that bears a brand was named by a person, and may be all that keeps two
        # cameras apart.
        layout=frozenset((*toml["layout"]["folders"], *mode_of_folder))
        | (frozenset(vendor_of_folder) - brands),
    )


def _naming(row: dict[str, Any]) -> Naming:
    pattern = row["pattern"]
    for part, expression in _TIME_PARTS.items():
        pattern = pattern.replace(part, expression)
    is_path, shared_by = row.get("is_path", False), tuple(row.get("shared_by", ()))
    before = "(?:.*/)?" if is_path else ""
    loose = None
    if not (is_path or shared_by):
        loose = re.compile(rf"(?:.*[^0-9a-z])?(?:{pattern}){_COPIED}", re.IGNORECASE | re.ASCII)
    return Naming(
        rule=row["rule"],
        vendor=row["vendor"],
        pattern=re.compile(f"{before}(?:{pattern})", re.IGNORECASE | re.ASCII),
        loose=loose,
        is_path=is_path,
        lenses={word.lower(): _channel(name) for word, name in row.get("lenses", {}).items()},
        modes={word.lower(): _mode(name) for word, name in row.get("modes", {}).items()},
        mode=_mode(row["mode"]) if "mode" in row else None,
        copies=frozenset(word.lower() for word in row.get("copies", ())),
        shared_by=shared_by,
        numbered=row.get("numbered", False),
        part=row.get("part"),
        part_s=row.get("part_s", 0),
    )


def _inverted(words_of: dict[str, list[str]]) -> dict[str, str]:
    return {word.lower(): name for name, words in words_of.items() for word in words}


def _channel(name: str) -> Channel:
    return cast("Channel", _one_of(name, get_args(Channel)))


def _mode(name: str) -> Mode:
    return cast("Mode", _one_of(name, get_args(Mode)))


def _one_of(name: str, allowed: tuple[str, ...]) -> str:
    if name not in allowed:
        raise ValueError(f"reading {TABLE.name}: {name!r} is none of {', '.join(allowed)}")
    return name
