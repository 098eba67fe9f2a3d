"""Does any damaged file crash the decoding, hold it up, or go without an answer?

    python benchmarks/mutations.py                            # made videos
    python benchmarks/mutations.py --folder ../shared/footage # real ones as well
    python benchmarks/mutations.py --scan                     # through whole scans

Each of 1,000 files (`--count`) is a video with one to four kinds of damage: flipped bits, a cut,
stretches of zeros or of another file, boxes doubled, swapped or with a lying size, extreme numbers
in the index. What becomes of a number of `--seed` is always the same. Each is opened in the
decoding process, and two clips are read, as a scan would; the outcome is a clip, or a failure with
a code and a sentence. Exit status 1 if a file took longer than 10 s or anything else was raised.

With `--scan` the same files are scanned, 50 in a folder, with the demo model, readers of positions
and all: each must have exactly one tag. The time of a file is what its worker spent on it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import av

from benchmarks.record import machine, save
from engines.choose import open_engine
from geotag.config import ScanConfig
from geotag.console import Console
from geotag.footage.clips import Sampling, Window, plan_windows
from geotag.footage.isolation import DecodeProcess, RemoteReader
from geotag.runs import run_scan
from geotag.station import RealStation
from geotag.telemetry.track import Survey
from geotag.types import Clip, FailureCode, FootageError, Policy, Video, VideoFacts
from tests.media import write_video

MOST_S = 10.0
MOST_BYTES = 8_000_000
"""Larger files are left out: a limit that grows with the size is not what is asked here."""
SPAN_S, CLIPS = 2.5, 2
SCANNED_AT_ONCE = 50
EXTREMES = (0, 1, 2, 0xFF, 0x7FFF, 0xFFFF, 0x00FFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
BOXES = re.compile(
    rb"ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|minf|stbl|stsd|avc1|avcC|hvc1|hvcC|av01|"
    rb"stts|ctts|stss|stsc|stsz|stco|co64|moof|mfhd|traf|tfhd|tfdt|trun|mdat|udta|meta|free|"
    rb"\x1aE\xdf\xa3|\x18S\x80g|\x1fC\xb6u|\x1cS\xbbk|idx1|movi|strh|strf|avih"
)
"""Names of boxes (MP4), numbers of elements (Matroska) and chunks (AVI)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file."""

    number: int
    source: str
    damages: tuple[str, ...]
    code: str
    """"ok", "damaged" (clips of what there is), a code of a failure, or "bug"; of a scan also
    "partial", and "missing" where there is no tag."""
    message: str
    seconds: float


def main() -> int:
    """Damage files, read them, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="real videos to damage beside the made ones")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep files that crash, stall or show a bug")
    parser.add_argument("--scan", action="store_true", help="through whole scans")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    process_all = scan_damaged if arguments.scan else read_damaged
    with tempfile.TemporaryDirectory() as folder:
        sources = [*make_videos(Path(folder)), *find_sources(arguments.folder)]
        outcomes = process_all(
            sources, arguments.count, arguments.seed, Path(folder), arguments.keep
        )
    report = {
        **summarise(outcomes),
        "sources": len(sources),
        **machine("av", versions={"ffmpeg": getattr(av, "ffmpeg_version_info", "unknown")}),
    }
    for code, count in report["outcomes"].items():
        print(f"{count:6d}  {code}")
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if report["over_10_s"] or report["bugs"] or report["missing"] else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """One damaged file, written."""

    number: int
    source: str
    damages: tuple[str, ...]
    path: Path

    def outcome(self, code: str, message: str, seconds: float, keep: Path | None) -> Outcome:
        """What became of it; the file goes, or is kept where that is interesting."""
        if keep and (code in ("crashed", "stalled", "bug", "missing") or seconds > MOST_S):
            keep.mkdir(parents=True, exist_ok=True)
            (keep / self.path.name).write_bytes(self.path.read_bytes())
        self.path.unlink()
        return Outcome(
            number=self.number,
            source=self.source,
            damages=self.damages,
            code=code,
            message=message,
            seconds=seconds,
        )


def write_damaged(
    sources: Sequence[Path], count: int, seed: int, folder: Path
) -> Iterator[Damaged]:
    """Write `count` damaged files, each when it is asked for."""
    contents = [path.read_bytes() for path in sources]
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        source = sources[number % len(sources)]
        damages, content = damage(contents[number % len(sources)], contents, rng)
        path = folder / f"mutated_{number}{source.suffix}"
        path.write_bytes(content)
        yield Damaged(number=number, source=source.name, damages=damages, path=path)


