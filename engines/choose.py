"""Which engine runs here, and on how many cores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engines.base import Engine, EngineChoice, EngineName

if TYPE_CHECKING:
    from engines.bundle import Bundle


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
    from engines.openvino_cpu import OpenvinoEngine  # loads numpy: `geotag --help` need not wait

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
