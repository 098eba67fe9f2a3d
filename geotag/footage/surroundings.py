"""What lies around a file's name: its folders, its first bytes, the files beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.footage.vendors import Table
    from geotag.types import Channel, Mode

_DATED_FOLDER = re.compile(
    r"(?:19|20)\d\d(?:[-_.]?\d\d){0,2}(?:[-_ T]\d\d[-_.]?\d\d(?:[-_.]?\d\d)?)?"
)
_NUMBERED_FOLDER = re.compile(r"\d{3}[A-Z0-9_]{5}|DJI_\d{3}", re.IGNORECASE | re.ASCII)
_WORDS = re.compile(r"[a-z]+")
_TOKENS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Folders, first bytes and neighbours of one file."""

    table: Table
    folders: Sequence[str]
    above: Sequence[str]
    head: bytes
    has_gpx: bool
    card_vendor: str | None

    def of_bytes(self) -> tuple[str, str] | None:
        """Vendor and reason."""
        for word, vendor in self.table.vendor_of_bytes:
            if word in self.head:
                return vendor, f'"{word.decode()}" in the first bytes: {vendor}'
        return None

    def of_folders(self, vendors: Sequence[str] = ()) -> tuple[str, str] | None:
        """Vendor and reason; one of some vendors only, if given, and then weaker signs count."""
        # Outside of what is scanned, only folders that cameras make tell anything.
        outer = [folder for folder in self.above if folder.lower() in self.table.layout]
        for folder in reversed((*outer, *self.folders)):
            for word in _folder_words(folder):
                vendor = self.table.vendor_of_folder.get(word)
                if vendors and vendor not in vendors:
                    vendor = self.table.vendor_of_shared_folder.get(word)
                if vendor and (not vendors or vendor in vendors):
                    return vendor, f"folder {folder}: {vendor}"
        return None

    def of_neighbours(self, vendors: Sequence[str]) -> tuple[str, str] | None:
        """Vendor and reason."""
        if self.has_gpx and "DDPai" in vendors:
            return "DDPai", "a .gpx of the same name beside it: DDPai"
        if self.card_vendor in vendors and self.card_vendor is not None:
            return self.card_vendor, f"other files of the card: {self.card_vendor}"
        return None

    def mode(self) -> tuple[Mode | None, str]:
        """Mode and reason, from the nearest folder that says anything."""
        for folder in reversed((*self.above, *self.folders)):
            mode = self.table.mode_of_folder.get(folder.lower())
            if mode is not None:
                return mode, f"folder {folder}: {mode}"
        return None, ""

    def channel(self) -> tuple[Channel | None, str]:
        """Channel and reason, from the nearest folder that says anything."""
        for folder in reversed(self.folders):
            channel = self._channel_of(folder)
            if channel is not None:
                return channel, f"folder {folder}: {channel}"
        for folder in reversed(self.above):
            channel = self.table.channel_of_word.get(folder.lower())
            if channel is not None:
                return channel, f"folder {folder}: {channel}"
        return None, ""

    def card(self) -> str:
        """The folders that are left when those that cameras make are taken from the inner end."""
        folders = list(self.folders)
        while folders and self._is_layout(folders[-1]):
            folders.pop()
        return "/".join(folders)

    def _channel_of(self, folder: str) -> Channel | None:
        lower = folder.lower()
        # A folder "B" may be the second of anything.
        if lower in self.table.channel_of_letter and lower != "b":
            return self.table.channel_of_letter[lower]
        base, _, letter = lower.rpartition("_")
        if base in self.table.layout and letter in self.table.channel_of_letter:
            return self.table.channel_of_letter[letter]  # MOVIE_R
        found = {
            self.table.channel_of_word[word]
            for word in _WORDS.findall(lower)
            if word in self.table.channel_of_word
        }
        return found.pop() if len(found) == 1 else None

    def _is_layout(self, folder: str) -> bool:
        lower = folder.lower()
        base, _, letter = lower.rpartition("_")
        return (
            lower in self.table.layout
            or (base in self.table.layout and letter in self.table.channel_of_letter)
            or _DATED_FOLDER.fullmatch(folder) is not None
            or _NUMBERED_FOLDER.fullmatch(folder) is not None
        )


def _folder_words(folder: str) -> list[str]:
    """A folder's name, and the words in it: `100GOPRO` holds `gopro`, `my 70mai` holds `70mai`."""
    lower = folder.lower()
    words = _TOKENS.findall(lower)
    return [lower, *words, *(word.lstrip("0123456789") for word in words)]
