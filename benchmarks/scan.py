"""How fast is a scan, side by side with the obvious way to write it and with the limit.

    python benchmarks/scan.py                     # about six minutes on two cores
    python benchmarks/scan.py --precision fp32
    python benchmarks/scan.py --repeats 1         # quicker and noisier

Same folder of videos, same clips, same `small` network with the same (random) weights:

a  geotag: `geotag.scan.scan` on the folder, three clips a video, in the precision that is asked for
   (int8 of random weights is as fast as any other), the start of the decoding processes included;
b  what the `transformers` documentation shows: PyAV decodes every frame from the start, the wanted
   ones become arrays, `VideoMAEImageProcessor`, the eager PyTorch model. Decoding is done once for
   the three clips of a video, which is kinder than the documentation's one pass per clip;
c  the limit: those frames, and what they depend on, decoded on all cores and thrown away, plus the
   engine alone on that many clips.

Neither loading the network nor importing libraries into this process is counted for any of them.
The videos are made here: 60 s, 1920x1080, H.264, a key frame a second, about 12 Mbit/s. geotag may
begin a dense clip up to a second earlier than b and c, with a key frame, and passes over pictures
that nothing refers to: what it saves that way is no part of the limit.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.stream import VideoStream
from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

from benchmarks.record import machine, save
from calibration.ranges import observe
from calibration.recipe import NAIVE, quantize_model
from engines.base import Engine, EngineChoice
from engines.bundle import (
    GRAPHS,
    LEVELS,
    PRECISIONS,
    Bundle,
    InputSpec,
    LevelCalibration,
    Manifest,
    PolicyAccuracy,
    Precision,
    SamplingSpec,
    describe_file,
    read_bundle,
    write_manifest,
)
from engines.choose import open_engine, usable_cores
from geotag.config import ScanConfig
from geotag.footage.clips import Window, plan_windows, wanted_times
from geotag.footage.discover import discover
from geotag.model import Model
from geotag.places.gazetteer import Gazetteer, read_gazetteer
from geotag.places.hierarchy import Hierarchy, read_hierarchy
from geotag.scan import scan
from geotag.types import Policy
from geotag.wish import PrecisionWish
from train.models.geolocator import Geolocator
from train.models.videomae import SIZES, load_transformers_state
from train.onnx_graph import export_onnx
from train.precisions import write_int8

CLIPS = 3
SPANS_S: dict[Policy, float] = {"keyframe": 21.0, "dense": 2.5}
CITIES = 166


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestants:
    """Everything that is loaded before the clock starts."""

    folder: Path
    videos: tuple[Path, ...]
    duration_s: float
    bundle: Bundle
    hierarchy: Hierarchy
    engine: Engine
    choice: EngineChoice
    gazetteer: Gazetteer
    eager: VideoMAEModel
    processor: VideoMAEImageProcessor


def main() -> None:
    """Make the video and the models, run everything in turn, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of a, b, c per policy")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the video")
    parser.add_argument("--videos", type=int, default=5, help="how many")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="of geotag")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contestants = load(Path(folder), arguments.seconds, arguments.videos, arguments.precision)
        figures = {
            policy: measure(contestants, policy, span_s, arguments.repeats)
            for policy, span_s in SPANS_S.items()
        }
        name = contestants.choice.name
        contestants.engine.close()
    report = {
        **figures.pop("keyframe"),
        "other": figures["dense"],
        "precision": arguments.precision,
        "engine": name,
        "clips": CLIPS,
        "repeats": arguments.repeats,
        "warm_up_runs": 1,
        "accuracy": "none: random weights, for timing only",
        "videos": f"{arguments.videos} of {arguments.seconds:g} s 1920x1080 H.264, 1 s key frames",
        **machine(
            "av",
            "numpy",
            "openvino",
            "torch",
            threads="all cores, for each of the three",
            peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        ),
    }
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))


