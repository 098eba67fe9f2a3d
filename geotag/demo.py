"""The demo: render a small dashcam folder, scan it, and hold the tags against the truth.

The footage shows a procedural world (`train.data.rendered`), so the demo needs no download and
proves that the pipeline works; it says nothing about real roads.
"""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines.choose import usable_cores
from geotag.bundles import DEMO, find_bundle
from geotag.config import ScanConfig
from geotag.errors import EXIT_OK, EXIT_SOME_FAILED, OutputError
from geotag.runs import run_scan
from geotag.writers.files import advice, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geotag.console import Console
    from geotag.runs import OpenEngine
    from geotag.types import Tag

FOOTAGE_FOLDER = "dashcam"
DURATIONS_S = (14.0, 12.0, 18.0, 13.0, 22.0, 12.0, 16.0, 15.0)
FPS = 8.0
SPEED_MPS = 11.0
METRES_A_DEGREE = 111_195.0
"""Of latitude, on a sphere of the Earth's mean radius."""
RENDER_WIDTH_PX = 360
"""Rendering is what takes the time, and the model sees no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoVideo:
    """One video to render; its name and its folder tell nothing of its place."""

    name: str
    index: int
    """Number of the drive in the test split, which no model is trained on."""
    city: str
    duration_s: float
    lat_deg: float
    lon_deg: float
    """Where the city that it shows really is."""
    has_gps: bool
    """A track lies beside it."""


def run_demo(
    folder: Path,
    count: int,
    *,
    console: Console,
    open_engine: OpenEngine,
    bundle: str = DEMO,
    render: Callable[[DemoVideo, Path], None] | None = None,
) -> int:
    """Render, scan, compare.

    Args:
        folder: where footage and tags go; made if missing, and may be that of an earlier demo.
        count: how many videos.
        console: whom to tell.
        open_engine: how the engine is opened.
        bundle: model folder, by name or path.
        render: makes one video; None renders, on all cores.

    Returns:
        The exit code: that of the scan.

    Raises:
        OutputError: the folder cannot be written.
        BundleError: there is no demo bundle.
    """
    find_bundle(bundle)  # before a minute of rendering
    plan = plan_videos(count)
    footage = folder / FOOTAGE_FOLDER
    _make_folders([footage / Path(video.name).parent for video in plan])
    console.say(f"rendering {count} videos into {footage}")
    started_s = console.clock()
    _render_all(plan, footage, render)
    console.say(f"rendered in {console.clock() - started_s:.0f} s")
    _write_tracks(plan, footage)
    _write_truth(plan, folder / "truth.csv")
    config = ScanConfig(
        out=(str(folder / "tags.geojson"), str(folder / "tags.csv")),
        tracks=str(folder / "tracks.geojson"),
        bundle=bundle,
        fresh=True,
    )
    timed: list[tuple[Tag, float]] = []
    wanted = {video.name for video in plan}  # the folder may hold more from an earlier demo
    tally = run_scan(
        footage,
        config,
        console=console,
        open_engine=open_engine,
        command=("geotag", "demo"),
        watch=lambda tag: timed.append((tag, console.clock())),
        only=wanted.__contains__,
    )
    # What came before the first video, such as compiling the model, is not the videos' time.
    _compare(plan, [(tag, at_s - tally.started_s) for tag, at_s in timed], console)
    return EXIT_SOME_FAILED if tally.failed else EXIT_OK


def plan_videos(count: int) -> tuple[DemoVideo, ...]:
    """Videos of the demo, the same every time, named as a dashcam names them."""
    from train.data.world import draw_drive, places

    videos = []
    for index in range(count):
        place = places()[draw_drive("test", index).city_id]
        videos.append(
            DemoVideo(
                name=_camera_name(index),
                index=index,
                city=place.city,
                duration_s=DURATIONS_S[index % len(DURATIONS_S)],
                lat_deg=place.lat_deg,
                lon_deg=place.lon_deg,
                has_gps=index % 2 == 0,
            )
        )
    return tuple(videos)


def _start(index: int) -> datetime:
    """By the camera's clock; a day apart, since no car is in two cities of the world at once."""
    return datetime(2026, 3, 14, 8, 15) + timedelta(days=index, minutes=3 * index)


def _camera_name(index: int) -> str:
    """`Normal/NO20260314-081500-000001F.MP4`; every third one an event."""
    folder, prefix = ("Event", "EV") if index % 3 == 2 else ("Normal", "NO")
    return f"{folder}/{prefix}{_start(index):%Y%m%d-%H%M%S}-{index + 1:06}F.MP4"


