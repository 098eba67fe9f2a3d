"""A run folder and footage to export from, and the command that does it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import av
import numpy as np

from engines.bundle import LEVELS
from geotag.cli import main
from geotag.wish import PrecisionWish
from tests.lowered import CITIES, CLASSES, TINY, calibration_set, draw, tell_apart
from tests.media import write_video
from train import smaller
from train.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

    from engines.bundle import Precision

STATES = [0, 0, 1, 2, 3]
"""The country of each state; 5 states, 4 countries."""
COUNTRIES = [0, 0, 1, 2]
"""The continent of each."""
FILES = {
    "MODEL_CARD.md",
    "bundle.json",
    "calibration.csv",
    "model.fp16.onnx",
    "model.int8.fp16.onnx",
    "model.int8.onnx",
    "model.onnx",
    "places.csv",
}
EVALUATION = {
    "split": "test",
    "clips": 40,
    "modes": {"marginal": dict.fromkeys(LEVELS, 0.5)},
    "policies": [
        {"policy": "dense", "span_s": 2.0, "city_top1": 0.5, "country_top1": 0.75, "clips": 40}
    ],
    "calibration": {},
    "command": "python -m train.fit --preset tiny",
}


def write_run(folder: Path) -> Path:
    """A network whose answers differ from clip to clip, as training leaves it."""
    model = draw(TINY)
    tell_apart(model)
    facts = {
        "data": "manifest:/home/lovelace/drives.csv",
        "preset": "tiny",
        "seed": 0,
        "sampling": {"min_span_s": 1.0, "max_span_s": 3.0, "max_keyframe_gap_s": 2.0, "clips": 3},
    }
    save_checkpoint(folder, model, places_csv=places(), facts=facts)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    return folder


def places() -> str:
    rows = ["city,state,country,continent,lat_deg,lon_deg"]
    for city in range(CITIES):
        state = city % CLASSES["state"]
        country = STATES[state]
        rows.append(f"c{city},s{state},n{country},k{COUNTRIES[country]},{city},{city / 2}")
    return "\n".join(rows) + "\n"


def write_footage(folder: Path) -> Path:
    """One long video, other colours in every second of it: 36 clips are held out, 108 are not."""
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (720, 4, 4, 3), dtype=np.uint8)

    def picture(index: int) -> av.VideoFrame:
        pixels = colours[index // 4].repeat(16, axis=0).repeat(16, axis=1)
        return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")

    write_video(folder / "drive.mp4", frames=2880, fps=4, gop=4, size=(64, 64), draw=picture)
    return folder


def wish_of(footage: Path) -> PrecisionWish:
    return PrecisionWish(
        precision="int8",
        calib=str(footage),
        calib_clips=48,
        judged_clips=32,
        has_plan=False,
        force=True,
    )


def give_clips(monkeypatch: pytest.MonkeyPatch, cities: NDArray[np.intp] | None) -> None:
    made = calibration_set(TINY, 64, city_ids=cities)
    monkeypatch.setattr(smaller, "open_calibration", lambda *_, **__: made)
    times: dict[Precision, float] = {"fp32": 3.0, "fp16": 3.0, "int8": 1.0}
    monkeypatch.setattr(
        smaller,
        "latencies_ms",
        lambda bundle, **_: {name: times[name] for name in bundle.precisions},
    )


def export(trained: Path, out: Path, *flags: object) -> int:
    given = ["export", "--checkpoint", trained, "--out", out, "--no-plan", *flags]
    return main([str(each) for each in given])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Standard error as one line."""
    return " ".join(capsys.readouterr().err.split())
