"""Stand-ins: a model folder and an engine that tell cities by the mean colour of a clip."""

from __future__ import annotations

import csv
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.base import EngineChoice
from engines.bundle import (
    LEVELS,
    InputSpec,
    LevelCalibration,
    Manifest,
    PolicyAccuracy,
    SamplingSpec,
    describe_file,
    read_bundle,
    write_manifest,
)
from geotag.telemetry.track import Survey
from geotag.types import Clip, Discovery, Drive, FootageError, Moment, Video, VideoFacts
from tests.media import write_video

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Bundle
    from geotag.footage.clips import Sampling, Window

COLOURS: dict[str, tuple[int, int, int]] = {
    "Lyon": (220, 30, 30),
    "Paris": (30, 220, 30),
    "Berlin": (30, 30, 220),
    "Suva": (220, 220, 30),
    "Austin": (30, 220, 220),
    "Dallas": (220, 30, 220),
}
"""The colour of each city; the further a clip's mean colour is from it, the less likely."""

PLACES = """\
city,state,country,continent,state_code,country_code,continent_code,lat_deg,lon_deg,geonameid
Lyon,Auvergne-Rhône-Alpes,France,Europe,FR-ARA,FR,EU,45.74846,4.84671,2996944
Paris,Île-de-France,France,Europe,FR-IDF,FR,EU,48.85341,2.3488,2988507
Berlin,Berlin,Germany,Europe,DE-BE,DE,EU,52.52437,13.41053,2950159
Suva,Central,Fiji,Oceania,FJ-C,FJ,OC,-18.14161,178.44149,2198148
Austin,Texas,United States,North America,US-TX,US,NA,30.26715,-97.74306,4671654
Dallas,Texas,United States,North America,US-TX,US,NA,32.78306,-96.80667,4684888
"""
SCENES = ("street", "highway")
FRAMES, SIZE_PX = 4, 32
POLICIES = (
    PolicyAccuracy(policy="dense", span_s=1.0, city_top1=0.70, country_top1=0.9, clips=100),
    PolicyAccuracy(policy="exact", span_s=4.0, city_top1=0.90, country_top1=0.95, clips=100),
    PolicyAccuracy(policy="keyframe", span_s=4.0, city_top1=0.896, country_top1=0.95, clips=100),
)


