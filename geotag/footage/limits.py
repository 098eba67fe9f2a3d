"""What one file may cost: time, pixels, packets, bytes and memory. Beyond that it is cut off.

Two sides keep these limits. The decoder counts what it reads and decodes (`Meter`) and gives up
with a plain reason. Where it cannot, because it hangs or dies inside a library, the process that
waits for it (`geotag.footage.isolation`) counts the time and ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.types import FootageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from geotag.types import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a file may cost.

    The decoder may work on a file, opening and all its clips together, for
    `min(base_s + size / bytes_per_s, most_s) + decoded megapixels * s_per_megapixel` seconds: a
    file of 10 MB that makes no progress has 10 s, one of any size two minutes. Time in which nobody
    waits for the decoder does not count.
    """

    base_s: float = 8.0
    """Enough for any small file, on a slow card and a busy machine."""
    bytes_per_s: float = 5e6
    """Slower than the oldest card; more than 40 Mbit of footage each second."""
    most_s: float = 120.0
    """Whatever the size: of a very large file a clip reads a small part."""
    s_per_megapixel: float = 0.05
    """What decoded frames earn: 1080p slower than 10 frames a second is no progress. Without
    it a long clip of a low bit rate would be cut off on a slow machine."""
    start_s: float = 60.0
    """For the decoder's process to start, which reads libraries from the disk."""
    most_pixels: int = 8192 * 8192
    """Of a frame: the largest that a level of H.265 or AV1 knows; twice the area of 8K."""
    most_megapixels_per_clip: float = 20_000.0
    """Decoded for one clip: 80 s of 4K video at 30 frames a second."""
    most_packets: int = 1_000_000
    """Looked at in one step: nine hours at 30 frames a second."""
    most_passes: int = 8
    """How often a step may read a whole file: a clip of a damaged one looks at it several times."""
    spare_bytes: int = 64 << 20
    """Read in one step whatever the size of the file."""
    most_memory_bytes: int = 3 << 30
    """Address space of the decoder's process, on systems that can limit it: libraries take half a
    gigabyte of it, a 10-bit 8K stream with the sixteen frames it may refer to nearly two."""
    most_thread_bytes: int = 128 << 20
    """The same for each thread that decodes: its stack, and an 8K frame of its own."""

    def allowed_s(self, size_bytes: int, decoded_px: int) -> float:
        """Seconds that a file may take of which so many pixels are decoded."""
        idle_s = min(self.base_s + size_bytes / self.bytes_per_s, self.most_s)
        return idle_s + decoded_px / 1_000_000 * self.s_per_megapixel

    def allowed_bytes(self, size_bytes: int) -> int:
        """Bytes of packets that one step may read."""
        return self.spare_bytes + self.most_passes * size_bytes


DEFAULT_LIMITS = Limits()
"""For scans; a test may want to wait less."""


class Meter:
    """Counts what a step reads and decodes, and ends it where that is more than any file needs."""

    def __init__(
        self,
        *,
        size_bytes: int,
        limits: Limits = DEFAULT_LIMITS,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Start to count the opening of a file.

        Args:
            size_bytes: of the file.
            limits: what it may cost.
            on_progress: called after each frame with the pixels decoded of the file so far.
        """
        self.limits = limits
        self._allowed_bytes = limits.allowed_bytes(size_bytes)
        self._on_progress = on_progress
        self._stage: Stage = "open"
        self._packets = self._bytes = self._px = 0
        self._px_before = 0

    def begin_clip(self) -> None:
        """Start to count a clip."""
        self._stage = "decode"
        self._px_before += self._px
        self._packets = self._bytes = self._px = 0

    def count_packet(self, size_bytes: int) -> None:
        """Count a packet that was read.

        Raises:
            FootageError: stalled; there are too many, or they are too large together.
        """
        self._packets += 1
        self._bytes += size_bytes
        if self._packets > self.limits.most_packets:
            raise self._error(f"more than {self.limits.most_packets:,} packets were read")
        if self._bytes > self._allowed_bytes:
            raise self._error(
                f"more than {self._allowed_bytes >> 20} MiB were read, many times its size"
            )

    def count_frame(self, width_px: int, height_px: int) -> None:
        """Count a frame that was decoded.

        Raises:
            FootageError: too_large or stalled; the frame is too large, or there were too many.
        """
        pixels = width_px * height_px
        if pixels > self.limits.most_pixels:
            raise FootageError(
                self._stage, "too_large", describe_too_large(width_px, height_px, self.limits)
            )
        self._px += pixels
        if self._px > self.limits.most_megapixels_per_clip * 1e6:
            raise self._error(
                f"{self.limits.most_megapixels_per_clip:,.0f} megapixels were decoded for one clip"
            )
        if self._on_progress is not None:
            self._on_progress(self._px_before + self._px)

    def _error(self, what: str) -> FootageError:
        return FootageError(
            self._stage,
            "stalled",
            f"reading was cut off: {what}; the file is damaged, or made to keep a reader busy",
        )


def describe_too_large(width_px: int, height_px: int, limits: Limits) -> str:
    """A sentence that refuses pictures of a size."""
    return (
        f"the header claims pictures of {width_px} x {height_px} pixels; more than "
        f"{limits.most_pixels // 1_000_000} megapixels are refused, as no camera records them: the "
        "header is probably damaged"
    )
