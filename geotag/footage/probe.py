"""Opening a video: what it is, or in words for a stranger why it is none."""

from __future__ import annotations

import math
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from geotag.footage import boxes, container
from geotag.footage.files import open_file
from geotag.footage.kinds import HEAD_BYTES, describe_stranger, video_kind
from geotag.footage.limits import Limits, describe_too_large
from geotag.footage.metadata import read_created_utc_s, read_location
from geotag.types import FailureCode, FootageError, Video, VideoFacts

if TYPE_CHECKING:
    from pathlib import Path

    from av.container import InputContainer
    from av.video.stream import VideoStream

_LEAST_BITS_PER_S, _MOST_BITS_PER_S = 2_000, 2_000_000_000
"""A duration that means fewer or more is a lie: a static 320 x 180 video has ten times as many
bits per second as the least, raw 1080p video at 60 frames per second fewer than the most."""


def check_file(video: Video) -> bytes:
    """Refuse what ffmpeg need not be asked about.  -> the first bytes of the file.

    Raises:
        FootageError: unreadable, empty or not_video.
    """
    try:
        mode = video.path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _error("unreadable", _why_unlisted(video.path))
        if not stat.S_ISREG(mode):
            raise _error("unreadable", "this is a pipe, a socket or a device, and not a file")
        with open_file(video.path) as stream:
            head = stream.read(HEAD_BYTES)
    except PermissionError as exc:
        raise _error(
            "unreadable", "permission to read the file was denied; change its permissions"
        ) from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise _error("unreadable", f"the operating system cannot read the file: {reason}") from exc
    if not head:
        raise _error("empty", "the file holds no bytes; the camera never wrote to it")
    stranger = describe_stranger(head)
    if stranger is not None:
        raise _error("not_video", f"the file is {stranger}, whatever its name says")
    if not any(head):
        raise _error(
            "damaged",
            "the file begins with zeros only: its space was reserved, but the recording was "
            "never written or is lost",
        )
    return head


def _why_unlisted(folder: Path) -> str:
    """Of a folder that stands among the videos because those in it are not known."""
    try:
        os.scandir(folder).close()
    except PermissionError:
        why = "permission to list this folder was denied"
    except OSError as exc:
        why = f"this folder cannot be listed: {exc.strerror or exc}"
    else:
        why = "this folder could not be listed when the scan began"
    return f"{why}; videos in it are not in this result"


def open_stream(video: Video, head: bytes, limits: Limits) -> tuple[InputContainer, VideoStream]:
    """Open the container and choose its video stream.

    Raises:
        FootageError: damaged, not_video, no_video_stream, too_large or decode_error.
    """
    try:
        opened = container.open_container(video.path, most_pixels=limits.most_pixels)
    except container.DECODING_ERRORS as exc:
        _explain_refusal(video, head, exc)
    try:
        if not opened.streams:
            _explain_refusal(video, head, None)
        stream = container.main_video_stream(opened)
        _check_stream(opened, stream, limits)
        assert stream is not None
        _check_claims(video, stream, limits)
        container.ignore_other_streams(opened, stream)
    except BaseException:
        opened.close()
        raise
    return opened, stream


def read_facts(
    video: Video, opened: InputContainer, stream: VideoStream, *, duration_s: float | None
) -> VideoFacts:
    """Collect what the container says; duration_s is what the packets say, None if not asked."""
    context = stream.codec_context
    rotation_deg = 0
    if "mov" in opened.format.name:
        with suppress(OSError):
            rotation_deg = boxes.track_rotation_deg(video.path, stream.id)
    return VideoFacts(
        container=opened.format.name.split(",")[0],
        codec=context.name,
        width_px=context.width,
        height_px=context.height,
        rotation_deg=rotation_deg,
        duration_s=duration_s,
        fps=container.rate_hz(stream.average_rate) or container.rate_hz(stream.guessed_rate),
        created_utc_s=read_created_utc_s(opened.metadata),
        location=read_location(opened.metadata),
    )


