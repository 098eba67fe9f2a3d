"""How long does a clip take, side by side with `ffmpeg` decoding the same frames?

    python benchmarks/decode.py                          # about six minutes on two cores
    python benchmarks/decode.py --codecs h264 --sizes 1080p --repeats 3

For each codec and size one video is made (16 s, 30 frames a second, a key frame a second, moving
texture under grain) and kept in the folder of `--videos`. Of each, for the policies `keyframe`
(16 key frames over 16 s) and `dense` (16 frames over 2.5 s, every fifth):

geotag     `open_video` and `read_clip`, in this process;
isolated   the same through `DecodeProcess`, whose child is running already, as in a scan;
ffmpeg     the limit: the `ffmpeg` program on those frames, to the same 224 x 224 RGB pictures with
           the same scaling, as raw bytes through a pipe (`-skip_frame nokey -discard nokey`; `-ss`
           and a count), which is checked. The time of `ffmpeg -version` is taken off: neither
           side pays for starting a process;
full       for scale: every frame of the video decoded, none converted; once per video.

Everything runs in turn in one run, with the same number of decoder threads, from the page cache.
A ratio is the median of the rounds' ratios; above 1 geotag is the slower.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import machine, save
from geotag.footage.clips import Sampling, Window, dense_stride
from geotag.footage.decode import open_video
from geotag.footage.isolation import DecodeProcess
from geotag.types import Clip, Policy, Video

FPS, SECONDS, FRAMES, SIDE_PX = 30, 16, 16, 224
SIZES = {"1080p": (1920, 1080), "4k": (3840, 2160)}
BITS_PER_S = {"1080p": 12_000_000, "4k": 40_000_000}
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": (
        "libx264",
        {
            "preset": "veryfast",
            "x264-params": f"keyint={FPS}:min-keyint={FPS}:scenecut=0:bframes=0",
        },
    ),
    "hevc": (
        "libx265",
        {
            "preset": "ultrafast",
            "x265-params": f"keyint={FPS}:min-keyint={FPS}:scenecut=0:open-gop=0:bframes=0:"
            "log-level=none",
        },
    ),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": f"keyint={FPS}:rc=1"}),
}
WINDOWS: dict[Policy, Window] = {
    "keyframe": Window(start_s=0.0, end_s=float(SECONDS)),
    "dense": Window(start_s=6.75, end_s=9.25),
}
# AV1's decoder does not know the first of these in ffmpeg 5; the demuxer knows the second.
KEY_FRAMES = ["-skip_frame", "nokey", "-discard", "nokey"]
MOST_DIFFERENCE = 2.0
"""Between the two sides' pictures, of 255: two versions of ffmpeg round differently."""
# The flags that geotag scales with, in ffmpeg's words.
SCALE = f"scale={SIDE_PX}:{SIDE_PX}:flags=area+full_chroma_int+accurate_rnd+bitexact"


def main() -> None:
    """Make the videos, run everything in turn, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5, help="rounds, after one uncounted")
    parser.add_argument("--threads", type=int, default=1, help="decoder threads; 1 as in a scan")
    parser.add_argument("--ffmpeg", default=shutil.which("ffmpeg") or "ffmpeg")
    parser.add_argument(
        "--videos",
        type=Path,
        default=Path(tempfile.gettempdir()) / "geotag-benchmark-videos",
        help="where the videos are made, or were",
    )
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    arguments.videos.mkdir(parents=True, exist_ok=True)
    rows = [
        row
        for codec in arguments.codecs
        for size in arguments.sizes
        for row in measure(make_video(arguments.videos, codec, size), codec, size, arguments)
    ]
    report = {
        "rows": rows,
        "worst_ratio_to_ffmpeg": max(row["ratio_to_ffmpeg"] for row in rows),
        "worst_isolated_ratio_to_ffmpeg": max(row["isolated_ratio_to_ffmpeg"] for row in rows),
        "process_start": "excluded on both sides",
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "warm_up_runs": 1,
        "accuracy": "pictures compared with ffmpeg's: mean_difference, of 255",
        **machine(
            "av",
            "numpy",
            versions={
                "its ffmpeg": getattr(av, "ffmpeg_version_info", "unknown"),
                "ffmpeg": run_ffmpeg([arguments.ffmpeg, "-version"]).decode().split()[2],
            },
        ),
    }
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))


def measure(
    path: Path, codec: str, size: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Both policies on one video.  -> a row each, printed as they come."""
    rows = []
    started_s = time.perf_counter()
    decode_all(path, arguments.threads)
    full_s = time.perf_counter() - started_s
    with DecodeProcess() as process:
        for policy in WINDOWS:
            runs = contestants(path, policy, process, arguments.ffmpeg, arguments.threads)
            seconds, results = run_in_turn(runs, arguments.repeats)
            figures = summarise(seconds, results, full_s)
            rows.append({"codec": codec, "size": size, "policy": policy, **figures})
            print_row(rows[-1])
    return rows


