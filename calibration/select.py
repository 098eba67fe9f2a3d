"""Which clips an INT8 model is calibrated on: places, light and scenes as evenly as can be had.

Footage is lopsided: a thousand clips of one sunny motorway and three of a tunnel. What the
activations do in the tunnel has to be seen too, or its values are clipped.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Light = Literal["dark", "dim", "medium", "bright"]
LIGHT_EDGES = (45.0, 85.0, 130.0)
"""Mean luma from which a clip is dim, medium and bright: about street lamps at night, dusk or
heavy rain, an overcast day, and sun."""
_CONTRAST_STEP = 20.0
"""Fog and night without lamps lie below the first step, a low sun above the third."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Source: ITU-R BT.601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A clip that may be calibrated on, by what is known of it."""

    number: int
    """What it is asked for by; unique."""
    name: str
    group: str
    """Its drive, or whatever else its clips look alike in."""
    city: int | None
    """Class of its city; None: not labelled."""
    scene: int | None
    """Its scene group; None: not labelled."""
    light: float
    """Mean luma of its frames, 0 to 255."""
    contrast: float
    """Standard deviation of the luma within a frame, mean of its frames; 0 to 127.5."""

    @property
    def light_bin(self) -> Light:
        """How light it is, in a word."""
        return light_bin(self.light)


def light_bin(light: float) -> Light:
    """The word for a mean luma of 0 to 255; a value on an edge belongs to the lighter bin."""
    words: tuple[Light, ...] = get_args(Light)
    return words[bisect_right(LIGHT_EDGES, light)]


def measure_light(clip_THWC: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean luma of a clip, and the mean over its frames of their standard deviation of luma.

    Every second pixel of every second row is looked at: a quarter of the work, for numbers that
    only sort clips into bins.
    """
    luma_THW = clip_THWC[:, ::2, ::2].astype(np.float32) @ _LUMA
    return float(luma_THW.mean()), float(luma_THW.std(axis=(1, 2)).mean())


def select_clips(candidates: Iterable[Candidate], count: int) -> tuple[int, ...]:
    """Choose clips that cover places, light and scenes evenly.

    A cell is a city with a light and a scene. Every choice is of a candidate that brings the most
    cities, lights and scenes that were not there yet; among those, of the cell that was chosen from
    least, then of the city, the scene, the light, and the group that were, then of the contrast
    that its cell has least of; what is still equal is put in an order by a digest of its name. So

    * a cell never has two more than another that could still give one;
    * as many choices as there are cities, lights and scenes in all cover every one of them;
    * any first few are as even as they can be.

    Args:
        candidates: in any order, which makes no difference where names are unique.
        count: how many are wanted; all are taken where there are fewer.

    Returns:
        Their numbers, in the order in which they were chosen; none twice.

    Raises:
        ValueError: a negative count, or two candidates of one number.
    """
    pool: dict[int, Candidate] = {}
    for candidate in candidates:
        if pool.setdefault(candidate.number, candidate) is not candidate:
            raise ValueError(
                f"choosing clips: {pool[candidate.number].name!r} and {candidate.name!r} both have "
                f"the number {candidate.number}"
            )
    if count < 0:
        raise ValueError(f"choosing {count} clips: at least 0 can be chosen")
    taken = _Taken()
    queue = [(taken.key(candidate), candidate.number) for candidate in pool.values()]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        key, number = heapq.heappop(queue)
        # Choosing makes keys greater, never smaller: one that is still true is the smallest.
        now = taken.key(pool[number])
        if now != key:
            heapq.heappush(queue, (now, number))
            continue
        chosen.append(number)
        taken.add(pool[number])
    return tuple(chosen)


class _Taken:
    """How often everything was chosen so far."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[object, ...]] = Counter()

    def key(self, candidate: Candidate) -> tuple[int | bytes | str, ...]:
        """Smaller for what should be chosen sooner."""
        marks = _marks(candidate)
        new = sum(not self._counts[mark] for mark in marks[1:4])
        return (
            -new,
            *(self._counts[mark] for mark in marks),
            blake2b(candidate.name.encode("utf-8", "surrogateescape"), digest_size=8).digest(),
            candidate.name,
        )

    def add(self, candidate: Candidate) -> None:
        """Count a candidate that was chosen."""
        self._counts.update(_marks(candidate))


def _marks(candidate: Candidate) -> tuple[tuple[object, ...], ...]:
    """What of a candidate is counted, the most important first: the cell, then what makes it up."""
    city, scene, light = candidate.city, candidate.scene, candidate.light_bin
    cell = ("cell", city, scene, light)
    return (
        cell,
        ("city", city),
        ("scene", scene),
        ("light", light),
        ("group", candidate.group),
        (*cell, int(candidate.contrast / _CONTRAST_STEP)),
    )
