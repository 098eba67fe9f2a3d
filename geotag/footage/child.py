"""A child process to talk to: requests as lines of JSON, replies as JSON and raw bytes.

For POSIX systems. The child never hears Ctrl-C, which is for the parent to judge, and sees its
input end when the parent does, whatever way: no other process inherits that pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

_ROOT = Path(__file__).resolve().parents[2]
_MOST_HEADER_BYTES = 16 << 20
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ; the fcntl module has the name from Python 3.10 on Linux
_END_S = 2.0
"""A killed process that has not ended by then waits for a disk that does not answer."""


class ChildDiedError(Exception):
    """The child ended, or says what it never would if it were well."""

    def __init__(self, message: str, returncode: int | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode


class ChildLateError(Exception):
    """The child did not reply in time; it is still there."""


class Child:
    """A running module of this package; for one thread, but `kill` may come from any."""

    def __init__(self, module: str, argument: str) -> None:
        """Start it.

        Raises:
            OSError: the operating system starts no process.
        """
        # Its first words, should it not even start, would be an import error.
        self._first_words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._first_words,
                bufsize=0,
                # Where the package is: whatever the user's folder holds is not imported.
                cwd=_ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(paths),
                    # Libraries of numpy that are never used would start a thread per core.
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                    # No room for memory that each thread might want (glibc); the room is limited.
                    "MALLOC_ARENA_MAX": "2",
                    # Give the frames of a large video back, not keep them for the next one (glibc).
                    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
                },
                start_new_session=True,
            )
        except BaseException:
            self._first_words.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._replies, select.POLLIN)
        _widen(self._replies.fileno())

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait for the first reply.

        Raises:
            RuntimeError: it does not start, or not in time.
        """
        try:
            self.receive(timeout_s)
        except ChildDiedError as exc:
            self._first_words.seek(0)
            words = self._first_words.read(1 << 16).decode(errors="replace").strip()
            why = words or str(exc)
            raise RuntimeError(f"the decoding process does not start: {why}") from exc
        except ChildLateError as exc:
            raise RuntimeError(
                f"the decoding process did not start within {timeout_s:g} s; this machine is too "
                "busy or its disk too slow"
            ) from exc

    def send(self, request: dict[str, Any]) -> None:
        """Send a request, which must fit into a pipe.

        Raises:
            ChildDiedError: nobody reads it.
        """
        try:
            self._requests.write(json.dumps(request).encode("ascii") + b"\n")
        except OSError as exc:
            raise self._died() from exc

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the JSON of the next reply.

        Raises:
            ChildDiedError: there is none any more.
            ChildLateError: it takes longer.
        """
        until_s = time.monotonic() + timeout_s
        size = struct.unpack(">I", self.receive_bytes(4, timeout_s))[0]
        if size > _MOST_HEADER_BYTES:
            raise ChildDiedError("it sends what makes no sense")
        text = self.receive_bytes(size, until_s - time.monotonic())
        try:
            header = json.loads(text)
        except ValueError as exc:
            raise ChildDiedError("it sends what makes no sense") from exc
        if not isinstance(header, dict) or "kind" not in header:
            raise ChildDiedError("it sends what makes no sense")
        return cast("dict[str, Any]", header)

    def receive_bytes(self, size: int, timeout_s: float) -> bytes:
        """Wait for so many bytes.  Raises as `receive` does."""
        content = bytearray(size)
        self.receive_into(memoryview(content), timeout_s)
        return bytes(content)

    def receive_into(self, content: memoryview, timeout_s: float) -> None:
        """Wait for as many bytes as fit.  Raises as `receive` does."""
        until_s = time.monotonic() + timeout_s
        while len(content):
            # What has come already counts, however late it is read.
            if not self._poll.poll(max(0.0, until_s - time.monotonic()) * 1000):
                raise ChildLateError
            count = os.readv(self._replies.fileno(), [content])
            if not count:
                raise self._died()
            content = content[count:]

    def kill(self) -> None:
        """End it at once; whoever waits for it sees that."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """End it at once and let go of it."""
        self.kill()
        for stream in (self._requests, self._replies, self._first_words):
            with contextlib.suppress(OSError):
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)

    def _died(self) -> ChildDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        returncode = self._process.returncode
        return ChildDiedError(f"it ended with {returncode}", returncode)


def _widen(handle: int) -> None:
    """Let a pipe hold more than 64 KiB, so that a clip takes fewer turns."""
    try:
        import fcntl

        fcntl.fcntl(handle, _SET_PIPE_SIZE, _PIPE_BYTES)
    except (ImportError, OSError):  # only Linux knows this, and only up to a user's share
        pass