def read_damaged(
    sources: Sequence[Path], count: int, seed: int, folder: Path, keep: Path | None = None
) -> list[Outcome]:
    """Damage and read `count` files, one after the other."""
    with DecodeProcess() as process:
        return [
            one.outcome(
                *read(process, one.path, ("keyframe", "dense", "exact")[one.number % 3]), keep
            )
            for one in write_damaged(sources, count, seed, folder)
        ]


def scan_damaged(
    sources: Sequence[Path], count: int, seed: int, folder: Path, keep: Path | None = None
) -> list[Outcome]:
    """Damage and scan `count` files, some at a time."""
    card = folder / "card"
    card.mkdir()
    files = write_damaged(sources, count, seed, card)
    outcomes = []
    while batch := [one for one, _ in zip(files, range(SCANNED_AT_ONCE), strict=False)]:
        watch = Watch()
        out = folder / "scanned" / f"{batch[0].number}.geojsonl"
        out.parent.mkdir(exist_ok=True)
        tags: dict[str, list[dict[str, Any]]] = defaultdict(list)
        try:
            run_scan(
                card,
                ScanConfig(out=(str(out),), bundle="demo", fresh=True),
                console=Console("quiet"),
                open_engine=open_engine,
                make_station=lambda watch=watch: WatchedStation(watch),
            )
        finally:
            for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
                tag = json.loads(line)["properties"]
                tags[tag["path"]].append(tag)
        for one in batch:
            code, message = answer(tags[one.path.name])
            outcomes.append(one.outcome(code, message, watch.seconds[one.path.name], keep))
    return outcomes


