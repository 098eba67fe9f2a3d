"""Which clips an evaluation looks at: rendered drives policy by policy, or a data set's samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from train.data.clips import RenderedClips
from train.data.dataset import Sample
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.config import EvaluatedPolicy, SamplingRange
    from train.data.dataset import ClipDataset, Split, View

RENDERED = "rendered"
"""Spec of the rendered world."""
MOST_ASKED = 1000
"""Samples that are asked for the spans of their clips."""
SPAN_DIGITS = 2
"""Of a span in seconds, behind the point."""
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
        test_clips: how many are counted, in all policies together; at least one of each.
    """

    def drives(split: Split, clips: int, seed: int) -> RenderedClips:
        return RenderedClips(split=split, clips=clips, sampling=sampling, seed=seed)

    each, more = divmod(test_clips, len(policies))
    counts = [max(1, each + (number < more)) for number in range(len(policies))]
    tests = tuple(
        Pass(dataset=drives(split, count, number), indices=tuple(range(count)), policy=policy)
        for number, (policy, count) in enumerate(zip(policies, counts, strict=True), start=1)
    )
    val = None
    if val_clips is not None:
        val = Pass(dataset=drives("val", val_clips, 0), indices=tuple(range(val_clips)))
    return Task(split=split, tests=tests, val=val, policies=policies, total=sum(counts))


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
    Each is named by the span that the samples allow (`cut_spans`).

    Args:
        test: what is counted.
        val: what calibrates; None, or an empty one, for a calibration that is given.
        split: name of what is counted.
        view: how clips are read, but for the policy.
        policies: of the model.
        val_clips: how many samples calibrate; None for all.
        test_clips: how many samples are counted; None for all.

    Raises:
        DatasetError: the data set cannot be used.
    """
    indices = spread(len(test.entries), test_clips)
    passes: tuple[Pass, ...] = (Pass(dataset=test, indices=indices),)
    if policies and has_time(test, view, policies):
        policies = cut_spans(policies, test, view, indices)
        passes = tuple(Pass(dataset=test, indices=indices, policy=policy) for policy in policies)
    calibrating = None
    if val is not None and len(val.entries):
        calibrating = Pass(dataset=val, indices=spread(len(val.entries), val_clips))
    return Task(
        split=split, tests=passes, val=calibrating, policies=policies, total=len(test.entries)
    )


def cut_spans(
    policies: Sequence[EvaluatedPolicy],
    dataset: ClipDataset,
    view: View,
    indices: Sequence[int],
) -> tuple[EvaluatedPolicy, ...]:
    """Policies with the spans that samples are really seen over: the median of them.

    Samples of ten seconds give no clip of 21 s, however it is asked for, and what is measured on
    them must not be believed of 21 s. Of policies that become the same, one is left.
    """
    covered_s = getattr(dataset, "covered_s", None)
    if covered_s is None or not len(indices):
        return tuple(policies)
    asked = [indices[at] for at in spread(len(indices), MOST_ASKED)]

    def cut(policy: EvaluatedPolicy) -> EvaluatedPolicy:
        seen = replace(view, policy=policy.policy, span_s=policy.span_s)
        median_s = float(np.median([covered_s(index, seen) for index in asked]))
        return replace(policy, span_s=round(median_s, SPAN_DIGITS))

    return tuple(dict.fromkeys(map(cut, policies)))


def spread(count: int, wanted: int | None) -> tuple[int, ...]:
    """Numbers 0 to count - 1, or `wanted` of them spread evenly."""
    if wanted is None or wanted >= count:
        return tuple(range(count))
    return tuple((np.arange(wanted) * count // wanted).tolist())


def has_time(dataset: ClipDataset, view: View, policies: Sequence[EvaluatedPolicy]) -> bool:
    """Whether policies choose different frames, asked of the first samples themselves."""
    for index in range(min(PROBES, len(dataset.entries))):
        try:
            clips = [
                dataset.read(index, replace(view, policy=policy.policy, span_s=policy.span_s))
                for policy in policies
            ]
        except DatasetError:  # packed clips have the policy that they were packed with
            return False
        good = [clip.clip_THWC for clip in clips if isinstance(clip, Sample)]
        if any(not np.array_equal(good[0], other) for other in good[1:]):
            return True
    return False