def is_cut_off(video: Video, opened: InputContainer) -> bool:
    """Whether the file is known to end before the recording does."""
    if "mov" not in opened.format.name:
        return False
    try:
        return boxes.is_cut_off(video.path)
    except OSError:
        return False


def claimed_duration_s(video: Video, opened: InputContainer, stream: VideoStream) -> float | None:
    """Duration that the container states; None where it states none or one that cannot be."""
    claims_s = []
    if stream.duration is not None and stream.time_base:
        claims_s.append(stream.duration * float(stream.time_base))
    if opened.duration is not None:
        # Matroska states the time at which the last frame ends, not how long that is.
        is_end = "matroska" in opened.format.name and opened.start_time is not None
        claims_s.append((opened.duration - (opened.start_time or 0) * is_end) / 1e6)
    # At most a thousand frames a second.
    least_s = stream.frames / 1000
    possible_s = (possible_duration_s(video, claim_s) for claim_s in claims_s if claim_s > least_s)
    return next((claim_s for claim_s in possible_s if claim_s is not None), None)


def possible_duration_s(video: Video, duration_s: float | None) -> float | None:
    """The duration if a file of that size can have it, else None."""
    if duration_s is None or not math.isfinite(duration_s) or duration_s <= 0:
        return None
    bits_per_s = video.size_bytes * 8 / duration_s
    return duration_s if _LEAST_BITS_PER_S <= bits_per_s <= _MOST_BITS_PER_S else None


def _check_stream(opened: InputContainer, stream: VideoStream | None, limits: Limits) -> None:
    name = opened.format.name
    if name.endswith("_pipe") or name in ("image2", "gif", "apng", "tty", "ico"):
        raise _error("not_video", f"the file is a picture or a text ({name}), not a video")
    if stream is None:
        # By these lists: in PyAV before 17 asking a stream of unknown type for it ends the process.
        tracks = {
            "a cover picture": opened.streams.video,
            "audio": opened.streams.audio,
            "subtitles": opened.streams.subtitles,
            "data": opened.streams.data,
        }
        seen = " and ".join(kind for kind, found in tracks.items() if found) or "unknown tracks"
        raise _error("no_video_stream", f"the file opens, but holds {seen} only: no video")
    context = stream.codec_context
    if context is None:
        raise _error("decode_error", "this build of ffmpeg has no decoder for the video's codec")


def _check_claims(video: Video, stream: VideoStream, limits: Limits) -> None:
    """Refuse what no file can hold, before time goes into looking for it."""
    context = stream.codec_context
    if context.width * context.height > limits.most_pixels:
        raise _error("too_large", describe_too_large(context.width, context.height, limits))
    if stream.frames > min(video.size_bytes, limits.most_packets):
        raise _error(
            "damaged",
            f"the index claims {stream.frames:,} frames in a file of {video.size_bytes:,} bytes: "
            "it is damaged, or made to keep a reader busy",
        )


def _explain_refusal(video: Video, head: bytes, exc: BaseException | None) -> NoReturn:
    """Say why ffmpeg did not open a file, or found nothing in it."""
    kind = video_kind(head)
    if kind is None:
        raise _error("not_video", "the file is in no known video format") from exc
    names: list[str] = []
    if kind == "MP4":
        with suppress(OSError):
            names = boxes.top_level_boxes(video.path)
        if not {"moov", "moof"} & set(names):
            raise _error(
                "damaged",
                "the index (moov) is missing: the recording was cut off before the camera "
                "finished the file; a repair tool such as untrunc may recover it",
            ) from exc
    raise _error(
        "damaged",
        f"the file begins like {kind}, but cannot be opened: it is damaged or cut off; play it "
        "in another player, or copy it again from the camera",
    ) from exc


def _error(code: FailureCode, message: str) -> FootageError:
    return FootageError("open", code, message)