def contestants(
    path: Path, policy: Policy, process: DecodeProcess, ffmpeg: str, threads: int
) -> dict[str, Callable[[], Any]]:
    """What runs in turn, by name."""
    video = Video(path=path, name=path.name, video_id="", size_bytes=path.stat().st_size)
    window = WINDOWS[policy]
    sampling = Sampling(
        policy=policy,
        span_s=window.end_s - window.start_s,
        frames=FRAMES,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        max_keyframe_gap_s=2.5,
    )
    command = ffmpeg_command(ffmpeg, path, policy, window, threads)
    return {
        "geotag": lambda: read(open_video, video, window, sampling, threads),
        "isolated": lambda: read(process.open_video, video, window, sampling, threads),
        "ffmpeg": lambda: run_ffmpeg(command),
        "start": lambda: run_ffmpeg([ffmpeg, "-version"]),
    }


def run_in_turn(
    runs: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Seconds of each round after the first, and what each run gave."""
    results = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started_s = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started_s)
    return {name: np.array(values) for name, values in seconds.items()}, results


def summarise(
    seconds: dict[str, NDArray[np.float64]], results: dict[str, Any], full_s: float
) -> dict[str, Any]:
    """Medians, ratios, and how far the pictures are from ffmpeg's."""
    limit_s = seconds["ffmpeg"] - seconds["start"]
    theirs = np.frombuffer(results["ffmpeg"], np.uint8).reshape(-1, SIDE_PX, SIDE_PX, 3)
    mine: Clip = results["geotag"]
    if mine.fallback or theirs.shape != mine.frames_THWC.shape:
        raise RuntimeError(f"not the same frames: {mine!r} {mine.fallback}, {theirs.shape}")
    difference = np.abs(theirs.astype(np.int16) - mine.frames_THWC).mean()
    if difference > MOST_DIFFERENCE:
        raise RuntimeError(f"not the same pictures: they differ by {difference:.1f}")
    return {
        "ratio_to_ffmpeg": round(float(np.median(seconds["geotag"] / limit_s)), 3),
        "isolated_ratio_to_ffmpeg": round(float(np.median(seconds["isolated"] / limit_s)), 3),
        "ratio_to_ffmpeg_with_its_start": round(
            float(np.median(seconds["geotag"] / seconds["ffmpeg"])), 3
        ),
        "full_decoding_over_geotag": round(full_s / float(np.median(seconds["geotag"])), 2),
        "mean_difference": round(float(difference), 3),
        "seconds": {
            name: [round(float(np.percentile(values, at)), 4) for at in (5, 50, 95)]
            for name, values in seconds.items()
        }
        | {"full": [round(full_s, 4)] * 3},
    }


def read(
    opener: Callable[..., Any], video: Video, window: Window, sampling: Sampling, threads: int
) -> Clip:
    """One clip, from opening the file to closing it."""
    with opener(video, decode_threads=threads) as reader:
        clip: Clip = reader.read_clip(window, sampling)
        return clip


def ffmpeg_command(
    ffmpeg: str, path: Path, policy: Policy, window: Window, threads: int
) -> list[str]:
    """What decodes the frames of a clip, and hardly any other."""
    before = KEY_FRAMES if policy == "keyframe" else ["-ss", str(window.start_s)]
    stride = 1 if policy == "keyframe" else dense_stride(window, FRAMES, FPS, SECONDS)
    return [
        *(ffmpeg, "-v", "error", "-nostdin", "-threads", str(threads), *before, "-i", str(path)),
        *("-an", "-sn", "-dn", "-vf", rf"select=not(mod(n\,{stride})),{SCALE}"),
        *("-vsync", "passthrough", "-frames:v", str(FRAMES), "-pix_fmt", "rgb24"),
        *("-f", "rawvideo", "pipe:1"),
    ]


def run_ffmpeg(command: list[str]) -> bytes:
    """Run a program to its end.  -> its output."""
    return subprocess.run(command, capture_output=True, check=True).stdout


def decode_all(path: Path, threads: int) -> int:
    """Decode every frame.  -> how many."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "AUTO", threads
        return sum(1 for _ in container.decode(stream))


def make_video(folder: Path, codec: str, size: str) -> Path:
    """A moving texture under grain, so that every frame has bits, as on a real road."""
    path = folder / f"{codec}_{size}_{SECONDS}s.mp4"
    if path.exists():
        return path
    encoder, options = ENCODERS[codec]
    unfinished = path.with_suffix(".part")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder talks otherwise
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream: Any = container.add_stream(encoder, rate=FPS, options=options)
        stream.width, stream.height = SIZES[size]
        stream.pix_fmt, stream.bit_rate = "yuv420p", BITS_PER_S[size]
        stream.gop_size, stream.codec_context.max_b_frames = FPS, 0
        # Marked, so that both sides convert colours alike: BT.709, limited range.
        stream.codec_context.colorspace = stream.codec_context.color_range = 1
        for index, frame in enumerate(draw_frames(*SIZES[size])):
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    unfinished.rename(path)
    print(f"made {path} ({path.stat().st_size * 8 / SECONDS / 1e6:.1f} Mbit/s)", file=sys.stderr)
    return path


def draw_frames(width_px: int, height_px: int) -> Iterator[av.VideoFrame]:
    """Frames of the video, in YUV 4:2:0."""
    rng = np.random.default_rng(0)
    cell_px, move = height_px // 20, height_px // 150
    cells = rng.integers(40, 200, (3, 30, 70), np.uint8).repeat(cell_px, 1).repeat(cell_px, 2)
    grain = rng.normal(0, 5, (height_px + 64, width_px + 64)).astype(np.int8)
    for index in range(FPS * SECONDS):
        x, y = (move * index) % (cell_px * 30), (move * index // 3) % (cell_px * 9)
        dx, dy = rng.integers(0, 64, 2)
        luma = cells[0, y : y + height_px, x : x + width_px].view(np.int8)
        noisy = (luma + grain[dy : dy + height_px, dx : dx + width_px]).view(np.uint8)
        chroma = cells[1:, y : y + height_px : 2, x : x + width_px : 2]
        rows = np.concatenate([noisy.ravel(), chroma.ravel()]).reshape(-1, width_px)
        yield av.VideoFrame.from_ndarray(rows, format="yuv420p")


def print_row(row: dict[str, Any]) -> None:
    """One line for people."""
    median_ms = {name: 1000 * values[1] for name, values in row["seconds"].items()}
    times = ", ".join(f"{name} {value:.0f}" for name, value in median_ms.items())
    print(
        f"{row['codec']:5s}{row['size']:6s}{row['policy']:9s} {row['ratio_to_ffmpeg']:.2f}x "
        f"ffmpeg's time ({row['isolated_ratio_to_ffmpeg']:.2f}x isolated)   ms: {times}",
        flush=True,
    )


if __name__ == "__main__":
    main()
