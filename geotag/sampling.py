"""Which sampling a scan uses, and how many clips a video gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.errors import ConfigError

if TYPE_CHECKING:
    from engines.bundle import Bundle, Policy, PolicyAccuracy
    from geotag.config import SamplingName

POLICY_COST: dict[Policy, int] = {"keyframe": 0, "dense": 1, "exact": 2}
"""Order of decoding cost: T frames; the frames of a short stretch; those of a long one."""
TOLERATED_LOSS = 0.005
"""City accuracy that the cheapest policy may give away: half a point."""
EXTRA_CLIP_S = 300.0
"""With clips = "auto", a video gets one clip more for each started five minutes after the first."""
MOST_AUTO_CLIPS = 32
"""With clips = "auto", no video gets more for being long: a header may lie about the duration, and
of a drive of hours 32 places say enough. More are read only where more are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingChoice:
    """How clips are chosen in this scan, and why: a value to show."""

    policy: Policy
    span_s: float
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.policy} {self.span_s:g} s ({self.reason})"


def choose_sampling(bundle: Bundle, wanted: SamplingName = "auto") -> SamplingChoice:
    """Take the policy that was asked for, or the cheapest within half a point of the best.

    Accuracy is that of the bundle, measured per policy and span when it was exported.

    Raises:
        ConfigError: the bundle was never measured with the policy asked for.
    """
    measured = bundle.manifest.sampling.policies
    if wanted == "auto":
        best = max(measured, key=lambda entry: entry.city_top1)
        floor = best.city_top1 - TOLERATED_LOSS - 1e-9
        good = [entry for entry in measured if entry.city_top1 >= floor]
        cheapest = min(good, key=lambda entry: (POLICY_COST[entry.policy], *_merit(entry)))
        reason = f"city accuracy {cheapest.city_top1:.1%}, {_compare(cheapest, best)}"
        return SamplingChoice(policy=cheapest.policy, span_s=cheapest.span_s, reason=reason)
    asked = sorted((entry for entry in measured if entry.policy == wanted), key=_merit)
    if not asked:
        known = ", ".join(sorted({entry.policy for entry in measured}))
        raise ConfigError(
            f"--sampling {wanted}: the bundle {bundle.manifest.name} has no measured accuracy for "
            f"it. Allowed with this bundle: auto, {known}."
        )
    reason = f"asked for; city accuracy {asked[0].city_top1:.1%}"
    return SamplingChoice(policy=asked[0].policy, span_s=asked[0].span_s, reason=reason)


def count_clips(duration_s: float | None, wanted: int | None, usual: int) -> int:
    """How many clips a video may get: those asked for, or the usual count, more for a long one.

    Args:
        duration_s: as far as it is known.
        wanted: a count that was asked for, and is taken as it is; None for automatic.
        usual: the count that a short video gets.
    """
    if wanted is not None:
        return wanted
    extra = max(0, int(-(-(duration_s or 0.0) // EXTRA_CLIP_S)) - 1)
    return max(usual, min(usual + extra, MOST_AUTO_CLIPS))


def _merit(entry: PolicyAccuracy) -> tuple[float, float]:
    """Sorts the more accurate first, and of equals the shorter span."""
    return -entry.city_top1, entry.span_s


def _compare(taken: PolicyAccuracy, best: PolicyAccuracy) -> str:
    if taken.city_top1 >= best.city_top1:
        return "the best measured"
    return (
        f"within half a point of the best, {best.policy} {best.span_s:g} s with "
        f"{best.city_top1:.1%}, and cheaper"
    )
