"""Stored frames whose times are known after all: clips of so many seconds can be cut out of them.

CityGuessr68k does not say how far its frames are apart. Who finds out, from a burnt-in clock for
instance, names it behind the dataset's path (`?frame-s=0.033`), and evaluation then measures each
way of sampling over its own span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from train.errors import DatasetError

if TYPE_CHECKING:
    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import BadSample, ClipDataset, Entry, Sample, View


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedClips:
    """A `ClipDataset` of stored frames at a known distance in time."""

    clips: ClipDataset
    frame_s: float
    """Seconds from one stored frame to the next."""

    @property
    def name(self) -> str:
        """That of the clips."""
        return self.clips.name

    @property
    def hierarchy(self) -> Hierarchy:
        """That of the clips."""
        return self.clips.hierarchy

    @property
    def places_csv(self) -> str:
        """That of the clips."""
        return self.clips.places_csv

    @property
    def entries(self) -> Sequence[Entry]:
        """Those of the clips."""
        return self.clips.entries

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip; where the view asks for a span, of frames that cover it."""
        return self.clips.read(index, replace(view, policy=None, frame_s=self.frame_s))

    def covered_s(self, index: int, view: View) -> float:
        """Seconds that a clip covers as a view with a span shows it: no more than are stored."""
        stored_s = self.clips.count_frames(index) * self.frame_s  # type: ignore[attr-defined]
        return min(view.span_s or stored_s, stored_s)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """What else the clips can do."""
        if name in ("clips", "frame_s"):  # asked for while being unpickled
            raise AttributeError(name)
        return getattr(self.clips, name)


def with_frame_s(dataset: ClipDataset, text: str) -> ClipDataset:
    """The dataset with the time between its frames, as a person wrote it.

    Raises:
        DatasetError: it is no number of seconds above 0.
    """
    try:
        frame_s = float(text)
    except ValueError:
        frame_s = -1.0
    if not 0 < frame_s < 3600:
        raise DatasetError(
            f"opening {dataset.name}: frame-s={text!r} is no time between two frames; give seconds "
            "above 0, such as frame-s=0.033."
        )
    return TimedClips(clips=dataset, frame_s=frame_s)
