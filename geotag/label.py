"""`geotag label`: footage that carries GPS, as a training manifest.

One row a sample. `video` is the path below the scanned folder, spelled as in the tags of a scan;
times are seconds from the first frame, [start_s, end_s). What privacy zones hold is gone before
anything is grouped, counted by place or written.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING

from geotag.console import describe_time, printable
from geotag.errors import EXIT_OK, ConfigError, NoVideosError
from geotag.footage.discover import discover
from geotag.labels.cells import cell_of
from geotag.labels.reading import FileTracks
from geotag.labels.samples import cut_samples
from geotag.labels.splits import SPLITS, Split, Splitting, Spot, split_samples
from geotag.locks import OutputLock
from geotag.places.gazetteer import read_gazetteer
from geotag.privacy import parse_zones
from geotag.writers.files import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from geotag.console import Console
    from geotag.labels.reading import Recording, TrackReader
    from geotag.labels.samples import Sample
    from geotag.places.gazetteer import Gazetteer, Geocode
    from geotag.privacy import Zone
    from geotag.types import Discovery, Video

COLUMNS = (
    "video",
    "start_s",
    "end_s",
    "lat_deg",
    "lon_deg",
    "city_geonameid",
    "state_code",
    "country_code",
    "continent_code",
    "city",
    "state",
    "country",
    "continent",
    "quality",
    "speed_mps",
    "drive_id",
    "cell",
    "split",
)
VAL_SHARE = 0.1
TEST_SHARE = 0.1

_READERS = 4
_CHANNELS = ("front", None)
"""A camera without a word for its channel looks ahead."""
_MODES = ("normal", "event", "manual", None)
"""A parked car shows one place for hours; sped-up pictures do not keep the track's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A sample, and where it comes from."""

    video: str
    drive_id: str
    sample: Sample


def run_label(
    root: Path,
    out: Path,
    *,
    console: Console,
    exclude: Sequence[str] = (),
    exclude_file: Path | None = None,
    seed: int = 0,
    val_share: float = VAL_SHARE,
    test_share: float = TEST_SHARE,
    make_reader: Callable[[], AbstractContextManager[TrackReader]] | None = None,
    gazetteer: Gazetteer | None = None,
) -> int:
    """Write a training manifest of the footage of a folder.

    Args:
        root: the footage.
        out: CSV to write.
        console: whom to tell.
        exclude: privacy zones, as `geotag.privacy.parse_zones` reads them.
        exclude_file: a file of more of them.
        seed: of the dealing out of regions.
        val_share: of the samples, for choosing a model.
        test_share: of the samples, for judging it.
        make_reader: what a thread reads with; None is the real thing.
        gazetteer: names places; None is the one of this package.

    Returns:
        The exit code.

    Raises:
        ConfigError, NoVideosError, OutputError: as their names say.
    """
    shares = _checked_shares(val_share, test_share)
    zones = parse_zones(exclude, exclude_file)
    with ExitStack() as stack:
        lock = stack.enter_context(OutputLock([str(out)]))
        for warning in lock.warnings:
            console.warn(warning)
        target = AtomicFile(out)
        stack.callback(target.abort)
        discovery = discover(root)
        if not discovery.videos:
            raise NoVideosError(
                f"labelling {printable(str(root))}: no videos. Is the card mounted?"
            )
        rows, videos, fixes = _read_all(discovery, zones, make_reader or FileTracks)
        spots = [
            Spot(drive_id=row.drive_id, cell=cell_of(row.sample.lat_deg, row.sample.lon_deg))
            for row in rows
        ]
        splitting = split_samples(spots, shares=shares, seed=seed)
        places = (gazetteer or read_gazetteer()).locate(
            [row.sample.lat_deg for row in rows], [row.sample.lon_deg for row in rows]
        )
        target.write(_csv(rows, spots, places, splitting))
        target.commit()
    console.say(_describe(rows, splitting, videos, fixes, _written(out, root)))
    _warn(splitting, shares, console)
    return EXIT_OK


def _checked_shares(val_share: float, test_share: float) -> dict[Split, float]:
    train_share = 1.0 - val_share - test_share
    if not (val_share >= 0.0 and test_share >= 0.0 and train_share > 0.0):
        raise ConfigError(
            f"splitting samples: shares of {val_share:g} for val and {test_share:g} for test; "
            "each is 0 or more, and both together are less than 1."
        )
    return {"train": train_share, "val": val_share, "test": test_share}