def make_bundle(
    folder: Path,
    *,
    name: str = "fake",
    domain: str = "road",
    policies: Sequence[PolicyAccuracy] = POLICIES,
    clips: int = 3,
    threshold_prob: float = 0.5,
    onnx: bool = False,
) -> Bundle:
    """Write a bundle; with onnx its model is real, else a placeholder that no engine reads."""
    folder.mkdir(parents=True)
    (folder / "places.csv").write_text(PLACES, encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("# A fake\n", encoding="utf-8")
    (folder / "model.onnx").write_bytes(_onnx_bytes() if onnx else b"placeholder")
    write_manifest(
        folder,
        Manifest(
            name=name,
            description="Tells cities by mean colour.",
            domain=domain,  # type: ignore[arg-type]
            input=InputSpec(frames=FRAMES, height_px=SIZE_PX, width_px=SIZE_PX),
            outputs=_widths(),
            scenes=SCENES,
            sampling=SamplingSpec(
                min_span_s=1.0,
                max_span_s=5.0,
                max_keyframe_gap_s=3.0,
                clips=clips,
                policies=tuple(policies),
            ),
            calibration={
                "marginal": {
                    level: LevelCalibration(temperature=1.0, threshold_prob=threshold_prob)
                    for level in LEVELS
                }
            },
            files={
                file: describe_file(folder / file)
                for file in ("model.onnx", "places.csv", "MODEL_CARD.md")
            },
            training={"seed": 0},
            licence="CC0-1.0",
        ),
    )
    return read_bundle(folder)


class FakeEngine:
    """Scores from the mean colour; counts what it was asked."""

    name = "fake-cpu"

    def __init__(self, bundle: Bundle | None = None, *, fail_after: int | None = None) -> None:
        self.calls = 0
        self.is_closed = False
        self._fail_after = fail_after

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        self.calls += 1
        if self._fail_after is not None and self.calls > self._fail_after:
            from engines.base import EngineError

            raise EngineError("running the fake: it broke.")
        return scores_of(clips_NTHWC)

    def close(self) -> None:
        self.is_closed = True


def open_fake_engine(
    bundle: Bundle, *, threads: int | None = None, **_: object
) -> tuple[FakeEngine, EngineChoice]:
    """Stands for `engines.choose.open_engine`."""
    return FakeEngine(bundle), EngineChoice(name=FakeEngine.name, threads=threads or 1)


def scores_of(clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """What the fake model says, in numpy: the same as its ONNX form."""
    means_NC = clips_NTHWC.astype(np.float32).mean(axis=(1, 2, 3))
    weights, bias = _weights()
    rows = clips_NTHWC.shape[0]
    flat = {
        name: np.zeros((rows, width), dtype=np.float32)
        for name, width in _widths().items()
        if name != "city"
    }
    return {"city": (means_NC @ weights + bias).astype(np.float32)} | flat


def colour_clip(colour: Sequence[int], *, policy: str = "keyframe") -> Clip:
    """A clip of one colour, as a decoder would give it."""
    frames = np.empty((FRAMES, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    frames[:] = colour
    return Clip(
        frames_THWC=frames,
        times_s=tuple(float(index) for index in range(FRAMES)),
        policy=policy,  # type: ignore[arg-type]
    )


@dataclass
class FakeVideo:
    """What `FakeFootage` plays for one path."""

    colours: Sequence[Sequence[int] | Exception] = (COLOURS["Paris"],)
    """Colour or error of each clip, in the order of the plan; the last one is repeated."""
    duration_s: float | None = 30.0
    error: Exception | None = None
    """Raised when the video is opened."""
    damaged: bool = False
    fallback: str | None = None
    survey: Survey | Exception = field(default_factory=Survey)
    """What its telemetry says."""


@dataclass
class FakeFootage:
    """Stands for files and what reads them; keeps count of what is open."""

    videos: Mapping[str, FakeVideo]
    gate: threading.Event | None = None
    """While it is not set, no clip gets decoded."""
    decoded: int = 0
    opened: int = 0
    surveyed: int = 0
    open_now: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def open_video(self, video: Video, *, decode_threads: int) -> Iterator[_FakeReader]:
        played = self.videos[video.name]
        with self.lock:
            self.opened += 1
        if played.error is not None:
            raise played.error
        with self.lock:
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        try:
            yield _FakeReader(played, self)
        finally:
            with self.lock:
                self.open_now -= 1

    def survey(self, video: Video, facts: VideoFacts | None) -> Survey:
        """Its telemetry."""
        with self.lock:
            self.surveyed += 1
        found = self.videos[video.name].survey
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """There is no process to end."""

    def make_station(self) -> FakeFootage:
        """Every worker thread reads the same files."""
        return self

    def list(self) -> list[Video]:
        """The videos, as discovery would give them."""
        return [
            Video(
                path=Path(name),
                name=name,
                video_id=f"{index:032x}",
                content_id=f"content {index}",
                size_bytes=1,
            )
            for index, name in enumerate(self.videos)
        ]

    def discovery(self) -> Discovery:
        """Each video a drive of its own."""
        return alone(self.list())


def alone(videos: Sequence[Video]) -> Discovery:
    """Videos that have nothing to do with each other."""
    drives = (
        Drive(drive_id=video.video_id, moments=(Moment(videos=(video,)),)) for video in videos
    )
    return Discovery(videos=tuple(videos), drives=tuple(drives))


class _FakeReader:
    def __init__(self, played: FakeVideo, footage: FakeFootage) -> None:
        self._played = played
        self._footage = footage
        self._read = 0
        self.facts = VideoFacts(
            container="mp4",
            codec="h264",
            width_px=64,
            height_px=64,
            rotation_deg=0,
            duration_s=played.duration_s,
            fps=10.0,
        )

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        if self._footage.gate is not None:
            self._footage.gate.wait()
        with self._footage.lock:
            self._footage.decoded += 1
        colours = self._played.colours
        colour = colours[min(self._read, len(colours) - 1)]
        self._read += 1
        if isinstance(colour, Exception):
            raise colour
        clip = colour_clip(colour, policy=sampling.policy)
        return replace(clip, damaged=self._played.damaged, fallback=self._played.fallback)


def broken(code: str = "decode_error", message: str = "No frame decodes.") -> FootageError:
    """An error as the decoder raises it."""
    return FootageError("decode", code, message)  # type: ignore[arg-type]


def _widths() -> dict[str, int]:
    rows = list(csv.DictReader(PLACES.splitlines()))
    counts = {
        level: len({tuple(row[name] for name in LEVELS[depth:]) for row in rows})
        for depth, level in enumerate(LEVELS)
    }
    return counts | {"scene": len(SCENES), "feature": 2}


def _weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Minus the squared distance to each colour, less the term that all cities share."""
    colours = np.array(list(COLOURS.values()), dtype=np.float32)
    sharpness = np.float32(4e-4)
    return 2 * sharpness * colours.T, -sharpness * (colours**2).sum(axis=1)


def _onnx_bytes() -> bytes:
    """The same arithmetic as a graph that a real engine runs."""
    from onnx import TensorProto, helper, numpy_helper

    weights, bias = _weights()
    constants = {"weights": weights, "bias": bias, "axes": np.array([1, 2, 3], dtype=np.int64)}
    nodes = [
        helper.make_node("Cast", ["clip"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["city"]),
    ]
    for name, width in _widths().items():
        if name != "city":
            constants[f"zeros_{name}"] = np.zeros((3, width), dtype=np.float32)
            nodes.append(helper.make_node("MatMul", ["means", f"zeros_{name}"], [name]))
    graph = helper.make_graph(
        nodes,
        "colours",
        [
            helper.make_tensor_value_info(
                "clip", TensorProto.UINT8, ["N", FRAMES, SIZE_PX, SIZE_PX, 3]
            )
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
            for name, width in _widths().items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests"
    )
    return bytes(model.SerializeToString())


def write_colour_video(
    path: Path, colour: Sequence[int] = COLOURS["Paris"], *, duration_s: float = 8.0
) -> Path:
    """Write a video of one colour at 10 frames a second, a key frame each second."""
    import av

    pixels = np.empty((48, 64, 3), dtype=np.uint8)
    pixels[:] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(
        path,
        frames=round(duration_s * 10),
        fps=10,
        size=(64, 48),
        gop=10,
        draw=lambda _: av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p"),
    )
