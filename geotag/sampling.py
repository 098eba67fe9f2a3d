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

    Accuracy is that of the bundle, measured per policy and span when it was exported. Where none
    was, as for a model made without training, the first that the bundle names is taken.

    Raises:
        ConfigError: the bundle was never measured with the policy asked for.
    """
    policies = bundle.manifest.sampling.policies
    if wanted == "auto":
        measured = [entry for entry in policies if entry.city_top1 is not None]
        if not measured:
            return _chosen(policies[0], f"the bundle's own choice; {_accuracy(policies[0])}")
        best = max(measured, key=_city_top1)
        floor = _city_top1(best) - TOLERATED_LOSS - 1e-9
        good = [entry for entry in measured if _city_top1(entry) >= floor]
        cheapest = min(good, key=lambda entry: (POLICY_COST[entry.policy], *_merit(entry)))
        return _chosen(cheapest, f"{_accuracy(cheapest)}, {_compare(cheapest, best)}")
    asked = sorted((entry for entry in policies if entry.policy == wanted), key=_merit)
    if not asked:
        known = ", ".join(sorted({entry.policy for entry in policies}))
        raise ConfigError(
            f"--sampling {wanted}: the bundle {bundle.manifest.name} was not made for it. Allowed "
            f"with this bundle: auto, {known}."
        )
    return _chosen(asked[0], f"asked for; {_accuracy(asked[0])}")


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


def _chosen(entry: PolicyAccuracy, reason: str) -> SamplingChoice:
    return SamplingChoice(policy=entry.policy, span_s=entry.span_s, reason=reason)


def _city_top1(entry: PolicyAccuracy) -> float:
    """What was measured; what was not ranks behind all that was."""
    return -1.0 if entry.city_top1 is None else entry.city_top1


def _merit(entry: PolicyAccuracy) -> tuple[float, float]:
    """Sorts the more accurate first, and of equals the shorter span."""
    return -_city_top1(entry), entry.span_s


def _accuracy(entry: PolicyAccuracy) -> str:
    if entry.city_top1 is None:
        return "its accuracy is not measured"
    return f"city accuracy {entry.city_top1:.1%}"


def _compare(taken: PolicyAccuracy, best: PolicyAccuracy) -> str:
    if _city_top1(taken) >= _city_top1(best):
        return "the best measured"
    return (
        f"within half a point of the best, {best.policy} {best.span_s:g} s with "
        f"{_city_top1(best):.1%}, and cheaper"
    )