def _read_all(
    discovery: Discovery,
    zones: Sequence[Zone],
    make_reader: Callable[[], AbstractContextManager[TrackReader]],
) -> tuple[list[_Row], Counter[str], Counter[str]]:
    """The samples of every video; what became of the videos, and of the fixes left out."""
    chosen, became = _choose(discovery)
    dropped: Counter[str] = Counter()
    rows: list[_Row] = []
    mine = local()
    pool = ThreadPoolExecutor(_READERS, "label")
    with ExitStack() as readers, ExitStack() as stop:
        stop.callback(pool.shutdown, cancel_futures=True)  # then the readers are closed

        def read(video: Video) -> Recording:
            if not hasattr(mine, "reader"):
                mine.reader = readers.enter_context(make_reader())
            reader: TrackReader = mine.reader
            return reader.read(video)

        recordings = pool.map(read, [video for video, _ in chosen])
        for (video, drive_id), recording in zip(chosen, recordings, strict=True):
            if recording.reading is None:
                became["without a position"] += 1
                continue
            samples, reasons = cut_samples(
                recording.reading, zones=zones, duration_s=recording.duration_s
            )
            dropped += reasons
            became["used" if samples else "without a stretch that can be used"] += 1
            rows += [_Row(video=video.name, drive_id=drive_id, sample=sample) for sample in samples]
    return rows, became, dropped


def _choose(discovery: Discovery) -> tuple[list[tuple[Video, str]], Counter[str]]:
    """The videos that look ahead from a driving vehicle, each once, with their drives."""
    became: Counter[str] = Counter()
    chosen: list[tuple[Video, str]] = []
    seen: set[str] = set()
    for drive in discovery.drives:
        for moment in drive.moments:
            fitting: list[tuple[Video, str]] = []
            for video in moment.videos:
                reason = _unfit(video, seen)
                if reason is None and fitting:
                    reason = "beside another that looks ahead"
                if reason is not None:
                    became[reason] += 1
                    continue
                seen.add(video.content_id)
                fitting.append((video, drive.drive_id))
            chosen += fitting
    return chosen, became


def _unfit(video: Video, seen: set[str]) -> str | None:
    if video.origin.channel not in _CHANNELS:
        return f"looking to the {video.origin.channel}"
    if video.origin.mode not in _MODES:
        return f"recorded in {video.origin.mode} mode"
    return "the same as another" if video.content_id in seen else None


def _csv(
    rows: Sequence[_Row],
    spots: Sequence[Spot],
    places: Sequence[Geocode],
    splitting: Splitting,
) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180, as the tags are
    writer.writerow(COLUMNS)
    for row, spot, place, split in zip(rows, spots, places, splitting.splits, strict=True):
        writer.writerow(_fields(row, spot, place, split))
    return text.getvalue()


def _fields(row: _Row, spot: Spot, place: Geocode, split: Split) -> Iterator[object]:
    known: dict[str, object] = {
        "video": row.video,
        "drive_id": row.drive_id,
        "cell": spot.cell,
        "split": split,
    }
    for name in COLUMNS:
        if name in known:
            yield known[name]
        elif hasattr(row.sample, name):
            yield getattr(row.sample, name)
        else:
            yield getattr(place, name)


def _describe(
    rows: Sequence[_Row],
    splitting: Splitting,
    videos: Counter[str],
    fixes: Counter[str],
    written: str,
) -> str:
    splits = Counter(splitting.splits)
    footage_s = sum(row.sample.end_s - row.sample.start_s for row in rows)
    drives = len({row.drive_id for row in rows})
    return "\n".join(
        (
            f"videos   {_listed(videos)}",
            f"samples  {len(rows)} = " + " + ".join(f"{splits[name]} {name}" for name in SPLITS),
            f"footage  {describe_time(footage_s)} in {drives} drive{'s' * (drives != 1)} and "
            f"{len(splitting.regions)} region{'s' * (len(splitting.regions) != 1)}",
            f"fixes    left out: {_listed(fixes)}",
            f"wrote    {printable(written)}",
        )
    )


def _written(out: Path, root: Path) -> str:
    """The file's name, and how training is told of it where it lies elsewhere than the footage."""
    footage = root if root.is_dir() else root.parent
    if out.absolute().parent == footage.absolute():
        return str(out)
    spec = f"manifest:{out}?footage={footage}"
    return f"{out}; to train or calibrate on it: {shlex.quote(spec)}"


def _listed(counts: Counter[str]) -> str:
    """`12 used, 3 without a position`, the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered if count) or "none"


def _warn(splitting: Splitting, shares: dict[Split, float], console: Console) -> None:
    """Tell where the splits are not what was asked for."""
    total = len(splitting.splits)
    if not total:
        console.warn("there is no sample: the manifest holds its header alone.")
        return
    largest = splitting.regions[0]
    splits = Counter(splitting.splits)
    empty = [name for name in SPLITS if shares[name] > 0 and not splits[name]]
    if empty or largest > shares["train"] * total:
        console.warn(
            f"one region holds {largest} of {total} samples. What one drive or 10 km join is "
            f"never divided, so {' and '.join(empty) or 'a split'} came out "
            f"{'empty' if empty else 'other than asked for'}. Footage from further away helps."
        )
