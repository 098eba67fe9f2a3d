"""The model folder: the contract between training and scanning.

A bundle is a folder with `bundle.json`, `model.onnx`, `places.csv` and `MODEL_CARD.md`; a large
network has its weights in `model.onnx.data`, which a runtime may map instead of reading. The
bundle, not the user, owns what the model needs: frames, size, spans, sampling, thresholds. Every
file is hashed in `bundle.json`, and nothing is used before its hash is checked.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from engines.base import BundleError

SCHEMA = 1
MANIFEST = "bundle.json"
WEIGHTS = "model.onnx.data"
"""Where a large network's weights are, beside `model.onnx`."""
REQUIRED_FILES = ("model.onnx", "places.csv", "MODEL_CARD.md")

Level = Literal["city", "state", "country", "continent"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Finest first: the order of the classifiers everywhere."""
OUTPUTS = (*LEVELS, "scene", "feature")
"""Of a graph, in this order; a model that was trained without scenes has no `scene`."""

Policy = Literal["dense", "exact", "keyframe"]
"""How the frames of a clip are chosen; `geotag.footage.clips` says how."""
Resize = Literal["squash", "crop"]
"""How a picture becomes as large as the network wants it. squash: the whole picture, its aspect
ratio given up (what CityGuessr's code does); crop: the shorter side fitted, what the longer one
has over cut off at both ends (what CLIP was trained with)."""
DecodingMode = Literal["without", "independent", "codependent", "trace_only", "marginal"]

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
GRAPHS: dict[Precision, str] = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
}
"""The graph of each precision for OpenVINO and ONNX Runtime; int8 between float32 operations."""
TENSORRT_GRAPHS: dict[Precision, str] = {**GRAPHS, "int8": "model.int8.fp16.onnx"}
"""The same for TensorRT, strongly typed: its int8 is between float16 operations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What the graph's only input `clip` takes: uint8 [N, frames, height_px, width_px, 3], RGB."""

    frames: int
    height_px: int
    width_px: int
    resize: Resize = "squash"
    moment: float = 0.0
    """Of one frame: where it lies in the stretch of video that it stands for, as a share of it."""

    def __post_init__(self) -> None:
        """Refuse what no clip can have."""
        sides = (self.frames, self.height_px, self.width_px)
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(f"input {sides}: frames, height and width must be whole and positive")
        if self.resize not in get_args(Resize):
            raise ValueError(f"input.resize {self.resize!r}: allowed are {get_args(Resize)}")
        if not (isinstance(self.moment, int | float) and 0 <= self.moment < 1):
            raise ValueError(f"input.moment {self.moment!r}: allowed is 0 up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAccuracy:
    """A way of choosing frames that suits the model, and how well it does on it."""

    policy: Policy
    span_s: float
    city_top1: float | None
    """Share of clips whose city is right, 0 to 1; None where nobody has measured it."""
    country_top1: float | None
    clips: int
    """How many clips that was measured on."""

    def __post_init__(self) -> None:
        """Refuse an unknown policy, a span of nothing, and shares that are none."""
        shares = [share for share in (self.city_top1, self.country_top1) if share is not None]
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
            raise ValueError(f"accuracies {shares!r} must be numbers from 0 to 1")
        if self.policy not in get_args(Policy) or not self.span_s > 0:
            raise ValueError(
                f"policy {self.policy!r} over {self.span_s!r} s: allowed are {get_args(Policy)} "
                "over more than 0 s"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """Which frames make a clip."""

    min_span_s: float
    max_span_s: float
    """Training saw clips of min_span_s to max_span_s seconds."""
    max_keyframe_gap_s: float
    """Key frames further apart than this make a clip fall back from `keyframe` to `exact`."""
    clips: int
    """Clips per video where nothing else is asked."""
    policies: tuple[PolicyAccuracy, ...]

    def __post_init__(self) -> None:
        """Refuse a bundle that leaves nothing to choose from."""
        is_counted = isinstance(self.clips, int) and self.clips >= 1
        if not self.policies or not is_counted or not self.max_keyframe_gap_s > 0:
            raise ValueError(
                f"sampling of {self.clips!r} clips, key frames at most {self.max_keyframe_gap_s!r} "
                f"s apart, {len(self.policies)} policies: each must be positive"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCalibration:
    """How to read one level's probabilities."""

    temperature: float
    """Logits are divided by it before the softmax (Guo et al., ICML 2017)."""
    threshold_prob: float
    """Below it the level is not claimed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by or reached."""
        if not self.temperature > 0 or not 0 <= self.threshold_prob <= 1:
            raise ValueError(
                f"temperature {self.temperature!r} must be positive, threshold_prob "
                f"{self.threshold_prob!r} lie in [0, 1]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of the bundle."""

    sha256: str
    size_bytes: int
    precision: str | None = None
    measured: dict[str, float | str] = field(default_factory=dict)
    """Accuracy or latency of this very file, with the command that measured it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`bundle.json`, parsed."""

    name: str
    description: str
    domain: Literal["rendered", "road"]
    """rendered: answers only for the procedural world of `train.data.rendered`."""
    input: InputSpec
    outputs: dict[str, int]
    """Width of each output; levels, feature and, unless it was trained without, scene."""
    scenes: tuple[str, ...]
    """Names of the scene groups; empty where there is no such output."""
    sampling: SamplingSpec
    calibration: dict[str, dict[str, LevelCalibration]]
    """Decoding mode -> level -> calibration."""
    files: dict[str, FileRecord]
    training: dict[str, str | int | float | None]
    licence: str
    quantization: dict[str, Any] | None = None
    """For a bundle with more than fp32: `calibration` (source, clips, the listing's hash), `recipe`
    (how each family of layers was quantized, and which stay in floating point) and `gate` (what was
    allowed, and whether it was kept); None where there is only fp32."""
    zero_shot: dict[str, Any] | None = None
    """For a model made from texts, without training: `family`, `source`, `revision`, `weights`
    (file -> SHA-256), `prompts` (level -> templates), `places` (`source`, `sha256`), `frames`,
    `logit_scale`, `logit_bias`; None for a trained one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A model folder whose every file has been checked."""

    path: Path
    manifest: Manifest
    digest: str
    """sha256 of bundle.json, which holds the hash of every other file."""

    @property
    def label(self) -> str:
        """Name and short digest, as tags carry it."""
        return f"{self.manifest.name}@{self.digest[:12]}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that the folder has a graph of; fp32 always."""
        return tuple(name for name in PRECISIONS if GRAPHS[name] in self.manifest.files)

    def need(self, precision: Precision) -> None:
        """Refuse a precision that the folder has no graph of.  Raises BundleError."""
        if precision not in self.precisions:
            raise BundleError(
                f"opening {self.label} in {precision}: it has {', '.join(self.precisions)}. Choose "
                f"one of these, or export it again with --precision {precision}."
            )

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files."""
        return self.path / name


def read_bundle(path: Path) -> Bundle:
    """Read and verify a model folder.

    Raises:
        BundleError: no such folder, a missing file, another schema, a wrong hash, or class
            counts that disagree; each says which file and what to do.
    """
    text = _read_manifest_text(path)
    manifest = parse_manifest(text, where=path / MANIFEST)
    for name in REQUIRED_FILES:
        if name not in manifest.files:
            raise BundleError(
                f"reading the bundle {path}: bundle.json does not list {name}; "
                f"a bundle needs {', '.join(REQUIRED_FILES)}. Export it again."
            )
    for name, record in manifest.files.items():
        _check_file(path, name, record)
    _check_class_counts(path, manifest)
    return Bundle(
        path=path, manifest=manifest, digest=hashlib.sha256(text.encode("utf-8")).hexdigest()
    )


def read_manifest(path: Path) -> Manifest:
    """Read what a model folder says of itself; no file is checked.  Raises BundleError."""
    return parse_manifest(_read_manifest_text(path), where=path / MANIFEST)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `bundle.json` into the folder `path`; same manifest, same bytes."""
    text = json.dumps({"schema": SCHEMA, **asdict(manifest)}, indent=2, sort_keys=True) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")


def describe_file(
    path: Path, *, precision: str | None = None, **measured: float | str
) -> FileRecord:
    """Hash and measure one file for the manifest."""
    return FileRecord(
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        precision=precision,
        measured=dict(measured),
    )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_manifest(text: str, *, where: Path) -> Manifest:
    """Turn the text of a `bundle.json` into a Manifest.

    Raises:
        BundleError: not JSON, another schema, or a field that is missing or of the wrong kind.
    """
    try:
        record = json.loads(text)
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(
            f"reading {where}: it is not a bundle manifest ({exc!r}). Export the bundle again."
        ) from exc
    if schema != SCHEMA:
        raise BundleError(
            f"reading {where}: its schema is {schema!r}, this version of geotag reads schema "
            f"{SCHEMA}. Update geotag, or export the bundle again with this version."
        )
    try:
        return _manifest_from(record)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BundleError(
            f"reading {where}: a field is missing or of the wrong kind ({exc!r}). "
            "Export the bundle again."
        ) from exc


def _manifest_from(record: dict[str, Any]) -> Manifest:
    sampling = dict(record["sampling"])
    policies = tuple(PolicyAccuracy(**entry) for entry in sampling.pop("policies"))
    outputs = {str(name): int(width) for name, width in record["outputs"].items()}
    if set(outputs) | {"scene"} != set(OUTPUTS):
        raise ValueError(f"outputs {sorted(outputs)}: needed are {sorted(OUTPUTS)}")
    scenes = tuple(str(name) for name in record["scenes"])
    if len(scenes) != outputs.get("scene", 0):
        raise ValueError(f"{len(scenes)} scene names for {outputs.get('scene', 0)} scene outputs")
    if record["domain"] not in ("rendered", "road"):
        raise ValueError(f"domain {record['domain']!r}: allowed are rendered, road")
    return Manifest(
        name=str(record["name"]),
        description=str(record["description"]),
        domain=record["domain"],
        input=InputSpec(**record["input"]),
        outputs=outputs,
        scenes=scenes,
        sampling=SamplingSpec(policies=policies, **sampling),
        calibration={
            mode: {level: LevelCalibration(**entry) for level, entry in levels.items()}
            for mode, levels in record["calibration"].items()
        },
        files={name: FileRecord(**entry) for name, entry in record["files"].items()},
        training=dict(record["training"]),
        licence=str(record["licence"]),
        quantization=_dict_or_none(record.get("quantization")),
        zero_shot=_dict_or_none(record.get("zero_shot")),
    )


def _dict_or_none(value: Any) -> dict[str, Any] | None:  # noqa: ANN401
    return None if value is None else dict(value)


def _read_manifest_text(path: Path) -> str:
    if not path.is_dir():
        raise BundleError(f"opening the bundle {path}: there is no such folder.")
    try:
        return (path / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BundleError(
            f"opening the bundle {path}: its bundle.json cannot be read ({exc}). "
            "A bundle is the folder that `geotag export` writes."
        ) from exc


def _check_file(path: Path, name: str, record: FileRecord) -> None:
    if Path(name).name != name:
        raise BundleError(f"reading the bundle {path}: the file name {name!r} leaves the folder.")
    try:
        found = sha256_of(path / name)
    except OSError as exc:
        raise BundleError(
            f"reading the bundle {path}: the file {name} is missing or unreadable ({exc}). "
            "Copy the whole folder again."
        ) from exc
    if found != record.sha256:
        raise BundleError(
            f"reading the bundle {path}: {name} has the SHA-256 {found[:12]}..., bundle.json says "
            f"{record.sha256[:12]}...: the file was changed or damaged. Copy the bundle again."
        )


def _check_class_counts(path: Path, manifest: Manifest) -> None:
    """The class tree and the classifiers must have the same number of classes."""
    # A class is its whole path upwards: two countries may each have a state of one name.
    found: dict[Level, set[tuple[str | None, ...]]] = {level: set() for level in LEVELS}
    try:
        with (path / "places.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                for depth, level in enumerate(LEVELS):
                    found[level].add(tuple(row.get(name) for name in LEVELS[depth:]))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise BundleError(f"reading the bundle {path}: places.csv is no CSV ({exc}).") from exc
    for level in LEVELS:
        if len(found[level]) != manifest.outputs[level]:
            raise BundleError(
                f"reading the bundle {path}: places.csv holds {len(found[level])} classes at the "
                f"level {level}, the model has {manifest.outputs[level]}. The two do not belong "
                "together."
            )