def answer(tags: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The code and the message of a file's tags, of which there should be one."""
    if len(tags) != 1:
        return "missing" if not tags else "bug", f"{len(tags)} tags"
    (tag,) = tags
    if tag["status"] != "failed":
        return tag["status"], tag["error"] or ""
    code, _, message = tag["error"].partition(": ")
    is_answer = code in get_args(FailureCode) and code != "internal" and len(message.split()) > 3
    return (code if is_answer else "bug"), tag["error"]


class Watch:
    """Seconds that workers spend on each file."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def over(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - started_s


class WatchedStation(RealStation):
    """What a worker of a scan reads with, watched."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(ScanConfig(), ())
        self._watch = watch

    def open_video(self, video: Video, *, decode_threads: int) -> WatchedReader:  # type: ignore[override]
        """Open a video."""
        with self._watch.over(video.name):
            reader = super().open_video(video, decode_threads=decode_threads)
        return WatchedReader(reader, self._watch, video.name)

    def survey(self, video: Video, facts: VideoFacts | None) -> Survey:
        """Read its positions."""
        with self._watch.over(video.name):
            return super().survey(video, facts)


class WatchedReader(ExitStack):
    """An open video, watched."""

    def __init__(self, reader: RemoteReader, watch: Watch, name: str) -> None:
        super().__init__()
        self.facts = reader.facts
        self._reader = self.enter_context(reader)
        self._watch = watch
        self._name = name

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        """Decode one clip."""
        with self._watch.over(self._name):
            return self._reader.read_clip(window, sampling)


def read(process: DecodeProcess, path: Path, policy: Policy) -> tuple[str, str, float]:
    """Open a file and read its clips, as a scan does.  -> code, message, seconds."""
    video = Video(path=path, name=path.name, video_id="", size_bytes=path.stat().st_size)
    sampling = Sampling(
        policy=policy, span_s=SPAN_S, frames=16, height_px=224, width_px=224, max_keyframe_gap_s=2.0
    )
    started_s = time.perf_counter()
    code, message = "ok", ""
    try:
        with process.open_video(video, decode_threads=1) as reader:
            for window in plan_windows(reader.facts.duration_s, SPAN_S, CLIPS):
                clip = reader.read_clip(window, sampling)
                code = "damaged" if clip.damaged else code
    except FootageError as exc:
        code, message = exc.code, exc.message
        if code not in get_args(FailureCode) or len(message.split()) < 4:
            code = "bug"
    except Exception as exc:  # noqa: BLE001 - what this script looks for
        code, message = "bug", repr(exc)
    return code, message, time.perf_counter() - started_s


def damage(
    content: bytes, others: Sequence[bytes], rng: random.Random
) -> tuple[tuple[str, ...], bytes]:
    """Do one to four kinds of damage.  -> their names, the damaged content (at most twice as long).

    Half of the damage falls where the index is, however small a part of the file that is.
    """
    broken = bytearray(content)
    names = rng.choices(list(DAMAGES), k=rng.randint(1, 4))
    for name in names:
        if len(broken) > 16:
            DAMAGES[name](broken, others, rng)
    return tuple(names), bytes(broken[: 2 * len(content)])


def flip_bits(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Flip up to 200 bits, anywhere or close together."""
    start, room = rng.choice(((place(broken, rng), 256), (0, len(broken))))
    for _ in range(rng.choice((1, 10, 200))):
        at = min(start + rng.randrange(room), len(broken) - 1)
        broken[at] ^= 1 << rng.randrange(8)


def cut_off(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Lose the end, or all but the beginning."""
    share = rng.choice((rng.random(), 1 - rng.random() ** 4))
    del broken[max(16, int(len(broken) * share)) :]


def fill(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Overwrite sectors with zeros, ones or noise."""
    start, size = place(broken, rng), 512 * rng.choice((1, 8, 64, 512))
    size = min(size, len(broken) - start)
    value = rng.choice((b"\0", b"\xff", None))
    broken[start : start + size] = value * size if value else rng.randbytes(size)


def splice(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Put a stretch of this or another file in, over what is there or between."""
    other = rng.choice(others)
    begin = place(other, rng)
    part = other[begin : begin + rng.choice((16, 256, 4096, 65536))]
    start = place(broken, rng)
    stop = start + len(part) if rng.random() < 0.5 else start
    broken[start:stop] = part


def double_box(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Repeat a box, or put it in the place of another one."""
    first, second = place(broken, rng), place(broken, rng)
    size = min(int.from_bytes(broken[first : first + 4], "big"), 1 << 20)
    broken[second : second + rng.choice((0, size))] = broken[first : first + max(size, 8)]


def lie_about_size(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Give a box a size that it does not have."""
    start = place(broken, rng)
    size = int.from_bytes(broken[start : start + 4], "big")
    near = (size + rng.randint(-64, 64)) % (1 << 32)
    broken[start : start + 4] = rng.choice((*EXTREMES, near)).to_bytes(4, "big")


def set_number(broken: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    """Write extreme numbers into a box: counts, sizes, times, offsets."""
    start = place(broken, rng)
    for _ in range(rng.choice((1, 1, 3))):
        at = start + 4 * rng.randrange(2, 24)
        if at + 4 <= len(broken):
            broken[at : at + 4] = rng.choice(EXTREMES).to_bytes(4, "big")


DAMAGES: dict[str, Callable[[bytearray, Sequence[bytes], random.Random], None]] = {
    "bits": flip_bits,
    "cut": cut_off,
    "fill": fill,
    "splice": splice,
    "box": double_box,
    "size": lie_about_size,
    "number": set_number,
}


def place(content: bytes | bytearray, rng: random.Random) -> int:
    """Where to do damage: the beginning of a box, or anywhere."""
    names = [match.start() for match in BOXES.finditer(content)]
    if names and rng.random() < 0.7:
        return max(0, rng.choice(names) - 4)
    return rng.randrange(len(content))


def make_videos(folder: Path) -> list[Path]:
    """Small videos of many kinds; every one decodes."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder talks otherwise
    kinds: dict[str, dict[str, Any]] = {
        "plain.mp4": {"container_options": {"movflags": "faststart"}},
        "reordered.mp4": {"b_frames": 2, "audio": True},
        "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        "hevc.mp4": {"codec": "libx265"},
        "deep.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
        "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "13", "svtav1-params": "lp=1"}},
        "jpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
        "reordered.mkv": {"b_frames": 2},
        "stream.ts": {"b_frames": 2},
        "old.avi": {"codec": "mpeg4"},
        "flash.flv": {"codec": "flv"},
        "bare.h264": {"container": "h264", "fps": 25},
    }
    return [
        write_video(folder / name, **({"frames": 90, "gop": 15} | options))
        for name, options in kinds.items()
    ]


def find_sources(folder: Path | None) -> list[Path]:
    """Videos of a folder that are small enough."""
    endings = {".mp4", ".mov", ".mkv", ".ts", ".avi", ".h264"}
    return sorted(
        path
        for path in (folder.rglob("*") if folder else ())
        if path.suffix.lower() in endings and 1000 < path.stat().st_size <= MOST_BYTES
    )


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts, the slowest, and every file that should not be."""
    slowest = max(outcomes, key=lambda one: one.seconds)
    return {
        "files": len(outcomes),
        "outcomes": dict(Counter(one.code for one in outcomes).most_common()),
        "over_10_s": [one.number for one in outcomes if one.seconds > MOST_S],
        "bugs": [[one.number, one.message] for one in outcomes if one.code == "bug"],
        "missing": [one.number for one in outcomes if one.code == "missing"],
        "crashed": [one.number for one in outcomes if one.code == "crashed"],
        "stalled": [one.number for one in outcomes if one.code == "stalled"],
        "slowest": {
            "number": slowest.number,
            "source": slowest.source,
            "damages": slowest.damages,
            "code": slowest.code,
            "seconds": round(slowest.seconds, 2),
        },
        "seconds": round(sum(one.seconds for one in outcomes), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
