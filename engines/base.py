"""What every engine promises.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EngineName = Literal["auto", "openvino", "tensorrt", "tensorrt-rtx"]


class EngineError(Exception):
    """The model cannot be run; the root of this package's errors (process exit code 6)."""


class BundleError(EngineError):
    """The model folder is missing, incomplete, damaged, or of a schema this version cannot read."""


class EngineUnavailableError(EngineError):
    """The runtime that was asked for is not here, or does not work here."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """Keep the text, and its essence.

        Args:
            message: what was being done, why it cannot be, the next step.
            reason: the why in a few words, such as "not installed"; None takes the whole message.
        """
        super().__init__(message)
        self.reason = reason or message


class EngineBuildError(EngineError):
    """The runtime is here and cannot compile the model; its own words are in the text."""


class EngineMismatchError(EngineError):
    """The compiled model does not have the inputs and outputs that its bundle promises."""


class Engine(Protocol):
    """A compiled model, ready to run; one per process."""

    @property
    def name(self) -> str:
        """Runtime, device and precision, such as `openvino-cpu-fp32`."""
        ...

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run N clips.  uint8 [N, T, H, W, 3] -> every output of the bundle, float32 [N, K].

        The arrays belong to the caller. Raises EngineError if the runtime fails.
        """
        ...

    def close(self) -> None:
        """Release what the runtime holds; calling twice is harmless."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """That an engine works here: it has compiled and run a network of one layer."""

    version: str
    """Of the runtime, in full."""
    device: str
    detail: str
    """What else decides how a model runs, such as the version of the driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine runs, and why not an earlier one: a value to show, not a log line."""

    name: str
    threads: int
    """Processor cores that one inference uses."""
    device: str | None = None
    """What it runs on, where that is not the processor."""
    notes: tuple[str, ...] = ()
    """What else was settled while it was opened, such as whether a CUDA graph is used."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Engines that would have come first, each with the reason it does not run here."""

    def __str__(self) -> str:
        """One line for a person."""
        plural = "s" * (self.threads != 1)
        where = self.device or f"{self.threads} thread{plural}"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            reasons.setdefault(reason, []).append(name)
        without = (f"not {', '.join(names)}: {reason}" for reason, names in reasons.items())
        return "; ".join((f"{self.name} on {where}", *self.notes, *without))
