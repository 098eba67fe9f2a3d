"""Settings: defaults, then `geotag.toml`, then flags; checked once, all problems told at once."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from engines.base import EngineName
from engines.bundle import Policy, Precision
from geotag.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PrecisionName = Literal["auto", "fp32", "fp16", "int8"]
SamplingName = Literal["auto", "dense", "exact", "keyframe"]
Pictures = Literal["always", "without_gps", "never"]
SidecarKind = Literal["json", "xmp"]

CONFIG_FILE = "geotag.toml"
SECTION = "scan"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """How to scan; the same fields in `[scan]` of geotag.toml, hyphens for underscores allowed."""

    out: tuple[str, ...] = ("tags.geojson",)
    """Files to write, the suffix choosing the format; `-` is standard output."""
    bundle: str | None = None
    """A model folder, or the name of an installed one."""
    engine: EngineName = "auto"
    precision: PrecisionName = "auto"
    """Of the network's numbers; auto: the fastest that the bundle has for the engine."""
    clips: int | None = None
    """Clips per video; None is "auto", as many as the answer needs."""
    sampling: SamplingName = "auto"
    gpx: tuple[str, ...] = ()
    """Track files (GPX, NMEA, SRT, FIT) of a receiver of its own, matched to videos by time."""
    tracks: str | None = None
    """File for the ways of the drives, one line each: GeoJSON."""
    sidecars: tuple[SidecarKind, ...] = ()
    """Files to write beside each video."""
    sidecars_dir: str | None = None
    """Folder that takes them instead, in a tree like that of the videos; the flag alone asks for
    both kinds."""
    proxies: bool = False
    """Decode a camera's own small copy of a video where there is one."""
    fresh: bool = False
    """Read every file anew, whatever an earlier scan remembers."""
    state: str | None = None
    """Folder for what scans remember; None is that of the first output."""
    pictures: Pictures = "always"
    """Which videos are looked at: all, so that measured and seen places can be compared; those
    without a measured place; none."""
    fail_fast: bool = False
    """Stop at the first video that fails."""
    stop_prob: float = 0.97
    """With clips = "auto", enough: two clips agree and together give their city this probability.
    Of the videos that stop at 0.97 at most 3 in 100 are wrong, if the bundle's probabilities mean
    what they say; a third look would cost as much again as half of what was spent."""
    decode_workers: int | None = None
    """Videos decoded at a time; None decides from the cores."""
    decode_threads: int | None = None
    """Threads that decode one video; None decides from the cores."""
    engine_threads: int | None = None
    """Threads of one inference; None decides from the cores."""


def resolve_scan_config(
    flags: Mapping[str, object], *, file: Path | None = None, folder: Path | None = None
) -> ScanConfig:
    """Merge the settings and check them.

    Args:
        flags: what the command line gave, by field name; None and empty tuples count as not given.
        file: the file asked for with --config; it must be there.
        folder: where geotag.toml is looked for when no file is asked for; None: here.

    Raises:
        ConfigError: with every problem of file and flags, each on its own line.
    """
    problems: list[str] = []
    settings: dict[str, Any] = {}
    path = file or _default_file(folder or Path())
    if path is not None:
        found = _read_section(path, problems)
        _check(found, f"{path}: [{SECTION}] ", settings, problems, written=_plain)
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    _check(given, "", settings, problems, written=_as_flag)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} setting{'s' * (len(problems) > 1)} not usable:{listed}")
    return ScanConfig(**settings)


def suggest(word: str, known: list[str], *, closeness: float = 0.6) -> str:
    """` Did you mean "x"?` where something known is close, else nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=closeness)
    return f' Did you mean "{close[0]}"?' if close else ""


def _default_file(folder: Path) -> Path | None:
    path = folder / CONFIG_FILE
    return path if path.is_file() else None


def _read_section(path: Path, problems: list[str]) -> dict[str, object]:
    """The `[scan]` table of a TOML file; problems are added to the list."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        problems.append(f"{path}: cannot be read ({exc.strerror or exc}).")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        problems.append(f"{path}: not TOML: {exc}.")
        return {}
    problems += [
        f"{path}: unknown table or key {name!r}; settings live in [{SECTION}]."
        + suggest(name, [SECTION])
        for name in tables
        if name != SECTION
    ]
    section = tables.get(SECTION, {})
    if isinstance(section, dict):
        return {name.replace("-", "_"): value for name, value in section.items()}
    problems.append(f"{path}: {SECTION} must be a table, [{SECTION}].")
    return {}


def _check(
    found: Mapping[str, object],
    where: str,
    settings: dict[str, Any],
    problems: list[str],
    *,
    written: Callable[[str], str],
) -> None:
    """Parse each setting into `settings`, or say in `problems` why not."""
    for name, value in found.items():
        parse = _PARSERS.get(name)
        if parse is None:
            problems.append(f"{where}unknown setting {name!r}.{suggest(name, list(_PARSERS))}")
            continue
        try:
            settings[name] = parse(value)
        except ValueError as exc:
            problems.append(f"{where}{written(name)}: {exc}")


def _plain(name: str) -> str:
    return name


def _as_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parse_out(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{value!r} is not a file name or a list of file names.")
    names = tuple(str(name) for name in listed)
    if any(not isinstance(name, str) or not name for name in listed):
        raise ValueError(f"{value!r} holds something that is not a file name.")
    if len(set(names)) < len(names):
        raise ValueError(f"{', '.join(names)}: the same file twice.")
    return names


def _parse_files(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(n, str) and n for n in listed):
        raise ValueError(f"{value!r} is not a file name or a list of file names.")
    return tuple(listed)


def _parse_sidecars(value: object) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    allowed = get_args(SidecarKind)
    if not isinstance(words, list | tuple) or not words or not set(words) <= set(allowed):
        raise ValueError(f"{value!r} is not one or more of {', '.join(allowed)}, with commas.")
    return tuple(kind for kind in allowed if kind in words)


def _parse_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a name or a path.")
    return value


def _parse_clips(value: object) -> int | None:
    if value == "auto":
        return None
    return _parse_count(value, allowed='"auto" or a whole number from 1 up')


def _parse_count(value: object, allowed: str = "a whole number from 1 up") -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"{value!r} is not {allowed}.")
    return int(text)


def _parse_prob(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{value!r} is not a probability above 0 and up to 1.")
    return float(value)


def _parse_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false.")
    return value


def _choice_of(*allowed: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in allowed:
            hint = suggest(str(value), list(allowed))
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}.{hint}")
        return str(value)

    return parse


_PARSERS: dict[str, Callable[[object], object]] = {
    "out": _parse_out,
    "bundle": _parse_text,
    "engine": _choice_of(*get_args(EngineName)),
    "precision": _choice_of("auto", *get_args(Precision)),
    "clips": _parse_clips,
    "sampling": _choice_of("auto", *get_args(Policy)),
    "gpx": _parse_files,
    "tracks": _parse_text,
    "sidecars": _parse_sidecars,
    "sidecars_dir": _parse_text,
    "proxies": _parse_switch,
    "fresh": _parse_switch,
    "state": _parse_text,
    "pictures": _choice_of(*get_args(Pictures)),
    "fail_fast": _parse_switch,
    "stop_prob": _parse_prob,
    "decode_workers": _parse_count,
    "decode_threads": _parse_count,
    "engine_threads": _parse_count,
}
