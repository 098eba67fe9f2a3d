"""What a file's name, folders, neighbours and first bytes say of the camera that made it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from geotag.footage.surroundings import Surroundings
from geotag.footage.vendors import Naming, Table, load_table
from geotag.types import Channel, Mode, Origin

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

PROXY_ENDINGS = frozenset((".lrv", ".lrf"))
"""Of small copies that GoPro, Insta360 and DJI put beside a video."""

_YEARS = range(1970, 2100)
_FIRST_YEAR = 2005
"""No dashcam is older: an earlier time is that of a clock that nobody set."""
_STAMP = re.compile(
    r"(?<!\d)(?P<Y>(?:19|20)\d\d)[-_.]?(?P<m>\d\d)[-_.]?(?P<d>\d\d)(?:[-_.,T ]{0,3}|[-_ ]at[-_ ])"
    r"(?P<H>\d\d)(?:[-_.:h]?(?P<M>\d\d)[-_.:m]?(?P<S>\d\d)s?(?:[.]?\d{3})?"
    r"|[-_.:h](?P<M2>\d\d)m?|(?P<M3>(?<=\d{10})\d\d))(?!\d)",
    re.IGNORECASE | re.ASCII,
)
"""A date and a time of day in a name, seconds or none; without separators only as 12 digits."""
_AFTER_STAMP = re.compile(
    r"[-_ .]*(?P<n>\d{1,6})?[-_ .]*(?P<lens>[A-Z])?", re.IGNORECASE | re.ASCII
)
_NUMBERED = re.compile(r"[A-Z_]{3,5}(?P<n>\d{4,5})", re.IGNORECASE | re.ASCII)
"""Names as the Design rule for Camera File system (JEITA CP-3461) wants them: DSCF0012."""
_WORDS = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """An origin, and what tells copies and sidecars of the file."""

    origin: Origin
    copy_key: str
    """Same for a video and its small copies in the same folder; lower case."""
    copy_level: int
    """0 for a name as of a full file; higher for a small copy of one with a lower level."""
    shared_stem: str
    """The name less channel and ending, as sidecars are named that all channels share."""


def read_origin(
    folders: Sequence[str],
    name: str,
    head: bytes = b"",
    *,
    above: Sequence[str] = (),
    neighbours: Container[str] = (),
    card_vendor: str | None = None,
) -> Understanding:
    """Understand a file.

    Args:
        folders: names of the folders between the scanned one and the file, outermost first.
        name: of the file, with its ending.
        head: its first bytes, as many as are known.
        above: names of the scanned folder and its parents, outermost first: they tell channel and
            mode where nothing below does.
        neighbours: names, in lower case, of everything in the file's folder.
        card_vendor: maker of the other files of the card, for a name that does not tell.
    """
    table = load_table()
    stem, ending = _split(name)
    around = Surroundings(
        table, folders, above, head, f"{stem}.gpx".lower() in neighbours, card_vendor
    )
    rejected: list[str] = []
    found = _match(table, folders, stem, rejected)
    copying = 2 if ending.lower() in PROXY_ENDINGS else 0
    if found is None:
        return _generic(stem, around, rejected, level=copying)
    return _known(found, around, rejected, level=copying)


@dataclass(frozen=True, slots=True)
class _Found:
    """A naming that a name fits."""

    naming: Naming
    match: re.Match[str]
    text: str
    """What the pattern was held against."""
    start: datetime | None
    is_loose: bool

    def word(self, group: str) -> str:
        """Text of a group, "" for none."""
        return self.match.groupdict().get(group) or ""

    def number(self, group: str) -> int | None:
        """Value of a group of digits."""
        digits = self.word(group)
        return int(digits) if digits else None

    def without(self, *groups: str) -> str:
        """What was held against the pattern, less some groups, in lower case."""
        cut = {
            index
            for group in groups
            if self.word(group)
            for index in range(*self.match.span(group))
        }
        kept = "".join(letter for index, letter in enumerate(self.text) if index not in cut)
        return kept.rstrip("_-/").lower()


def _match(table: Table, folders: Sequence[str], stem: str, rejected: list[str]) -> _Found | None:
    path = "/".join((*folders, stem))
    for naming in table.namings:
        text = path if naming.is_path else stem
        found = _fit(naming, naming.pattern.fullmatch(text), text, rejected, is_loose=False)
        if found is not None:
            return found
    for naming in table.namings:
        if naming.loose is not None:
            found = _fit(naming, naming.loose.fullmatch(stem), stem, rejected, is_loose=True)
            if found is not None:
                return found
    return None


def _fit(
    naming: Naming,
    match: re.Match[str] | None,
    text: str,
    rejected: list[str],
    *,
    is_loose: bool,
) -> _Found | None:
    if match is None:
        return None
    has_time = "d" in match.re.groupindex and match["d"] is not None
    start = _start(match) if has_time else None
    if has_time and start is None:
        reason = f"not rule {naming.rule}, although it looks so: its digits are no date and time"
        if reason not in rejected:
            rejected.append(reason)
        return None
    return _Found(naming, match, text, start, is_loose)


def _start(match: re.Match[str]) -> datetime | None:
    """The time in a name; None where its digits are none."""
    groups = match.groupdict()
    try:
        year = int(groups["Y"]) if groups.get("Y") else 2000 + int(groups["y"])
        minute = groups.get("M") or groups.get("M2") or groups.get("M3")
        if year not in _YEARS or minute is None:
            return None
        month, day, hour = (int(groups[name]) for name in ("m", "d", "H"))
        return datetime(year, month, day, hour, int(minute), int(groups.get("S") or 0))
    except ValueError:
        return None


def _known(
    found: _Found, around: Surroundings, rejected: list[str], *, level: int
) -> Understanding:
    naming = found.naming
    reasons = [_fitting(found)]
    vendor, why = _vendor(naming, around)
    reasons += why
    is_own = vendor == naming.vendor
    lens = found.word("lens")
    channel, why_channel = _channel(naming, lens, around, is_own=is_own)
    mode, why_mode = _mode(found, around)
    part = found.number("part") if found.word("part") else naming.part
    start = found.start
    if start is not None and part and naming.part_s:
        start += timedelta(seconds=part * naming.part_s)
    reasons += [reason for reason in (why_channel, why_mode, _timing(start)) if reason]
    number = found.number("n")
    shared = found.without("small", "other", "lens")
    return Understanding(
        origin=Origin(
            vendor=vendor,
            channel=channel,
            lens=lens or None,
            mode=mode,
            start_local=start,
            sequence=part if number is None else number,
            recording=_recording(found, part, shared),
            part=part,
            card=_card(found, around),
            rule=naming.rule,
            reasons=(*reasons, *rejected),
        ),
        copy_key=found.without("small", "other"),
        copy_level=level + (found.word("small").lower() in naming.copies),
        shared_stem=shared.rpartition("/")[2],
    )


def _fitting(found: _Found) -> str:
    naming = found.naming
    makers = " or ".join(naming.shared_by or (naming.vendor,))
    loosely = ", with words around it" if found.is_loose else ""
    return f"a name as {makers} gives (rule {naming.rule}){loosely}"


def _vendor(naming: Naming, around: Surroundings) -> tuple[str | None, list[str]]:
    by_bytes = around.of_bytes()
    if by_bytes is not None:
        return by_bytes[0], [by_bytes[1]] if by_bytes[0] != naming.vendor else []
    if not naming.shared_by:
        return naming.vendor, []
    told = around.of_neighbours(naming.shared_by) or around.of_folders(naming.shared_by)
    if told is not None:
        return told[0], [told[1]]
    return None, ["nothing else tells which of them it is"]


def _channel(
    naming: Naming, lens: str, around: Surroundings, *, is_own: bool
) -> tuple[Channel | None, str]:
    channel = naming.lenses.get(lens.lower()) if lens else None
    if channel is not None:
        return channel, f"{lens}: {channel} camera"
    channel, why = around.channel()
    if channel is None and is_own and not lens and "" in naming.lenses:
        return naming.lenses[""], f"no channel in the name: {naming.lenses['']} camera"
    return channel, why


def _mode(found: _Found, around: Surroundings) -> tuple[Mode | None, str]:
    word = found.word("mode")
    mode = found.naming.modes.get(word.lower()) if word else None
    if mode is not None:
        return mode, f"{word}: {mode}"
    mode, why = around.mode()
    if mode is None and found.naming.mode is not None:
        return found.naming.mode, f"nothing says otherwise: {found.naming.mode}"
    return mode, why


def _timing(start: datetime | None) -> str:
    if start is None:
        return ""
    unset = ", from a clock that was not set" if start.year < _FIRST_YEAR else ""
    return f"time in the name{unset}"


def _recording(found: _Found, part: int | None, shared: str) -> str:
    if part is None:
        return shared.rpartition("/")[2]
    return f"{found.naming.vendor} {found.word('route') or found.word('n')}".lower()


def _card(found: _Found, around: Surroundings) -> str:
    if not found.naming.is_path:
        return around.card()
    # The folders that the pattern took in are the camera's own.
    before = found.text[: found.match.start("route")].rstrip("/")
    return before.rpartition("/")[0] if _is_cut(found) else before


def _is_cut(found: _Found) -> bool:
    """Whether the pattern begins inside a folder's name."""
    first = found.match.start("route")
    return first > 0 and found.text[first - 1] != "/"