def measure(
    contestants: Contestants, policy: Policy, span_s: float, repeats: int
) -> dict[str, Any]:
    """Run the three in turn, `repeats` times after one uncounted geotag scan.  Medians."""
    windows = plan_windows(contestants.duration_s, span_s, CLIPS)
    runs: dict[str, Callable[[], object]] = {
        "geotag": lambda: run_geotag(contestants, policy),
        "transformers": lambda: [
            run_transformers(contestants, path, windows) for path in contestants.videos
        ],
        "decode_limit": lambda: [decode_only(path, policy, windows) for path in contestants.videos],
        "engine_limit": lambda: run_engine(contestants.engine, CLIPS * len(contestants.videos)),
    }
    run_geotag(contestants, policy)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started_s = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started_s)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    limit_s = median["decode_limit"] + median["engine_limit"]
    figures = {
        "policy": policy,
        "span_s": span_s,
        "hours_per_hour": round(
            contestants.duration_s * len(contestants.videos) / median["geotag"], 2
        ),
        "ratio_to_transformers": round(median["transformers"] / median["geotag"], 2),
        "share_of_limit": round(limit_s / median["geotag"], 3),
        "seconds": {name: round(value, 3) for name, value in median.items()},
    }
    print(f"{policy}, {CLIPS} clips of {span_s:g} s, {len(contestants.videos)} videos")
    for name, value in median.items():
        spread = f"{min(seconds[name]):.2f}-{max(seconds[name]):.2f}"
        print(f"  {name:14s} {value:7.2f} s   ({spread})")
    print(
        f"  {figures['hours_per_hour']} hours of footage an hour, "
        f"{figures['ratio_to_transformers']}x transformers, "
        f"{100 * figures['share_of_limit']:.0f} % of the limit"
    )
    return figures


def run_geotag(contestants: Contestants, policy: Policy) -> None:
    """a: one scan, everything included but the loading of the model."""
    config = ScanConfig(clips=CLIPS, sampling=policy)
    model = Model(
        contestants.bundle, contestants.hierarchy, contestants.engine, contestants.choice, config
    )
    found = discover(contestants.folder)
    tags = list(scan(found, model=model, gazetteer=contestants.gazetteer, config=config))
    if len(tags) != len(contestants.videos) or any(tag.clips != CLIPS for tag in tags):
        raise RuntimeError(f"the scan gave {tags}")


def run_transformers(contestants: Contestants, path: Path, windows: tuple[Window, ...]) -> None:
    """b: decode every frame, keep those wanted, processor, eager model, clip by clip."""
    frames = SIZES["small"].frames
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 30)
        indices = [[round(t * rate) for t in wanted_times(w, frames)] for w in windows]
        wanted = {index for clip in indices for index in clip}
        kept = {
            index: frame.to_ndarray(format="rgb24")
            for index, frame in enumerate(container.decode(video=0))
            if index in wanted
        }
    for clip in indices:
        inputs = contestants.processor([kept[index] for index in clip], return_tensors="pt")
        with torch.no_grad():
            contestants.eager(**inputs).last_hidden_state.mean(dim=1)


def decode_only(path: Path, policy: Policy, windows: tuple[Window, ...]) -> int:
    """c, first half: the frames of the clips and what they depend on, nothing else.  -> frames."""
    decode = _decode_key_frames if policy == "keyframe" else _decode_until
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.thread_count = usable_cores()
        return sum(decode(container, stream, window) for window in windows)


def _decode_key_frames(container: InputContainer, stream: VideoStream, window: Window) -> int:
    """One key frame a second: each wanted time has its own nearest one; no other packet goes in."""
    wanted_s = sorted({round(t) for t in wanted_times(window, SIZES["small"].frames)})
    container.seek(int(wanted_s[0] / stream.time_base), stream=stream)
    decoded = 0
    for packet in container.demux(stream):
        at_s = -1.0 if packet.pts is None else float(packet.pts * packet.time_base)
        if packet.is_keyframe and round(at_s) in wanted_s:
            decoded += len(packet.decode())
        if at_s >= wanted_s[-1]:
            break
    return decoded + len(stream.decode(None))


def _decode_until(container: InputContainer, stream: VideoStream, window: Window) -> int:
    last_s = float(wanted_times(window, SIZES["small"].frames)[-1])
    container.seek(int(window.start_s / stream.time_base), stream=stream)
    decoded = 0
    for frame in container.decode(stream):
        decoded += 1
        if frame.time >= last_s:
            break
    return decoded


def run_engine(engine: Engine, clips: int) -> None:
    """c, second half: the engine alone on as many clips."""
    config = SIZES["small"]
    shape = (1, config.frames, config.image_px, config.image_px, 3)
    for _ in range(clips):
        engine.infer(np.zeros(shape, np.uint8))


