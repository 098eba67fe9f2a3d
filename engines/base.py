"""What every engine promises, and how one is chosen.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engines.bundle import Bundle

EngineName = Literal["auto", "openvino"]


class EngineError(Exception):
    """The model cannot be run; the root of this package's errors (process exit code 6)."""


class BundleError(EngineError):
    """The model folder is missing, incomplete, damaged, or of a schema this version cannot read."""


class EngineUnavailableError(EngineError):
    """The runtime that was asked for is not here, or does not work here."""


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
class EngineChoice:
    """Which engine runs, and why not an earlier one: a value to show, not a log line."""

    name: str
    threads: int
    """Processor cores that one inference uses."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Engines that would have come first, each with the reason it does not run here."""

    def __str__(self) -> str:
        """One line for a person."""
        tail = "".join(f"; not {name}: {reason}" for name, reason in self.skipped)
        return f"{self.name} on {self.threads} thread{'s' * (self.threads != 1)}{tail}"


def open_engine(
    bundle: Bundle, *, engine: EngineName = "auto", threads: int | None = None
) -> tuple[Engine, EngineChoice]:
    """Compile the bundle's model with the asked engine, or with the best one here.

    Args:
        bundle: a verified model folder.
        engine: `auto` takes the first that works here; a name never falls back.
        threads: cores for one inference; None decides from the machine.

    Raises:
        EngineUnavailableError: no engine, or not the one asked for, works here.
        EngineMismatchError: the model is not what its bundle says.
    """
    from engines.openvino_cpu import OpenvinoEngine

    count = threads or inference_threads(usable_cores())
    opened = OpenvinoEngine(bundle, threads=count)
    return opened, EngineChoice(name=opened.name, threads=count)


def usable_cores() -> int:
    """Cores that this process may use: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def inference_threads(cores: int) -> int:
    """How many of the cores one inference takes, so that decoding keeps one.

    On one or two cores inference takes them all: decoding is then done by the time the network
    runs or shares the second core, and an idle core would cost more (docs/decisions/0003).
    """
    return cores if cores <= 2 else cores - 1