def _generic(stem: str, around: Surroundings, rejected: list[str], *, level: int) -> Understanding:
    told = around.of_bytes() or around.of_folders()
    stamp, start = _find_stamp(stem)
    channel, lens, shared, why_channel = _generic_channel(stem, stamp, around)
    mode, why_mode = around.mode()
    reasons = [told[1] if told else "no camera is known to give such a name (rule generic)"]
    reasons += [reason for reason in (why_channel, why_mode, _timing(start)) if reason]
    return Understanding(
        origin=Origin(
            vendor=told[0] if told else None,
            channel=channel,
            lens=lens,
            mode=mode,
            start_local=start,
            sequence=_generic_number(stem, stamp),
            recording=shared,
            card=around.card(),
            rule="generic",
            reasons=(*reasons, *rejected),
        ),
        copy_key=stem.lower(),
        copy_level=level,
        shared_stem=shared,
    )


def _find_stamp(stem: str) -> tuple[re.Match[str] | None, datetime | None]:
    for match in _STAMP.finditer(stem):
        start = _start(match)
        if start is not None:
            return match, start
    return None, None


def _generic_channel(
    stem: str, stamp: re.Match[str] | None, around: Surroundings
) -> tuple[Channel | None, str | None, str, str]:
    """Channel, the word for it, the name without the word, and why."""
    lower = stem.lower()
    if stamp is not None:
        after = _AFTER_STAMP.fullmatch(stem, stamp.end())
        letter = after["lens"] if after is not None else None
        channel = around.table.channel_of_letter.get((letter or "").lower())
        if letter and channel is not None:
            return channel, letter, lower[:-1].rstrip("_-. "), f"{letter}: {channel} camera"
    # Inside a name such words may mean anything: drive_back_home.
    words = list(_WORDS.finditer(lower))
    ends = {match.span(): match for match in (*words[:1], *words[-1:])}
    named = [match for match in ends.values() if match[0] in around.table.channel_of_word]
    if len(named) == 1:
        first, last = named[0].span()
        channel = around.table.channel_of_word[named[0][0]]
        shared = (lower[:first] + lower[last:]).strip("_-. ")
        return channel, named[0][0], shared, f"{stem[first:last]}: {channel} camera"
    channel, why = around.channel()
    return channel, None, lower, why


def _generic_number(stem: str, stamp: re.Match[str] | None) -> int | None:
    if stamp is not None:
        after = _AFTER_STAMP.match(stem, stamp.end())
        return int(after["n"]) if after is not None and after["n"] else None
    numbered = _NUMBERED.fullmatch(stem)
    return int(numbered["n"]) if numbered else None


def _split(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem else (name, "")
