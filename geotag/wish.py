"""What a model without training is to be made of, as a command line asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.bundle import Resize


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotWish:
    """Flags of `geotag export --from-clip` and `geotag models pull`."""

    places: str | None = None
    """`166`, `world` or a file; None with no `cities_over`: the command's usual list."""
    cities_over: int | None = None
    frames: int | None = None
    resize: Resize | None = None
    name: str | None = None
    is_accepted: bool = False
    """The licence, where it forbids commercial use."""

    @property
    def is_asked(self) -> bool:
        """Whether anything but a name is wished for."""
        wishes = (self.places, self.cities_over, self.frames, self.resize)
        return self.is_accepted or any(wish is not None for wish in wishes)
