"""Does a scan of a whole card stay as quick per file, and as small, however many files it holds?

    python benchmarks/card.py --footage ../shared/footage   # about twenty minutes on two cores
    python benchmarks/card.py --sizes 50,100 --resume 500   # made videos alone, a minute or two

A card is made of links to twenty videos (those of `--footage` that are small enough, and made
ones, a damaged one among them) under the names of seven makers; every second file has its
positions beside it, as GPX or NMEA. The installed `geotag scan` reads it in a process of its own.

Per size: wall time for each file, and the memory of the process and all its children together
(proportional set size: what they share counts once), seen four times a second: the peak, and the
means of the second and the last quarter of the run, which tell whether it grows. Scanned with
`--fresh`: twenty contents under 2,000 names would otherwise be read twenty times.

Then a card of `--resume` files twice, without `--fresh`: how long the second scan takes, which
has to give the same bytes and to start no process for decoding or for ExifTool.

Exit status 1 if a figure misses what is asked for: 700 MB, 10 s for the second scan of 10,000
files, and time for each file within a half of that of the smallest card.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.record import machine, save
from tests.media import drop_moov, write_video
from tests.process import geotag_command, geotag_environ

SOURCES = 20
MADE = 7
MOST_SOURCE_BYTES = 6_000_000
MOST_MIB = 700e6 / (1 << 20)
MOST_RESUME_S = 10.0
MOST_GROWTH = 1.5
POLL_S = 0.25
SETTLE_S = 3.0
"""A file changed just before is read again, since it may be changing still."""
START = datetime(2026, 1, 12, 8, 0, tzinfo=timezone.utc)
CLIP_S, BLOCK = 60, 50
"""Length of a clip by its name, and files of one maker in a row."""

Name = Callable[[datetime, int], str]
VENDORS: tuple[Name, ...] = (
    lambda at, n: f"BlackVue/Record/{at:%Y%m%d_%H%M%S}_NF.mp4",
    lambda at, n: f"DCIM/Movie/{at:%Y_%m%d_%H%M%S}_{n:04}F.MP4",
    lambda at, n: f"70mai/Normal/Front/NO{at:%Y%m%d-%H%M%S}-{n:06}F.MP4",
    lambda at, n: f"Nextbase/DCIM/MOVIE/{at:%y%m%d_%H%M%S}_{n % 1000:03}_FH.MP4",
    lambda at, n: f"Thinkware/cont_rec/REC_{at:%Y_%m_%d_%H_%M_%S}_F.MP4",
    lambda at, n: f"TeslaCam/RecentClips/{at:%Y-%m-%d_%H-%M-%S}-front.mp4",
    lambda at, n: f"other/{at:%Y-%m-%d}/clip {n:05}.mp4",
)


@dataclass(slots=True)
class Run:
    """One scan, watched from outside."""

    wall_s: float
    code: int
    mib: list[float] = field(default_factory=list)
    """Memory of the process and its children, each POLL_S."""
    most_readers: int = 0
    error: str = ""


def main() -> int:
    """Make the cards, scan them, print the table and the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="100,500,2000", help="files of the cards")
    parser.add_argument("--resume", type=int, default=10_000, help="files of the card read twice")
    parser.add_argument("--footage", type=Path, help="folder of real videos to link to")
    parser.add_argument("--bundle", default="demo", help="model to look at pictures with")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geotag-card-") as name:
        folder = Path(name)
        sources = make_sources(folder / "sources", arguments.footage)
        time.sleep(SETTLE_S)
        sizes = [int(size) for size in arguments.sizes.split(",") if size]
        curve = [measure_size(folder, sources, size, arguments.bundle) for size in sizes]
        resumed = (
            measure_resume(folder, sources, arguments.resume, arguments.bundle)
            if arguments.resume
            else None
        )
    misses = missed(curve, resumed)
    report = {
        "curve": curve,
        "resume": resumed,
        "missed": misses,
        "sources": [source.name for source in sources],
        "bundle": arguments.bundle,
        **machine("av", "numpy"),
    }
    print("all figures are as asked for" if not misses else "MISSED: " + "; ".join(misses))
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if misses else 0


