"""What every source of training clips looks like to training and evaluation.

A dataset knows its class tree, lists what it holds without opening it, and reads one clip at a
time. What a clip looks like (how many frames, which, how large, disturbed or not) is asked for
with a `View`, so that one dataset serves training, evaluation and packing. Reading is a pure
function of the index and the view: the same two give the same bytes, in any process.

Shape suffixes: T frames, H and W pixels, S scene groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engines.bundle import Policy, Resize
    from geotag.places.hierarchy import Hierarchy

Split = Literal["train", "val", "test"]
"""train: learned from. val: held out of the training part, to choose and to calibrate on. test:
reported, and looked at for nothing else."""
Picking = Literal["uniform", "mixed", "ends", "reference", "lexicographic"]
"""Which of a clip's stored frames are taken, where their times are not known.

uniform: one from each of T equal parts; mixed: the same over a random stretch of the clip, from T
consecutive frames to all; ends: evenly from the first frame to the last, never random; reference:
every fifth frame from the first (the released code's intention); lexicographic: every fifth of the
file names as a directory listing sorts them (what the released code does)."""
UNKNOWN_SCENE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random disturbances of training clips: the same for all frames of a clip.

    There is no horizontal flip: it turns the driving side, writing and plates around, which tell
    places apart.
    """

    least_crop: float = 1.0
    """Smallest share of the picture's area that a crop keeps; 1 for no crop."""
    colour_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    mask_prob: float = 0.0
    """How often borders and corners are painted over, where logos and clocks are burnt in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRange:
    """The clips that training draws, where times are known."""

    min_span_s: float = 2.0
    max_span_s: float = 25.0
    max_keyframe_gap_s: float = 2.5
    clips: int = 3
    """Clips per video that the exported bundle asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a clip is to be read."""

    frames: int
    image_px: int
    resize: Resize = "squash"
    picking: Picking = "uniform"
    """For clips that are stored as frames."""
    policy: Policy | None = None
    """For sources with real time: how frames are chosen; None draws one for every clip."""
    span_s: float | None = None
    """For sources with real time: seconds from first frame to last; None draws them."""
    frame_s: float | None = None
    """Seconds between stored frames, where they are known: `span_s` then holds for them too."""
    augmentation: Augmentation | None = None
    seed: int | None = None
    """Of everything random in the clip, together with the index; None: nothing is random, the
    middle of every range is taken."""
    part: int = 0
    """Which of `parts` clips of one sample: evaluation may average several."""
    parts: int = 1

    def generator(self, index: int, purpose: int) -> np.random.Generator | None:
        """Randomness of one sample for one purpose; None where nothing is to be random."""
        if self.seed is None:
            return None
        return np.random.default_rng([self.seed, index, self.part, purpose])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a sample before it is opened."""

    name: str
    """Unique in its dataset, and stable: the clip's id, or the video and its start."""
    city_id: int
    group: str
    """What must not lie on both sides of a split: a drive, a sequence, a source video. The name
    itself where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One clip with its labels."""

    clip_THWC: NDArray[np.uint8]
    city_id: int
    """The coarser levels follow from it: `Hierarchy.ancestors`."""
    scene_S: NDArray[np.float32] | None = None
    """Distribution over the scene groups, sums to 1; None where nobody labelled it."""
    scene_id: int = UNKNOWN_SCENE
    """The most frequent scene of its frames."""
    point_deg: tuple[float, float] | None = None
    """(lat_deg, lon_deg) where it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSample:
    """A sample that cannot be read: counted and reported, never replaced by another."""

    name: str
    reason: str
    """With the file, and the row where there is one."""


class ClipDataset(Protocol):
    """A source of labelled clips.  Cheap to pickle: worker processes get a copy.

    What only some can tell is asked for with `getattr`: `notes`, what a person should know;
    `covered_s(index, view)`, the seconds that a clip really covers where the view asks for more
    than there are; `longest_s`, the longest of them; `has_scenes`, whether any clip says which
    scene it shows; `content_sha256`, where other clips can have the same names and labels.
    """

    @property
    def name(self) -> str:
        """For titles and records, such as `CityGuessr68k val`; no path."""

    @property
    def hierarchy(self) -> Hierarchy:
        """The class tree that the labels follow."""

    @property
    def places_csv(self) -> str:
        """The same tree as the text of a `places.csv`."""

    @property
    def entries(self) -> Sequence[Entry]:
        """What it holds, in a fixed order."""

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip.

        Raises:
            DatasetError: the whole dataset is unusable (a missing folder), not one sample.
        """
