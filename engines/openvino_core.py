"""OpenVINO's one Core of a process."""

from __future__ import annotations

import functools
from typing import Any

from engines.base import EngineUnavailableError


def shared_core() -> Any:  # noqa: ANN401 - openvino has no types
    """The Core that everything here compiles with; it lives as long as the process.

    On a processor with AMX each Core of OpenVINO 2026.4 brings a stack for signals, and puts back
    the one that it found when it goes. Of two that go in the order in which they came, or of one
    that goes in another thread, an address stays behind whose memory is gone: the next signal that
    Python handles (Ctrl-C, the end of a child) ends the process. One that stays frees nothing.

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