def measure_size(folder: Path, sources: Sequence[Path], count: int, bundle: str) -> dict[str, Any]:
    """Scan a card of a size, reading every file."""
    card = make_card(folder / f"card-{count}", sources, count)
    out = folder / f"tags-{count}.geojsonl"
    run = watch(["scan", str(card), "-b", bundle, "-o", str(out), "--fresh", "-q"], cwd=folder)
    quarter = len(run.mib) // 4
    row = {
        "files": count,
        "wall_s": round(run.wall_s, 2),
        "s_per_file": round(run.wall_s / count, 4),
        "peak_mib": round(max(run.mib, default=0.0)),
        "second_quarter_mib": round(statistics.mean(run.mib[quarter : 2 * quarter] or [0])),
        "last_quarter_mib": round(statistics.mean(run.mib[3 * quarter :] or [0])),
        **described(out, run),
    }
    print(
        f"{count:6d} files  {row['wall_s']:8.1f} s  {1000 * row['s_per_file']:6.0f} ms a file  "
        f"peak {row['peak_mib']} MiB, second quarter {row['second_quarter_mib']}, last "
        f"{row['last_quarter_mib']}  {row['status']} {row['located']}",
        flush=True,
    )
    return row


def measure_resume(
    folder: Path, sources: Sequence[Path], count: int, bundle: str
) -> dict[str, Any]:
    """Scan a card twice."""
    card = make_card(folder / f"resume-{count}", sources, count)
    out = folder / "resumed" / "tags.geojsonl"
    out.parent.mkdir()
    command = ["scan", str(card), "-b", bundle, "-o", str(out), "-q"]
    first = watch(command, cwd=folder)
    before = out.read_bytes() if out.exists() else b""
    second = watch(command, cwd=folder)
    row = {
        "files": count,
        "first_s": round(first.wall_s, 2),
        "second_s": round(second.wall_s, 2),
        "second_peak_mib": round(max(second.mib, default=0.0)),
        "second_readers": second.most_readers,
        "same_bytes": before != b"" and out.read_bytes() == before,
        "ledger_mib": round(
            sum(path.stat().st_size for path in out.parent.glob(".geotag-ledger*")) / (1 << 20), 1
        ),
        **described(out, second),
    }
    print(
        f"{count:6d} files  {row['first_s']:8.1f} s, again {row['second_s']:.1f} s with "
        f"{row['second_readers']} processes that read, same bytes: {row['same_bytes']}, ledger "
        f"{row['ledger_mib']} MiB",
        flush=True,
    )
    return row


def missed(curve: Sequence[dict[str, Any]], resumed: dict[str, Any] | None) -> list[str]:
    """What is not as it is asked for."""
    misses = []
    for row in curve:
        if row["tags"] != row["files"]:
            misses.append(f"{row['tags']} tags for {row['files']} files: {row['error']}")
        if row["peak_mib"] > MOST_MIB:
            misses.append(f"{row['peak_mib']} MiB for {row['files']} files")
        if row["s_per_file"] > MOST_GROWTH * curve[0]["s_per_file"]:
            misses.append(f"{row['s_per_file']} s a file for {row['files']} files")
    if resumed is not None:
        if resumed["second_s"] > MOST_RESUME_S:
            misses.append(f"{resumed['second_s']} s for the second scan")
        if not resumed["same_bytes"] or resumed["tags"] != resumed["files"]:
            misses.append(f"another result of the second scan: {resumed['error']}")
        if resumed["second_readers"]:
            misses.append("the second scan started processes")
    return misses


def make_sources(folder: Path, footage: Path | None) -> list[Path]:
    """Twenty videos, real ones as far as there are any, and made ones."""
    folder.mkdir(parents=True)
    real = [] if footage is None else find_real(footage)[: SOURCES - MADE]
    made = [make_video(folder, number) for number in range(SOURCES - len(real))]
    return [*real, *made]


def find_real(footage: Path) -> list[Path]:
    """Videos below a folder that are small enough, one of each folder in turn; none of `bad`."""
    endings = {".mp4", ".mov", ".mkv", ".ts", ".avi"}
    found = sorted(
        path.resolve()
        for path in footage.rglob("*")
        if path.suffix.lower() in endings
        and "bad" not in path.relative_to(footage).parts
        and path.stat().st_size <= MOST_SOURCE_BYTES
    )
    place = {
        path: [one.parent for one in found[: found.index(path)]].count(path.parent)
        for path in found
    }
    return sorted(found, key=lambda path: (place[path], path))


def make_video(folder: Path, number: int) -> Path:
    """A made video of its own size, length and codec; the first is damaged."""
    sizes = ((640, 360), (1280, 720), (192, 128), (960, 540))
    path = folder / f"made-{number:02}.mp4"
    write_video(
        path,
        frames=60 + 15 * number,
        fps=15,
        size=sizes[number % len(sizes)],
        codec="libx265" if number % 5 == 4 else "libx264",
        options={"x265-params": "log-level=none"} if number % 5 == 4 else None,
        audio=number % 3 == 1,
    )
    return drop_moov(path) if number == 0 else path