def write_gpx(video: DemoVideo, path: Path) -> None:
    """Write the track that a receiver would have recorded: one fix a second, through the city.

    Raises:
        OSError: the file cannot be written.
    """
    from zoneinfo import ZoneInfo

    import tzfpy
    from gpxpy.gpx import GPX, GPXTrack, GPXTrackPoint, GPXTrackSegment

    zone = ZoneInfo(tzfpy.get_tz(video.lon_deg, video.lat_deg))
    start_utc = _start(video.index).replace(tzinfo=zone).astimezone(timezone.utc)
    segment = GPXTrackSegment()
    for second in range(math.ceil(video.duration_s) + 1):
        east_m, north_m = SPEED_MPS * second, 40 * math.sin(second / 5)
        lat_deg = video.lat_deg + north_m / METRES_A_DEGREE
        lon_deg = video.lon_deg + east_m / METRES_A_DEGREE / math.cos(math.radians(lat_deg))
        time = start_utc + timedelta(seconds=second)
        segment.points.append(GPXTrackPoint(round(lat_deg, 6), round(lon_deg, 6), 40.0, time))
    gpx = GPX()
    gpx.creator = "geotag demo"
    gpx.tracks.append(GPXTrack())
    gpx.tracks[0].segments.append(segment)
    path.write_text(gpx.to_xml(), encoding="utf-8")


def _make_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"making the demo folder {folder}: {exc.strerror or exc}. Choose another --out."
            ) from exc


def _render_all(
    plan: Sequence[DemoVideo], footage: Path, render: Callable[[DemoVideo, Path], None] | None
) -> None:
    """Render on all cores, the longest first; or one by one with the given renderer."""
    paths = [footage / video.name for video in plan]
    try:
        if render is not None:
            for video, path in zip(plan, paths, strict=True):
                render(video, path)
            return
        # A fresh interpreter each: forking a process whose threads hold locks can hang.
        with ProcessPoolExecutor(
            min(usable_cores(), len(plan)),
            mp_context=multiprocessing.get_context("spawn"),
            # A Ctrl-C reaches the whole group: these should just die, and print no traceback.
            initializer=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as pool:
            longest_first = sorted(
                zip(plan, paths, strict=True), key=lambda pair: -pair[0].duration_s
            )
            list(pool.map(_render, *zip(*longest_first, strict=True)))
    except OSError as exc:
        raise OutputError(
            f"writing the demo footage to {footage}: {exc.strerror or exc}. {advice(exc, '--out')}"
        ) from exc
    except BrokenProcessPool as exc:
        raise OutputError(
            f"rendering the demo footage into {footage}: a process that renders was killed, most "
            "likely because memory ran out. Close other programs, or render fewer videos at a "
            "time with a smaller --videos."
        ) from exc


def _render(video: DemoVideo, path: Path) -> None:
    """Render under a hidden name, so that an interrupted demo leaves no half video."""
    from train.data.rendered import write_video
    from train.data.world import draw_drive

    part = path.with_name(f".{path.stem}.part.mp4")
    write_video(
        draw_drive("test", video.index),
        part,
        duration_s=video.duration_s,
        fps=FPS,
        render_width=RENDER_WIDTH_PX,
    )
    part.replace(path)


def _write_tracks(plan: Sequence[DemoVideo], footage: Path) -> None:
    try:
        for video in plan:
            if video.has_gps:
                write_gpx(video, (footage / video.name).with_suffix(".gpx"))
    except OSError as exc:
        raise OutputError(
            f"writing the demo tracks to {footage}: {exc.strerror or exc}. {advice(exc, '--out')}"
        ) from exc


def _write_truth(plan: Sequence[DemoVideo], path: Path) -> None:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["path", "city"])
    rows.writerows([video.name, video.city] for video in plan)
    write_file(path, text.getvalue())


def _compare(
    plan: Sequence[DemoVideo], timed: Sequence[tuple[Tag, float]], console: Console
) -> None:
    """Print the table and the count; an answer that was left open is neither right nor wrong.

    Videos are scanned side by side, so the time is that since the first began, not that of one.
    """
    truth = {video.name: video.city for video in plan}
    console.table(
        (
            *("file", "true city", "pictures say", "city", "country", "clips"),
            *("GPS says", "agreement", "tagged as", "done after"),
        ),
        [_row(tag, truth[tag.path], time_s) for tag, time_s in timed],
    )
    named = [tag for tag, _ in timed if tag.visual_city is not None]
    right = sum(tag.visual_city == truth[tag.path] for tag in named)
    open_ = len(timed) - len(named)
    console.result(
        f"From the pictures alone {right} of {len(plan)} cities right, {len(named) - right} wrong, "
        f"{open_} left open.\n"
        "This is a rendered world: it shows that the pipeline works, and nothing about real roads."
    )


def _row(tag: Tag, true_city: str, time_s: float) -> tuple[str, ...]:
    probs = (tag.confidence_city, tag.confidence_country)
    seen = tag.visual_city or tag.visual_state or tag.visual_country or tag.visual_continent
    return (
        tag.path,
        true_city,
        tag.visual_city or (f"({seen})" if seen else tag.error or "not sure"),
        *("" if prob is None else f"{prob:.2f}" for prob in probs),
        str(tag.clips),
        "" if tag.gps_lat is None else f"{tag.city or tag.country or 'nowhere'}",
        "" if tag.agreement == "none" else f"{tag.agreement}, {tag.agreement_km:.0f} km",
        f"{tag.city or tag.country or 'not placed'} ({tag.location_source})",
        f"{time_s:.1f} s",
    )
