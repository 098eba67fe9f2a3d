"""Ctrl-C and a polite kill, made to strike only where nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt, but not inside `held`.

    A signal that is ignored stays ignored: shells start background jobs so. Outside the main
    thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._is_forgotten = False
        self._is_pending = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    signal.signal(number, self._handle)
                    self._stack.callback(signal.signal, number, before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def held(self, *, forget: bool = False) -> Iterator[None]:
        """Let a signal wait until the block is done; a second one does not wait.

        Args:
            forget: nothing is left to stop after the block, so signals have no effect in it,
                however many come: a file on a slow disk is put in its place to the end.
        """
        self._is_held, self._is_forgotten = True, forget
        try:
            yield
        finally:
            self._is_held = self._is_forgotten = False
            was_pending, self._is_pending = self._is_pending, False
        if was_pending and not forget:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_held and (self._is_forgotten or not self._is_pending):
            self._is_pending = True
            return
        raise KeyboardInterrupt