def make_card(card: Path, sources: Sequence[Path], count: int) -> Path:
    """Link to the sources under the names that cameras give, positions beside every second."""
    for number in range(count):
        block = number // BLOCK
        at = START + timedelta(days=block, seconds=CLIP_S * (number % BLOCK))
        name = VENDORS[block % len(VENDORS)](at, number)
        path = card / f"card{block // len(VENDORS):03}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(sources[number % len(sources)])
        if (number + number // len(sources)) % 2:
            write = write_gpx if number % 4 < 2 else write_nmea
            write(path, at, 47.0 + 0.2 * (block % 20), 11.0 + 0.009 * (number % BLOCK))
    return card


def write_gpx(video: Path, at: datetime, lat_deg: float, lon_deg: float) -> None:
    """A fix a second, driving north."""
    points = "".join(
        f'<trkpt lat="{lat_deg + 1e-4 * second:.7f}" lon="{lon_deg:.7f}">'
        f"<time>{at + timedelta(seconds=second):%Y-%m-%dT%H:%M:%SZ}</time></trkpt>\n"
        for second in range(CLIP_S)
    )
    text = (
        '<?xml version="1.0"?>\n<gpx version="1.1" creator="made" '
        'xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>\n'
        f"{points}</trkseg></trk></gpx>\n"
    )
    video.with_suffix(".gpx").write_text(text, encoding="utf-8")


def write_nmea(video: Path, at: datetime, lat_deg: float, lon_deg: float) -> None:
    """The same as RMC sentences."""
    lines = []
    for second in range(CLIP_S):
        time_utc = at + timedelta(seconds=second)
        north = f"{nmea_angle(lat_deg + 1e-4 * second, 2)},N"
        body = (
            f"GPRMC,{time_utc:%H%M%S}.00,A,{north},{nmea_angle(lon_deg, 3)},E,21.6,0.0,"
            f"{time_utc:%d%m%y},,"
        )
        check = 0
        for byte in body.encode("ascii"):
            check ^= byte
        lines.append(f"${body}*{check:02X}\r\n")
    video.with_suffix(".nmea").write_text("".join(lines), encoding="ascii", newline="")


def nmea_angle(angle_deg: float, digits: int) -> str:
    """Whole degrees, then minutes."""
    degrees, rest = divmod(angle_deg, 1.0)
    return f"{int(degrees):0{digits}}{60 * rest:08.5f}"


def watch(arguments: Sequence[str], *, cwd: Path) -> Run:
    """Run the installed `geotag`, and look at its processes."""
    started_s = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*geotag_command(), *arguments],
            cwd=cwd,
            env=geotag_environ(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        run = Run(wall_s=0.0, code=0)
        ended = threading.Event()
        watcher = threading.Thread(target=poll, args=(process.pid, run, ended))
        watcher.start()
        run.code = process.wait()
        run.wall_s = time.perf_counter() - started_s
        ended.set()
        watcher.join()
        errors.seek(0)
        run.error = errors.read()[-500:]
    return run


def poll(pid: int, run: Run, ended: threading.Event) -> None:
    """Note memory and children of a process until it has ended."""
    while not ended.wait(POLL_S):
        tree = descendants(pid)
        run.mib.append(sum(memory_mib(one) for one in (pid, *tree)))
        run.most_readers = max(run.most_readers, sum(map(is_reader, tree)))


def descendants(pid: int) -> list[int]:
    """Children of a process, theirs, and so on."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def memory_mib(pid: int) -> float:
    """What a process has in memory, its part of what it shares; 0 once it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def is_reader(pid: int) -> bool:
    """Whether a process decodes, or is an ExifTool that waits for files."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"decode_worker" in words or b"-stay_open" in words


def described(out: Path, run: Run) -> dict[str, Any]:
    """What a scan wrote."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    tags = [json.loads(line)["properties"] for line in lines]
    return {
        "exit_code": run.code,
        "tags": len(tags),
        "status": dict(sorted(Counter(tag["status"] for tag in tags).items())),
        "located": dict(sorted(Counter(tag["location_source"] for tag in tags).items())),
        "error": run.error if len(tags) == 0 else "",
    }


if __name__ == "__main__":
    sys.exit(main())
