"""OpenVINO's one Core of a process."""

from __future__ import annotations

import functools
from typing import Any

from engines.base import EngineUnavailableError


def shared_core() -> Any:  # noqa: ANN401 - openvino has no types
    """The Core that everything here compiles with; it lives as long as the process.

    OpenVINO 2026.4 gives the thread that loads its CPU plugin a stack of its own for signals, and
    frees it when the last Core and the last network are gone, in whatever thread that happens. The
    first thread keeps the address, and the next signal that Python handles ends the process
    (SIGSEGV). A plugin that is never unloaded frees nothing.

    Raises:
        EngineUnavailableError: OpenVINO is not installed or does not start here.
    """
    try:
        import openvino  # noqa: F401 - here, so that a missing one is told in every case
    except ImportError as exc:
        raise EngineUnavailableError(
            f"starting OpenVINO: {exc}. Install it with `pip install '.[cpu]'` in geotag's "
            "source folder."
        ) from exc
    try:
        return _core()
    except RuntimeError as exc:
        raise EngineUnavailableError(f"starting OpenVINO: {exc}.") from exc


@functools.cache
def _core() -> Any:  # noqa: ANN401
    import openvino

    return openvino.Core()
