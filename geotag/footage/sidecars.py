"""Which files beside a video may hold its position."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geotag.footage.walk import Folder
    from geotag.types import Origin

SIDECAR_ENDINGS = (".gpx", ".nmea", ".gps", ".srt", ".fit")
"""In the order in which they are believed."""

_CARD_LOG = re.compile(r"\.?gpsdata\d*\.txt")
"""The one log of a 70mai card; hidden by most models."""


def find_sidecars(folder: Folder, name: str, shared_stem: str, origin: Origin) -> tuple[Path, ...]:
    """Files that may hold the position of a video, the most specific first.

    Files of the video's own name (`a.MP4.gpx`, `a.gpx`) come before those that its channels share
    (BlackVue's `.gps` has no letter for the channel), those before what the folder shares
    (Tesla's `event.json`, KITTI's `oxts`) and what the whole card shares (70mai's log). What we
    write ourselves is never among them.

    Args:
        folder: where the video lies.
        name: of the video.
        shared_stem: its name, in lower case, less channel and ending.
        origin: how the video was understood.
    """
    lower = name.lower()
    stems = dict.fromkeys((lower, lower.rpartition(".")[0] or lower, shared_stem))
    wanted = [stem + ending for stem in stems if stem for ending in SIDECAR_ENDINGS]
    if origin.vendor == "Tesla":
        wanted.append("event.json")
    found = [folder.path / folder.files[one] for one in wanted if one in folder.files]
    if "oxts" in folder.folders:
        found.append(folder.path / folder.folders["oxts"])
    if origin.vendor == "70mai":
        found += _card_logs(folder, origin.card)
    return tuple(found)


def _card_logs(folder: Folder, card: str) -> Sequence[Path]:
    """The logs of the nearest folder that has any, no higher than the root of the card."""
    depth = len(card.split("/")) if card else 0
    here: Folder | None = folder
    while here is not None and len(here.parts) >= depth:
        logs = sorted(name for lower, name in here.files.items() if _CARD_LOG.fullmatch(lower))
        if logs:
            return [here.path / name for name in logs]
        here = here.parent
    return ()
