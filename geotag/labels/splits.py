"""Samples into train, val and test, such that nothing of one is near anything of another.

Drives and cells hang together: a drive joins the cells that it passes, a cell the drives that
pass it, and cells less than 10 km apart are joined as well. What hangs together is a region, and
a region is never divided. So samples of different splits are of different drives, of different
cells, and at least CELL_M apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, get_args

from geotag.labels.cells import Cell, neighbours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """What of a sample its split depends on."""

    drive_id: str
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """The split of each sample, and of what size the regions were."""

    splits: tuple[Split, ...]
    """In the order of the samples."""
    regions: tuple[int, ...]
    """Samples of each region, the greatest first."""


def split_samples(
    spots: Sequence[Spot], *, shares: Mapping[Split, float], seed: int = 0
) -> Splitting:
    """Deal whole regions out, so that the splits come as near to their shares as they can.

    The greatest first, each to the split that lacks most; among equals a hash decides.

    Args:
        spots: drive and cell of each sample; their order does not matter.
        shares: of each split; they add up to 1.
        seed: other seeds deal regions of one size out differently.
    """
    region_of = _regions(spots)
    sizes = Counter(region_of[spot] for spot in spots)
    order = sorted(sizes, key=lambda region: (-sizes[region], _hash(seed, region)))
    lacking = {split: shares[split] * len(spots) for split in SPLITS}
    dealt: dict[str, Split] = {}
    for region in order:
        dealt[region] = max(SPLITS, key=lambda split: lacking[split])
        lacking[dealt[region]] -= sizes[region]
    return Splitting(
        splits=tuple(dealt[region_of[spot]] for spot in spots),
        regions=tuple(sorted(sizes.values(), reverse=True)),
    )


def _regions(spots: Sequence[Spot]) -> dict[Spot, str]:
    """The region of each spot, named after the first of its drives."""
    cells = {spot.cell for spot in spots}
    joined = _Joined()
    for spot in spots:
        joined.join(spot.drive_id, spot.cell)
    for cell in cells:
        for other in neighbours(cell):
            if other in cells:
                joined.join(cell, other)
    names: dict[object, str] = defaultdict(lambda: "\U0010ffff")
    for spot in spots:
        root = joined.root(spot.cell)
        names[root] = min(names[root], spot.drive_id)
    return {spot: names[joined.root(spot.cell)] for spot in set(spots)}


class _Joined:
    """Disjoint sets of drives (text) and cells."""

    def __init__(self) -> None:
        self._above: dict[object, object] = {}

    def root(self, item: object) -> object:
        """The member that stands for its set."""
        above = self._above.setdefault(item, item)
        while above != item:
            self._above[item] = self._above[above]  # halves the way for the next
            item, above = above, self._above[above]
        return item

    def join(self, one: object, other: object) -> None:
        """Make one set of the sets of two members."""
        self._above[self.root(one)] = self.root(other)


def _hash(seed: int, region: str) -> bytes:
    return blake2b(f"{seed} {region}".encode("utf-8", "backslashreplace"), digest_size=16).digest()
