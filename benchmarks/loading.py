"""Do packed clips feed training, and what does each step cost?

    python benchmarks/loading.py             # about a minute

Clips of 16 frames of smooth noise, as detailed as footage of a dashcam (a 256-px JPEG of quality
90 takes 17 kB, as those of real drives do), are packed into a temporary folder as `python -m
train.pack` does it, and read at 16x224x224: as evaluation reads them, as training does, and one
frame in six of clips that store 96. Times are processor time of one core.

Beside it, on the very same stored pictures: each way to decode one that was tried, and to resize
it. At last the memory of a process before and after it has read 10,000 clips.

Exit status 1 if a figure misses what is asked for: 150 clips a second and core, 16 MB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.record import machine, save
from geotag.places.hierarchy import build_hierarchy
from geotag.places.lists import make_places, places_text
from train.data.dataset import Augmentation, BadSample, Entry, Sample, View
from train.data.packing import pack
from train.data.pictures import encode_picture
from train.data.shards import open_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy

LEAST_CLIPS_PER_S, MOST_GROWTH_MB = 150.0, 16.0
FRAMES, STORED_PX, READ_PX = 16, 256, 224
LONG_CLIP = 96
READS = 10_000
SHARE_OF_NOISE = 0.043
"""Of fine noise over smooth colours, such that a picture compresses like one of a dashcam."""
AUGMENTATION = Augmentation(least_crop=0.6, colour_jitter=0.2, mask_prob=0.3)


def main() -> int:
    """Measure, print a table and the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=128, help="clips packed")
    parser.add_argument("--repeats", type=int, default=7, help="times that each is read")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="geotag-loading-") as name:
        folder = Path(name)
        pack(NoiseClips(arguments.clips), folder / "short", "train")
        pack(NoiseClips(arguments.clips // 8, LONG_CLIP), folder / "long", "train")
        rates = time_reading(folder, arguments.repeats)
        growth_mb = memory_growth_mb(folder / "short")
    pictures = [noise(index, STORED_PX) for index in range(64)]
    report: dict[str, Any] = {
        "clips_per_s_per_core": rates,
        "decode_us": time_decoding(pictures, arguments.repeats),
        "resize_us": time_resizing(pictures, arguments.repeats),
        "stored_bytes": round(statistics.mean(len(encode_picture(one, 90)) for one in pictures)),
        "memory_growth_mb": growth_mb,
    }
    report["missed"] = missed(report)
    report |= machine(
        "numpy",
        "opencv-python-headless",
        "pillow",
        "simplejpeg",
        load=round(os.getloadavg()[0], 2),
    )
    print(table(report))
    print("all figures are as asked for" if not report["missed"] else f"MISSED: {report['missed']}")
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if report["missed"] else 0


def missed(report: dict[str, Any]) -> list[str]:
    """What is not as it is asked for."""
    rate = report["clips_per_s_per_core"]["evaluation"]["median"]
    found = [f"evaluation {rate} clips/s"] if rate < LEAST_CLIPS_PER_S else []
    if report["memory_growth_mb"] > MOST_GROWTH_MB:
        found.append(f"memory_growth_mb {report['memory_growth_mb']}")
    return found


def table(report: dict[str, Any]) -> str:
    """For people."""
    lines = [f"clips/s and core at {FRAMES}x{READ_PX}x{READ_PX}     median     p5    p95"]
    lines += [
        f"  {name:34} {rate['median']:8} {rate['p5']:6} {rate['p95']:6}"
        for name, rate in report["clips_per_s_per_core"].items()
    ]
    for what in ("decode", "resize"):
        lines.append(f"{what} one stored picture, microseconds")
        lines += [f"  {name:34} {time_us:8}" for name, time_us in report[f"{what}_us"].items()]
    lines.append(
        f"a stored picture takes {report['stored_bytes']} bytes; memory grew by "
        f"{report['memory_growth_mb']} MB over {READS:,} clips"
    )
    return "\n".join(lines)


@dataclass
class NoiseClips:
    """Clips of noise: a dataset to pack."""

    clips: int
    frames: int = FRAMES
    name: str = "noise"

    @property
    def places_csv(self) -> str:
        """Of one city."""
        return places_text(make_places("166").rows[:1])

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """Of one city."""
        return build_hierarchy(make_places("166").rows[:1], source="noise")

    @property
    def entries(self) -> list[Entry]:
        """By number."""
        return [Entry(name=str(at), city_id=0, group=str(at)) for at in range(self.clips)]

    def count_frames(self, index: int) -> int:
        """As many in every clip."""
        return self.frames

    def read(self, index: int, view: View) -> Sample | BadSample:
        """A clip whose frames are all different."""
        clip = [noise(index * self.frames + at, view.image_px) for at in range(view.frames)]
        return Sample(clip_THWC=np.stack(clip), city_id=0)


def noise(seed: int, side_px: int) -> NDArray[np.uint8]:
    """A picture as smooth, and as detailed, as one of a street."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(
        rng.integers(0, 256, (12, 12, 3), dtype=np.uint8),
        (side_px, side_px),
        interpolation=cv2.INTER_CUBIC,
    )
    fine = rng.integers(0, 256, (side_px, side_px, 1), dtype=np.uint8).repeat(3, axis=2)
    return cv2.addWeighted(smooth, 1 - SHARE_OF_NOISE, fine, SHARE_OF_NOISE, 0)


def time_reading(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Clips a second of one core, in turn."""
    short, long = open_shards(folder / "short", "train"), open_shards(folder / "long", "train")
    plain = View(frames=FRAMES, image_px=READ_PX)
    training = View(frames=FRAMES, image_px=READ_PX, augmentation=AUGMENTATION, seed=0)
    ways = {
        "evaluation": (short, plain),
        "training, disturbed": (short, training),
        f"{FRAMES} of {LONG_CLIP} stored frames": (long, plain),
        "at the stored size, 256 px": (short, View(frames=FRAMES, image_px=STORED_PX)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, (dataset, view) in ways.items():
            started_s = time.process_time()
            for index in range(len(dataset.entries)):
                if isinstance(dataset.read(index, view), BadSample):
                    raise RuntimeError("a clip came back damaged")
            if repeat:  # the first is for warming up
                rates[name].append(len(dataset.entries) / (time.process_time() - started_s))
    return {
        name: {
            "median": round(statistics.median(found), 1),
            "p5": round(float(np.percentile(found, 5)), 1),
            "p95": round(float(np.percentile(found, 95)), 1),
        }
        for name, found in rates.items()
    }


def time_decoding(pictures: Sequence[NDArray[np.uint8]], repeats: int) -> dict[str, float]:
    """Microseconds a picture of every way that was tried."""
    stored = [encode_picture(picture, 90) for picture in pictures]
    worse = [encode_picture(picture, 75) for picture in pictures]
    mosaics = [
        encode_picture(np.concatenate(pictures[at : at + FRAMES]), 90)
        for at in range(0, len(pictures), FRAMES)
    ]

    def opencv(jpeg: bytes) -> object:
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)

    def pillow(jpeg: bytes) -> object:
        return np.asarray(Image.open(io.BytesIO(jpeg)))

    def to_224(jpeg: bytes) -> object:
        return simplejpeg.decode_jpeg(jpeg, min_height=READ_PX, min_width=READ_PX)

    def fast(jpeg: bytes) -> object:
        return simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True)

    times = {
        "simplejpeg (what is used)": timed(simplejpeg.decode_jpeg, stored, repeats),
        "simplejpeg, quality 75": timed(simplejpeg.decode_jpeg, worse, repeats),
        "simplejpeg, inexact arithmetic": timed(fast, stored, repeats),
        "simplejpeg, scaled to 224 px": timed(to_224, stored, repeats),
        "OpenCV": timed(opencv, stored, repeats),
        "Pillow": timed(pillow, stored, repeats),
    }
    mosaic_us = timed(simplejpeg.decode_jpeg, mosaics, repeats)
    return times | {f"simplejpeg, one of a mosaic of {FRAMES}": round(mosaic_us / FRAMES, 1)}


def time_resizing(pictures: Sequence[NDArray[np.uint8]], repeats: int) -> dict[str, float]:
    """Microseconds a picture from 256 to 224 px."""
    size = (READ_PX, READ_PX)
    return {
        "OpenCV, linear (what is used)": timed(
            lambda one: cv2.resize(one, size, interpolation=cv2.INTER_LINEAR), pictures, repeats
        ),
        "OpenCV, averaging areas": timed(
            lambda one: cv2.resize(one, size, interpolation=cv2.INTER_AREA), pictures, repeats
        ),
        "Pillow, linear": timed(
            lambda one: Image.fromarray(one).resize(size, Image.Resampling.BILINEAR),
            pictures,
            repeats,
        ),
    }


def timed(way: Callable[[Any], object], items: Sequence[Any], repeats: int) -> float:
    """Median microseconds of processor time an item."""
    found = []
    for repeat in range(repeats + 1):
        started_s = time.process_time()
        for item in items:
            way(item)
        if repeat:
            found.append(1e6 * (time.process_time() - started_s) / len(items))
    return round(statistics.median(found), 1)


def memory_growth_mb(folder: Path) -> float:
    """How much larger this process is after READS clips than after the first thousand."""
    dataset = open_shards(folder, "train")
    view = View(frames=FRAMES, image_px=READ_PX)
    count = len(dataset.entries)
    for index in range(1000):
        dataset.read(index % count, view)
    before_mb = resident_mb()
    for index in range(READS):
        dataset.read(index * 7 % count, view)
    return round(resident_mb() - before_mb, 1)


def resident_mb() -> float:
    """Memory of this process that is not swapped out."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
