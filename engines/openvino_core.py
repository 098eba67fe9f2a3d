"""The one `openvino.Core` of a process."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def shared_core() -> Any:  # noqa: ANN401 - openvino has no types
    """Open OpenVINO once, and keep it to the end.

    On a processor with AMX each `Core` of OpenVINO 2026.4 that goes puts back the signal stack that
    it found when it came. Of two that go in the order in which they came, the second puts back that
    of the first, whose memory is gone by then: the next signal that Python handles (Ctrl-C, the end
    of a child) ends the process.

    Raises:
        ImportError: it is not installed.
        RuntimeError: it does not start here.
    """
    import openvino

    return openvino.Core()
