"""Which clips an evaluation looks at: rendered drives policy by policy, or a data set's samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from train.config import EvaluatedPolicy, SamplingRange
from train.data.clips import RenderedClips, rendered_hierarchy, rendered_places_csv
from train.data.dataset import BadSample, Entry, Sample, View
from train.data.rendered import render_clip
from train.data.world import draw_drive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import ClipDataset, Split

RENDERED = "rendered"
"""Spec of the rendered world."""
PROBES = 3
"""Samples that are looked at to learn whether a data set has real time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """One pass over samples of a data set."""

    dataset: ClipDataset
    indices: tuple[int, ...]
    policy: EvaluatedPolicy | None = None
    """How frames are chosen; None where the data set has no time to choose by, and for the mixture
    of all that calibrates."""

    @property
    def title(self) -> str:
        """For a progress line."""
        if self.policy is None:
            return self.dataset.name
        return f"{self.dataset.name}, {self.policy.policy} {self.policy.span_s:g} s"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Everything one evaluation looks at."""

    split: str
    tests: tuple[Pass, ...]
    """What is counted; one pass for each policy where there are several."""
    val: Pass | None
    """What calibrates; None where the calibration is given."""
    policies: tuple[EvaluatedPolicy, ...]
    """Policies of the model, measured here or not."""
    total: int
    """Samples that the data set holds, of which the passes may take some; a drawn world has no
    end, and its passes take what they were asked for."""


class RenderedDrives:
    """Drives of the rendered world as a data set: one sample a drive, all of its world the same.

    The clips are those of `train.data.clips.RenderedClips`; further parts of a sample are other
    moments of the same drive.
    """

    def __init__(
        self,
        *,
        split: Split,
        clips: int,
        sampling: SamplingRange,
        policies: tuple[EvaluatedPolicy, ...],
        seed: int,
    ) -> None:
        """List drives.

        Args:
            split: whose drives.
            clips: how many.
            sampling: what a view without a policy draws from, where it asks for one part.
            policies: what takes turns, where a view without a policy asks for several parts.
            seed: which drives.
        """
        self.name = f"rendered {split}"
        self.places_csv = rendered_places_csv()
        self._split: Split = split
        self._clips = clips
        self._sampling = sampling
        self._policies = policies
        self._seed = seed

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The class tree of the rendered world."""
        return rendered_hierarchy()

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """One drive each."""
        drives = [draw_drive(self._split, self._drive(index)) for index in range(self._clips)]
        names = [f"{self._split}-{drive.index}" for drive in drives]
        return tuple(
            Entry(name=name, city_id=drive.city_id, group=name)
            for name, drive in zip(names, drives, strict=True)
        )

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Render one clip; never bad."""
        drive = draw_drive(self._split, self._drive(index))
        if view.part == 0 and view.parts == 1:
            policy = _policy_of(view)
            clips = RenderedClips(
                split=self._split,
                clips=self._clips,
                frames=view.frames,
                image_px=view.image_px,
                sampling=self._sampling,
                hierarchy=self.hierarchy,
                seed=self._seed,
                policy=policy,
            )
            pixels, labels = clips[index]
            clip_THWC, scene = pixels.numpy(), labels["scene"]
        else:
            policy = _policy_of(view) or self._policies[index % len(self._policies)]
            rng = np.random.default_rng([self._seed, index, view.part, view.parts])
            clip_THWC, scene = render_clip(
                drive,
                policy.policy,
                policy.span_s,
                rng=rng,
                frames=view.frames,
                size=view.image_px,
            )
        return Sample(clip_THWC=clip_THWC, city_id=drive.city_id, scene_id=scene)

    def _drive(self, index: int) -> int:
        return self._seed * 1_000_003 + index


def rendered_task(
    *,
    split: Split,
    sampling: SamplingRange,
    policies: tuple[EvaluatedPolicy, ...],
    val_clips: int | None,
    test_clips: int,
) -> Task:
    """Rendered drives: each policy is measured on drives of its own.

    Args:
        split: what is counted.
        sampling: what calibrating clips are drawn from.
        policies: what is measured; at least one.
        val_clips: how many clips calibrate; None for no calibration.
        test_clips: how many are counted, in all policies together.
    """

    def drives(split: Split, clips: int, seed: int) -> RenderedDrives:
        return RenderedDrives(
            split=split, clips=clips, sampling=sampling, policies=policies, seed=seed
        )

    each = max(1, test_clips // len(policies))
    tests = tuple(
        Pass(dataset=drives(split, each, number), indices=tuple(range(each)), policy=policy)
        for number, policy in enumerate(policies, start=1)
    )
    val = None
    if val_clips is not None:
        val = Pass(dataset=drives("val", val_clips, 0), indices=tuple(range(val_clips)))
    return Task(split=split, tests=tests, val=val, policies=policies, total=each * len(policies))


def dataset_task(
    test: ClipDataset,
    val: ClipDataset | None,
    *,
    split: str,
    view: View,
    policies: tuple[EvaluatedPolicy, ...],
    val_clips: int | None = None,
    test_clips: int | None = None,
) -> Task:
    """Samples of a data set, all of them or a stated number spread evenly over its list.

    Policies are measured where they make a difference: a data set of stored frames, whose times
    are not known, gives the same clip for all of them and is passed over once, without a policy.
    """
    indices = spread(len(test.entries), test_clips)
    passes: tuple[Pass, ...] = (Pass(dataset=test, indices=indices),)
    if policies and has_time(test, view, policies):
        passes = tuple(Pass(dataset=test, indices=indices, policy=policy) for policy in policies)
    calibrating = None
    if val is not None:
        calibrating = Pass(dataset=val, indices=spread(len(val.entries), val_clips))
    return Task(
        split=split, tests=passes, val=calibrating, policies=policies, total=len(test.entries)
    )


def spread(count: int, wanted: int | None) -> tuple[int, ...]:
    """Numbers 0 to count - 1, or `wanted` of them spread evenly."""
    if wanted is None or wanted >= count:
        return tuple(range(count))
    return tuple((np.arange(wanted) * count // wanted).tolist())


def has_time(dataset: ClipDataset, view: View, policies: Sequence[EvaluatedPolicy]) -> bool:
    """Whether policies choose different frames, asked of the first samples themselves."""
    for index in range(min(PROBES, len(dataset.entries))):
        clips = [
            dataset.read(index, replace(view, policy=policy.policy, span_s=policy.span_s))
            for policy in policies
        ]
        good = [clip.clip_THWC for clip in clips if isinstance(clip, Sample)]
        if any(not np.array_equal(good[0], other) for other in good[1:]):
            return True
    return False


def _policy_of(view: View) -> EvaluatedPolicy | None:
    if view.policy is None or view.span_s is None:
        return None
    return EvaluatedPolicy(policy=view.policy, span_s=view.span_s)
