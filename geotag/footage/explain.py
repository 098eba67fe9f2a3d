"""How each file of a folder was understood, and why: the text of `--explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geotag.console import printable
from geotag.footage.drives import GAP_CLIPS, GAP_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geotag.types import Discovery, Drive, Moment, Video

_RULE = (
    f"A drive: clips of one camera, each beginning at most {GAP_S / 60:g} minutes, or "
    f"{GAP_CLIPS:g} of its usual clips, after the one before; parts of one recording; "
    "consecutive numbers where the camera writes no times."
)


def explain(discovery: Discovery) -> str:
    """Describe a folder for a person: drive by drive, file by file, then what was skipped.

    One paragraph a file: its name; what it is; what lies beside it; why. The last line counts.
    """
    lines: list[str] = []
    for number, drive in enumerate(discovery.drives, start=1):
        lines += [_head(number, drive), *_files(drive), ""]
    if discovery.skipped:
        lines.append("skipped")
        width = max(len(one.name) for one in discovery.skipped)
        lines += [
            f"  {printable(one.name):{min(width, 60)}}  {printable(one.reason)}"
            for one in discovery.skipped
        ]
        lines.append("")
    lines += [_RULE, _count(discovery)]
    return "\n".join(lines)


def _head(number: int, drive: Drive) -> str:
    """`drive 2 (id 1f..): 3 moments, 6 files, 2024-05-01 10:00:00 to 10:02:00, card DCIM`."""
    videos = [video for moment in drive.moments for video in moment.videos]
    starts = sorted(video.origin.start_local for video in videos if video.origin.start_local)
    parts = [_plural(len(drive.moments), "moment"), _plural(len(videos), "file")]
    if starts:
        first, last = starts[0], starts[-1]
        until = last.time() if last.date() == first.date() else last
        parts.append(f"{first}" if first == last else f"{first} to {until}")
    card = videos[0].origin.card
    if card:
        parts.append(f"card {printable(card)}")
    return f"drive {number} (id {drive.drive_id}): {', '.join(parts)}"


def _files(drive: Drive) -> Iterator[str]:
    for moment in drive.moments:
        for video in moment.videos:
            yield from _file(video, moment)


def _file(video: Video, moment: Moment) -> Iterator[str]:
    yield f"  {printable(video.name)}"
    yield f"    is      {_identity(video)}"
    best = moment.videos[0]
    if len(moment.videos) > 1 and best is video:
        others = len(moment.videos) - 1
        yield f"    view    the best of its moment, for {_plural(others, 'other file')} too"
    elif best is not video:
        yield f"    view    {printable(best.name)} is better, of the same moment"
    if video.sidecars:
        names = ", ".join(_beside(video, path.as_posix()) for path in video.sidecars)
        yield f"    beside  {names}"
    if video.proxy is not None:
        yield f"    proxy   {printable(video.proxy.name)}"
    yield f"    why     {printable('; '.join(video.origin.reasons)) or 'nothing is known'}"


def _identity(video: Video) -> str:
    """`VIOFO, front (F), normal, 2024-05-01 10:00:00, number 12`."""
    origin = video.origin
    if origin.channel is None:
        channel = f"channel {origin.lens}" if origin.lens else "no channel named"
    else:
        is_said = origin.lens is None or origin.lens.lower() == origin.channel
        channel = origin.channel + ("" if is_said else f" ({origin.lens})")
    parts = [
        origin.vendor or "unknown camera",
        channel,
        origin.mode or "unknown mode",
        str(origin.start_local) if origin.start_local else "no time",
    ]
    if origin.sequence is not None:
        parts.append(f"number {origin.sequence}")
    if origin.part is not None:
        parts.append(f"part {origin.part}")
    return printable(", ".join(parts))


def _beside(video: Video, path: str) -> str:
    """A sidecar as seen from the video's folder."""
    folder = video.path.parent.as_posix().rstrip("/") + "/"
    return printable(path[len(folder) :] if path.startswith(folder) else path)


def _count(discovery: Discovery) -> str:
    vendors = sorted({video.origin.vendor for video in discovery.videos if video.origin.vendor})
    unknown = sum(video.origin.vendor is None for video in discovery.videos)
    cameras = ", ".join((*vendors, *([f"{unknown} of unknown cameras"] if unknown else [])))
    sidecars = sum(bool(video.sidecars) for video in discovery.videos)
    return (
        f"{_plural(len(discovery.videos), 'video')} in {_plural(len(discovery.drives), 'drive')}, "
        f"{sidecars} with a sidecar, {len(discovery.skipped)} skipped"
        + (f" ({cameras})" if cameras else "")
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
