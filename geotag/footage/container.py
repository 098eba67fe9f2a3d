"""Opening a file with PyAV: the one place that knows how its versions 14.2 to 19 differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import av
import av.container
import av.video.stream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction
    from pathlib import Path

_VERSION = int(av.__version__.split(".", maxsplit=1)[0])
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_DISCARD_ALL = 48  # AVDISCARD_ALL

# A file must not make us read another one: playlists and reference movies can name any address.
# The other two are ffmpeg's defaults, said aloud: how much of a file is read, and how many
# microseconds of it are looked at, to learn what its header does not tell.
_CONTAINER_OPTIONS = {
    "protocol_whitelist": "file",
    "probesize": "5000000",
    "analyzeduration": "5000000",
}


class IndexEntry(Protocol):
    """One packet in the table of an MP4 file, as PyAV tells it."""

    @property
    def timestamp(self) -> int:
        """Decoding time, in ticks of the stream."""

    @property
    def pos(self) -> int:
        """First byte in the file."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def is_keyframe(self) -> bool:
        """Whether it decodes alone."""

    @property
    def is_discard(self) -> bool:
        """Whether an edit list cuts it away."""


READING_ERRORS = (av.FFmpegError, OSError)
"""What only a file can be the cause of."""
DECODING_ERRORS = (*READING_ERRORS, EOFError, ValueError, MemoryError, IndexError, OverflowError)
"""What PyAV raises for a file that is not as it should be; ValueError includes UnicodeError.

To be caught around a call of PyAV only: our own mistakes raise the same.
"""


def open_container(path: Path, *, most_pixels: int) -> av.container.InputContainer:
    """Open a file for reading.

    Args:
        path: the file.
        most_pixels: larger pictures are not decoded while the streams are looked at.

    Raises:
        av.FFmpegError, OSError, ValueError: it cannot be opened.
    """
    options: dict[str, Any] = {"container_options": _CONTAINER_OPTIONS}
    if _VERSION >= 18:
        # Before, they crash the process for formats that have no header, such as FLV.
        options["options"] = _codec_options(most_pixels)
    if _VERSION < 19:
        # Tags in an unknown encoding must not make a video unreadable; 19 never minds them.
        options["metadata_errors"] = "replace"
    # Absolute, because ffmpeg takes "a:b.mp4" for the address b.mp4 of a protocol a.
    opened: av.container.InputContainer = av.open(str(path.absolute()), "r", **options)
    return opened


def main_video_stream(
    container: av.container.InputContainer,
) -> av.video.stream.VideoStream | None:
    """Stream with the largest picture, the first of equals; a cover picture does not count."""
    streams = [
        stream
        for stream in container.streams.video
        if not int(stream.disposition.value) & _ATTACHED_PICTURE  # an IntFlag only since 17
    ]
    return max(streams, key=_pixels, default=None)


def prepare_decoder(stream: av.video.stream.VideoStream, *, threads: int, most_pixels: int) -> None:
    """Set up a stream's decoder, which opens when the first packet goes in.

    Frame threads help runs of frames, and key frames alone, which need not wait for each other.
    Larger pictures are refused before there is memory for them: a stream may grow on the way.
    """
    stream.codec_context.thread_count = max(1, threads)
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.options = _codec_options(most_pixels)


def ignore_other_streams(
    container: av.container.InputContainer, kept: av.video.stream.VideoStream
) -> None:
    """Let the demuxer pass over sound and data without reading them, where PyAV can (17)."""
    if _VERSION < 17:
        return
    for stream in container.streams:
        if stream.index != kept.index:
            setattr(stream, "discard", _DISCARD_ALL)  # noqa: B010 - unknown to older stubs


def rate_hz(rate: Fraction | float | None) -> float | None:
    """A frame rate as a number; None where unknown (None or 0/1 by version) or impossible."""
    return float(rate) if rate and 0.001 < float(rate) < 10_000 else None


def packet_index(stream: av.video.stream.VideoStream) -> Sequence[IndexEntry]:
    """Decoding time, place and size of every packet, where the file has a full table of them.

    Empty for files without one, and for PyAV before 17.
    """
    entries = getattr(stream, "index_entries", None)
    if entries is None or not 0 < stream.frames == len(entries):
        return ()
    # Like a sequence, but registered as none.
    return cast("Sequence[IndexEntry]", entries)


def _codec_options(most_pixels: int) -> dict[str, str]:
    return {"max_pixels": str(most_pixels)}


def _pixels(stream: av.video.stream.VideoStream) -> int:
    if stream.codec_context is None:  # ffmpeg has no decoder for it
        return -1
    return int(stream.codec_context.width) * int(stream.codec_context.height)
