"""Which of a clip's stored frames are looked at, where their times are not known.

Positions count from 0 in the order of recording. A clip that is shorter than what is asked for
shows some frames more than once: always as many are picked as the view wants.

Shape suffix: T frames.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from train.data.dataset import View

REFERENCE_STRIDE = 5
"""Source: the released code of CityGuessr takes every fifth file of a clip's folder."""
PURPOSE = 1
"""Of the randomness drawn here; see `View.generator`."""
_FRAME = re.compile(r"(\d{1,9})\.jpe?g", re.IGNORECASE | re.ASCII)


def order_frames(names: Iterable[str]) -> list[str]:
    """The frames among the names of a folder, in the order of their numbers.

    Frames are called `1.jpg`, `2.jpg` and so on, padded or not; everything else is no frame.
    """
    numbered = [(int(match[1]), name) for name in names if (match := _FRAME.fullmatch(name))]
    return [name for _, name in sorted(numbered)]


def pick_frames(
    count: int, view: View, index: int, *, names: Sequence[str] | None = None
) -> NDArray[np.intp]:
    """Pick frames of one clip by the rule `view.picking`.

    * `uniform`: the clip is cut into T equal parts, and of each the middle is taken, or with a
      seed a random place.
    * `mixed`: the same over a random stretch, from T consecutive frames to all; short stretches
      are as frequent as long ones (uniform in the logarithm). Without a seed it is `uniform`.
    * `ends`: evenly spread with the first frame first, the last one last, and frame count // 2 in
      the place T // 2; never random. For models of single pictures.
    * `reference`: 0, 5, 10 and so on; never random. The last one is repeated where the clip ends.
    * `lexicographic`: every fifth of the names in the order of a directory listing, which has
      `10.jpg` before `2.jpg`; never random, and not ascending.

    Where the view knows the time between frames and asks for a span, frames are taken evenly from
    a stretch as long as that: from the middle of the clip, or with a seed from a random place.

    With `view.parts` the picks of all parts have no frame in common as long as the clip has enough
    of them: `uniform` takes them from different places of each of the T equal parts, the two rules
    of every fifth begin one frame later each time, and after five times behind the frames used.

    Args:
        count: how many frames are stored.
        view: how many to take, by which rule, which part, and the seed.
        index: of the sample: with the seed it fixes what is random.
        names: of the stored frames in the order of recording, for `lexicographic`; by default
            they are `1.jpg`, `2.jpg` and so on.

    Returns:
        [T] positions in 0..count-1, ascending except for `lexicographic`.

    Raises:
        ValueError: no frame is stored, none is asked for, or the part does not exist.

    Source: CityGuessr's released code for the last two rules, the last as that code behaves on
    the unpadded names of the release.
    """
    _check(count, view, names)
    if view.picking in ("reference", "lexicographic"):
        steps_T = _every_fifth(count, view)
        if view.picking == "reference":
            return steps_T
        listed = names or [f"{number}.jpg" for number in range(1, count + 1)]
        by_name = sorted(range(count), key=listed.__getitem__)
        return np.array(by_name, dtype=np.intp)[steps_T]
    if view.picking == "ends":
        return _from_end_to_end(count, view.frames)
    rng = view.generator(index, PURPOSE)
    if view.frame_s is not None and view.span_s is not None:
        length = min(count, max(view.frames, round(view.span_s / view.frame_s)))
        start = (count - length) // 2 if rng is None else int(rng.integers(count - length + 1))
        return start + _spread(length, view.frames, 0.0, 1.0, rng)
    if view.picking == "mixed" and rng is not None:
        start, length = _stretch(count, view.frames, rng)
        return start + _spread(length, view.frames, 0.0, 1.0, rng)
    return _spread(count, view.frames, view.part / view.parts, 1 / view.parts, rng)


def _check(count: int, view: View, names: Sequence[str] | None) -> None:
    if count < 1 or view.frames < 1:
        raise ValueError(
            f"picking {view.frames} of {count} frames: at least one must be stored and asked for"
        )
    if not 0 <= view.part < view.parts:
        raise ValueError(
            f"picking part {view.part} of {view.parts}: allowed are 0 to {view.parts - 1}"
        )
    if names is not None and len(names) != count:
        raise ValueError(f"picking from {count} frames: {len(names)} names are given")


def _every_fifth(count: int, view: View) -> NDArray[np.intp]:
    stride, steps_T = REFERENCE_STRIDE, np.arange(view.frames, dtype=np.intp)
    turn, first = divmod(view.part, stride)
    first = min(first, count - 1)
    last = (count - 1 - first) // stride
    # A part that would begin behind the end of the clip overlaps others: it ends with the clip.
    skipped = min(turn * view.frames, max(0, last - view.frames + 1))
    return first + stride * np.minimum(skipped + steps_T, last)


def _from_end_to_end(count: int, frames: int) -> NDArray[np.intp]:
    half = frames // 2
    before = np.linspace(0, count // 2, half + 1)
    after = np.linspace(count // 2, count - 1, max(1, frames - half))
    return np.rint(np.concatenate([before[:half], after])).astype(np.intp)[:frames]


def _stretch(count: int, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Start and length of a random stretch of at least `frames` frames, or of all."""
    if count <= frames:
        return 0, count
    drawn = math.exp(rng.uniform(math.log(frames), math.log(count + 1)))
    length = min(count, max(frames, int(drawn)))
    return int(rng.integers(count - length + 1)), length


def _spread(
    count: int, frames: int, begin: float, width: float, rng: np.random.Generator | None
) -> NDArray[np.intp]:
    """One of each equal part, at `begin` to `begin + width` of it; the middle without rng."""
    inside_T = np.full(frames, 0.5) if rng is None else rng.random(frames)
    places_T = (np.arange(frames) + begin + width * inside_T) * count / frames
    return np.minimum(np.floor(places_T).astype(np.intp), count - 1)