def load(folder: Path, duration_s: float, count: int, precision: Precision) -> Contestants:
    """Make the videos, one network in both forms, and open the engine."""
    card = folder / "card"
    card.mkdir()
    videos = tuple(card / f"drive{number}.mp4" for number in range(count))
    for number, path in enumerate(videos):
        make_video(path, duration_s, seed=number)
    torch.manual_seed(0)
    eager = VideoMAEModel(
        VideoMAEConfig(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536
        )
    ).eval()
    bundle = make_bundle(folder / "bundle", eager, precision)
    engine, choice = open_engine(bundle, precision=precision)
    return Contestants(
        folder=card,
        videos=videos,
        duration_s=duration_s,
        bundle=bundle,
        hierarchy=read_hierarchy(bundle.file("places.csv")),
        engine=engine,
        choice=choice,
        gazetteer=read_gazetteer(),
        eager=eager,
        processor=VideoMAEImageProcessor(
            image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
        ),
    )


def make_video(path: Path, duration_s: float, fps: int = 30, seed: int = 0) -> None:
    """A moving picture under sensor noise: the bits go to every frame, as on a real road."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (40, 120, 3)).repeat(54, 0).repeat(54, 1).astype(np.int16)
    noise = rng.normal(0, 5, (1080 + 64, 1920 + 64, 3)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "g": str(fps), "keyint_min": str(fps), "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.bit_rate = 12_000_000
        for index in range(round(duration_s * fps)):
            x, y = (7 * index) % (coarse.shape[1] - 1920), (3 * index) % (coarse.shape[0] - 1080)
            dx, dy = rng.integers(0, 64, 2)
            grain = noise[dy : dy + 1080, dx : dx + 1920]
            pixels = np.clip(coarse[y : y + 1080, x : x + 1920] + grain, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    megabits = path.stat().st_size * 8 / duration_s / 1e6
    print(f"made {duration_s:g} s of 1920x1080 at {fps} fps, {megabits:.1f} Mbit/s")


def make_bundle(folder: Path, eager: VideoMAEModel, precision: Precision) -> Bundle:
    """A bundle of `small` with the weights of `eager` and random heads over invented places."""
    folder.mkdir()
    classes = {**dict.fromkeys(LEVELS, CITIES), "scene": 16}
    model = Geolocator(SIZES["small"], classes).eval()
    load_transformers_state(model.encoder, eager.state_dict())
    export_onnx(model, folder / "model.onnx")
    graphs = {"fp32": "model.onnx"}
    if precision == "int8":
        write_noise_int8(model, folder)
        graphs["int8"] = GRAPHS["int8"]
    rows = [f"c{i},s{i},n{i},k{i},0,{i / 10}" for i in range(CITIES)]
    header = "city,state,country,continent,lat_deg,lon_deg"
    (folder / "places.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("Random weights, for timing only.\n", encoding="utf-8")
    # A claim threshold of 1 keeps every clip: nothing is ever sure enough to stop early.
    calibration = {level: LevelCalibration(temperature=1.0, threshold_prob=1.0) for level in LEVELS}
    manifest = Manifest(
        name="timing",
        description="random weights, for timing only",
        domain="road",
        input=InputSpec(frames=16, height_px=224, width_px=224),
        outputs={**classes, "feature": 384},
        scenes=tuple(f"scene {index}" for index in range(16)),
        sampling=SamplingSpec(
            min_span_s=2.0,
            max_span_s=25.0,
            max_keyframe_gap_s=2.5,
            clips=CLIPS,
            policies=tuple(
                PolicyAccuracy(policy=policy, span_s=span_s, city_top1=0, country_top1=0, clips=0)
                for policy, span_s in SPANS_S.items()
            ),
        ),
        calibration={"marginal": calibration},
        files={
            **{name: describe_file(folder / name, precision=kind) for kind, name in graphs.items()},
            "places.csv": describe_file(folder / "places.csv"),
            "MODEL_CARD.md": describe_file(folder / "MODEL_CARD.md"),
        },
        training={},
        licence="none",
    )
    write_manifest(folder, manifest)
    return read_bundle(folder)


def write_noise_int8(model: Geolocator, folder: Path) -> None:
    """The int8 graph, calibrated on noise: its answers mean as little as those of the weights."""
    config, families = model.config, model.families()
    shape = (1, config.frames, config.image_px, config.image_px, 3)
    clips = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    observed = observe(model, families, clips, clips=len(clips))
    quantized = quantize_model(model, families, observed, recipe=NAIVE)
    write_int8(quantized, quantized.state, folder, PrecisionWish(), has_half=False)


if __name__ == "__main__":
    main()
