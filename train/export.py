"""From a run folder to a bundle: the network as ONNX, what it needs to run, and a model card.

The ONNX graph is built node by node rather than traced: it holds about 20 nodes a block, has the
names, layouts and constants that quantization and three runtimes want, holds no path of the machine
that made it, and does not change with the version of torch. That it computes the same is checked
on every export, with ONNX Runtime and OpenVINO against torch.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P tokens, D width, K classes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from engines.base import BundleError, EngineUnavailableError, usable_cores
from engines.bundle import (
    LEVELS,
    MANIFEST,
    OUTPUTS,
    Bundle,
    DecodingMode,
    FileRecord,
    InputSpec,
    LevelCalibration,
    Manifest,
    PolicyAccuracy,
    SamplingSpec,
    describe_file,
    read_bundle,
    write_manifest,
)
from engines.openvino_cpu import OpenvinoEngine
from geotag.errors import ConfigError, OutputError
from train.checkpoint import EVALUATION, PLACES, load_checkpoint
from train.data.world import SCENE_GROUPS
from train.models.geolocator import HEADS, Geolocator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Scores = Mapping[str, NDArray[np.float32]]

OPSET = 20
"""First with Gelu, last that TensorRT 10.3 reads whole; attention stays MatMul and Softmax."""
IR_VERSION = 9
PARITY = 1e-4
"""Largest difference of any logit between torch and a runtime, both in float32."""


class ExportError(ConfigError):
    """A checkpoint that cannot become a bundle here; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote, and how well the runtimes agree with torch."""

    path: Path
    label: str
    """Name and short digest of the bundle, as tags will carry it."""
    files: dict[str, FileRecord]
    parity: dict[str, float | None]
    """Runtime -> largest difference of a logit from torch; None where it is not installed."""

    def __str__(self) -> str:
        """A few lines for a person."""
        sizes = ", ".join(
            f"{name} ({entry.size_bytes / 1e3:,.0f} kB)" for name, entry in self.files.items()
        )
        checks = ", ".join(
            f"{name} not installed, not checked" if worst is None else f"{name} {worst:.1e}"
            for name, worst in self.parity.items()
        )
        return (
            f"bundle {self.label} in {self.path}\n  {sizes}\n"
            f"  largest logit difference from torch: {checks} (allowed {PARITY:.0e})"
        )


def export_bundle(
    checkpoint: Path, out: Path, *, name: str | None = None, overwrite: bool = False
) -> ExportReport:
    """Turn a trained and evaluated run folder into a bundle.

    The bundle is made in a folder beside `out` and moved there when every check has passed.

    Args:
        checkpoint: the run folder, with its `evaluation.json`.
        out: the bundle's folder.
        name: of the bundle; None takes the name of `out`.
        overwrite: replace a bundle at `out`; a folder that is not a bundle is never replaced.

    Raises:
        CheckpointError: the run folder is missing or damaged.
        ExportError: `out` exists, the run was not evaluated, or a runtime disagrees with torch.
        OutputError: the folder cannot be written.
    """
    out = out.absolute()
    _check_target(out, overwrite=overwrite)
    model, record = load_checkpoint(checkpoint)
    evaluation = _read_evaluation(checkpoint)
    aside = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        aside.mkdir(parents=True)
        export_onnx(model, aside / "model.onnx")
        shutil.copyfile(checkpoint / PLACES, aside / "places.csv")
        _write_manifest(aside, name or out.name, model, record, evaluation)
        bundle = read_bundle(aside)
        report = ExportReport(
            path=out,
            label=bundle.label,
            files=bundle.manifest.files,
            parity=check_parity(model, bundle),
        )
        _move_into_place(aside, out)
    except BundleError as exc:
        raise ExportError(f"exporting {checkpoint}: {exc}") from exc
    except OSError as exc:
        raise OutputError(f"writing the bundle {out}: {exc}") from exc
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def check_parity(model: Geolocator, bundle: Bundle) -> dict[str, float | None]:
    """Compare the runtimes with torch on two clips: noise, and even frames.

    Returns:
        Runtime -> largest difference of a logit; None where the runtime is not installed.

    Raises:
        ExportError: a difference above PARITY.
    """
    clips_NTHWC = _check_clips(bundle.manifest.input)
    with torch.inference_mode():
        scores = model(torch.from_numpy(clips_NTHWC))
    wanted = {output: value.numpy() for output, value in scores.items()}
    session = onnxruntime.InferenceSession(
        bundle.file("model.onnx"), providers=["CPUExecutionProvider"]
    )
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, {"clip": clips_NTHWC}), strict=True))
    parity: dict[str, float | None] = {"ONNX Runtime": _worst(found, wanted), "OpenVINO": None}
    with contextlib.suppress(EngineUnavailableError):
        engine = OpenvinoEngine(bundle, threads=usable_cores())
        parity["OpenVINO"] = _worst(engine.infer(clips_NTHWC), wanted)
    for runtime, worst in parity.items():
        if worst is not None and not worst <= PARITY:
            raise ExportError(
                f"checking the exported network: a logit of {runtime} is {worst:.2e} away from "
                f"torch's, allowed is {PARITY:.0e}. Weights that are not finite or very large do "
                "this; train again with a lower learning rate, or report it with the checkpoint."
            )
    return parity


def _check_clips(wanted: InputSpec) -> NDArray[np.uint8]:
    """Noise, and frames of one colour each.  uint8 [2, T, H, W, 3]."""
    rng = np.random.default_rng(0)
    shape = (wanted.frames, wanted.height_px, wanted.width_px, 3)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    colours = rng.integers(0, 256, (wanted.frames, 1, 1, 3), dtype=np.uint8)
    return np.stack([noise, np.broadcast_to(colours, shape)])


def _worst(found: Scores, wanted: Scores) -> float:
    """Largest difference of any logit; not a number if one is not a number."""
    return float(np.max([np.abs(found[head] - wanted[head]).max() for head in HEADS]))


def export_onnx(model: Geolocator, path: Path) -> None:
    """Write a model as ONNX; the same weights give the same bytes.

    One input, `clip` uint8 [N, T, H, W, 3]; outputs city, state, country, continent and scene
    (logits) and feature, float32 [N, K]. Linear weights are [in, out], named as in torch.
    """
    proto = helper.make_model(
        build_graph(model),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="geotag",
    )
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise ExportError(f"exporting to {out}: it exists. Choose another --out, or --overwrite.")
    if not (out / MANIFEST).is_file():
        raise ExportError(
            f"exporting to {out}: it is not a bundle, and only a bundle is ever replaced. "
            "Choose another --out."
        )


def _move_into_place(aside: Path, out: Path) -> None:
    """Put the finished folder at `out`; an older one is kept until the new one is there."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.replace(old)
    aside.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def _read_evaluation(checkpoint: Path) -> dict[str, Any]:
    advice = f"Run `python -m train.evaluate --checkpoint {checkpoint}` first."
    try:
        evaluation = json.loads((checkpoint / EVALUATION).read_text(encoding="utf-8"))
        measured = bool(evaluation["policies"])
    except FileNotFoundError as exc:
        raise ExportError(
            f"exporting {checkpoint}: it was never evaluated, and a bundle states how accurate "
            f"each way of sampling is. {advice}"
        ) from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ExportError(
            f"exporting {checkpoint}: {EVALUATION} cannot be read ({exc!r}). {advice}"
        ) from exc
    if not measured:
        raise ExportError(f"exporting {checkpoint}: {EVALUATION} measured no policy. {advice}")
    return dict(evaluation)


def _write_manifest(
    folder: Path, name: str, model: Geolocator, record: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    """Write MODEL_CARD.md and bundle.json; no time and no path, so that it can be made again."""
    facts, config = dict(record["training"]), model.config
    rendered = facts.get("data") == "rendered"
    policies = _policies(evaluation)
    manifest = Manifest(
        name=name,
        description=f"VideoMAE-{record['size']}, {config.frames} frames of {config.image_px} px, "
        f"{model.classes['city']} cities" + (" of the rendered world" if rendered else ""),
        domain="rendered" if rendered else "road",
        input=InputSpec(frames=config.frames, height_px=config.image_px, width_px=config.image_px),
        outputs={**model.classes, "feature": config.width},
        scenes=tuple(facts.get("scenes", SCENE_GROUPS)),
        sampling=_sampling(facts.get("sampling", {}), policies),
        calibration=_calibration(evaluation),
        files={},
        training={
            "size": record["size"],
            **{
                key: value
                for key, value in facts.items()
                if value is None or isinstance(value, (str, int, float))
            },
        },
        licence=str(facts.get("licence", "Apache-2.0" if rendered else "not stated")),
    )
    card = model_card(manifest, evaluation)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8", newline="\n")
    best = max(policies, key=lambda policy: policy.city_top1)
    files = {
        "MODEL_CARD.md": describe_file(folder / "MODEL_CARD.md"),
        "model.onnx": describe_file(
            folder / "model.onnx",
            precision="fp32",
            policy=best.policy,
            span_s=best.span_s,
            city_top1=best.city_top1,
            country_top1=best.country_top1,
            command=str(evaluation.get("command", "")),
        ),
        "places.csv": describe_file(folder / "places.csv"),
    }
    write_manifest(folder, replace(manifest, files=files))


def _sampling(trained: dict[str, Any], policies: tuple[PolicyAccuracy, ...]) -> SamplingSpec:
    return SamplingSpec(
        min_span_s=float(trained.get("min_span_s", 2.0)),
        max_span_s=float(trained.get("max_span_s", 25.0)),
        max_keyframe_gap_s=float(trained.get("max_keyframe_gap_s", 2.5)),
        clips=int(trained.get("clips", 3)),
        policies=policies,
    )


def _policies(evaluation: dict[str, Any]) -> tuple[PolicyAccuracy, ...]:
    names = [entry.name for entry in fields(PolicyAccuracy)]
    try:
        return tuple(
            PolicyAccuracy(**{name: entry[name] for name in names})
            for entry in evaluation["policies"]
        )
    except (KeyError, TypeError) as exc:
        raise ExportError(
            f"reading {EVALUATION}: each policy needs {', '.join(names)} ({exc!r}). "
            "Run python -m train.evaluate again."
        ) from exc


def _calibration(evaluation: dict[str, Any]) -> dict[str, dict[str, LevelCalibration]]:
    """Calibration of every mode and level; temperature 1 and threshold 0.5 where not measured."""
    measured = evaluation.get("calibration", {})
    default = {"temperature": 1.0, "threshold_prob": 0.5}
    return {
        mode: {
            level: LevelCalibration(**{**default, **measured.get(mode, {}).get(level, {})})
            for level in LEVELS
        }
        for mode in get_args(DecodingMode)
    }


def model_card(manifest: Manifest, evaluation: dict[str, Any]) -> str:
    """The text of MODEL_CARD.md: what the model is, how good, what for and what not."""
    rendered = manifest.domain == "rendered"
    counted = (
        f"{evaluation.get('clips', 'an unknown number of')} {evaluation.get('split', '')} clips"
    )
    return "\n".join(
        (
            f"# {manifest.name}",
            "",
            (
                "This model answers only for the rendered world of `train.data.rendered`; its "
                "answers for real footage mean nothing."
                if rendered
                else "This model guesses the city where dashcam footage was recorded."
            ),
            f"{manifest.description}: a video transformer with one linear classifier each for "
            f"{manifest.outputs['city']} cities, {manifest.outputs['state']} states, "
            f"{manifest.outputs['country']} countries, {manifest.outputs['continent']} continents "
            f"and {manifest.outputs['scene']} scene groups.",
            "",
            "## Training",
            "",
            *(f"- {key}: {value}" for key, value in manifest.training.items() if value is not None),
            "",
            "## Accuracy",
            "",
            f"Top-1 in per cent, one clip a video, on {counted}; measured by "
            f"`{evaluation.get('command', 'python -m train.evaluate')}`.",
            "",
            *_mode_table(evaluation),
            *_policy_table(manifest),
            "## Use",
            "",
            (
                "Trying, testing and teaching the pipeline, on footage that `geotag demo` renders."
                if rendered
                else "Sorting footage whose place was lost, by continent, country, state and city."
            ),
            "It knows the places of `places.csv` and no other: footage from elsewhere still gets "
            "scores, so use the confidences and their thresholds in `bundle.json`.",
            "",
            "Not for finding or following people, not as evidence of where somebody was, and not "
            "for decisions about people without other evidence.",
            "",
            "## Licence",
            "",
            f"Weights: {manifest.licence}.",
            "",
        )
    )


def _mode_table(evaluation: dict[str, Any]) -> list[str]:
    modes = evaluation.get("modes", {})
    rows = [
        f"| {mode} | " + " | ".join(_percent(shares.get(level)) for level in LEVELS) + " |"
        for mode, shares in modes.items()
    ]
    head = f"| decoding | {' | '.join(LEVELS)} |"
    return [head, "| --- |" + " --: |" * len(LEVELS), *rows, ""] if rows else []


def _policy_table(manifest: Manifest) -> list[str]:
    rows = [
        f"| {policy.policy} | {policy.span_s:g} | {_percent(policy.city_top1)} | "
        f"{_percent(policy.country_top1)} | {policy.clips} |"
        for policy in manifest.sampling.policies
    ]
    head = "| frames chosen | span, s | city | country | clips |"
    return [head, "| --- |" + " --: |" * 4, *rows, ""]


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f}"


@dataclass(slots=True)
class _Graph:
    """Nodes and constants of a graph that grows."""

    weights: dict[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, out: str, **attributes: Any) -> str:  # noqa: ANN401
        """Append a node; its output carries its name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """Keep a constant, once per name."""
        array: NDArray[Any] = np.ascontiguousarray(value, dtype=dtype)
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def reshape(self, tokens: str, shape: tuple[int, ...], *, out: str) -> str:
        """Reshape; 0 keeps a size, -1 is worked out."""
        return self.op("Reshape", tokens, self.constant(f"shape.{shape}", shape, np.int64), out=out)

    def linear(self, tokens: str, name: str, *, out: str) -> str:
        """Apply a Linear, with or without bias."""
        bias = self.weights.get(f"{name}.bias")
        weight = self.constant(f"{out}.weight", self.weights[f"{name}.weight"].T)
        if bias is None:
            return self.op("MatMul", tokens, weight, out=out)
        product = self.op("MatMul", tokens, weight, out=f"{out}.matmul")
        return self.op("Add", product, self.constant(f"{out}.bias", bias), out=out)

    def norm(self, tokens: str, name: str, epsilon: float, *, out: str) -> str:
        """Apply a LayerNorm, kept as one node: in parts it overflows float16."""
        scale = self.constant(f"{out}.weight", self.weights[f"{name}.weight"])
        shift = self.constant(f"{out}.bias", self.weights[f"{name}.bias"])
        return self.op("LayerNormalization", tokens, scale, shift, out=out, epsilon=epsilon)


def build_graph(model: Geolocator) -> onnx.GraphProto:
    """The network as a graph: pixels to tokens, blocks, mean, heads."""
    config = model.config
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    graph = _Graph(weights)
    tokens = _tokens(graph, model)
    for number in range(config.depth):
        tokens = _block(graph, model, tokens, f"blocks.{number}")
    axes = graph.constant("token_axis", [1], np.int64)
    feature = graph.op("ReduceMean", tokens, axes, out="feature", keepdims=0)
    for head in HEADS:
        graph.linear(feature, f"heads.{head}", out=head)
    clip = ("N", config.frames, config.image_px, config.image_px, 3)
    widths = {**model.classes, "feature": config.width}
    return helper.make_graph(
        graph.nodes,
        "geolocator",
        [helper.make_tensor_value_info("clip", TensorProto.UINT8, clip)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", widths[name]])
            for name in OUTPUTS
        ],
        list(graph.constants.values()),
    )


def _tokens(graph: _Graph, model: Geolocator) -> str:
    """Bytes to tokens.  `clip` uint8 [N, T, H, W, 3] -> float32 [N, P, D].

    Cut while still bytes, a quarter of the memory to move; then normalised, value by value.
    """
    config = model.config
    _, rows, columns = config.grid
    cut = (-1, config.tubelet_frames, rows, config.patch_px, columns, config.patch_px * 3)
    pixels = graph.reshape("clip", cut, out="patch.cut")
    pixels = graph.op("Transpose", pixels, out="patch.transposed", perm=[0, 2, 4, 1, 3, 5])
    pixels = graph.reshape(pixels, (-1, config.tokens, config.token_values), out="patch.bytes")
    pixels = graph.op("Cast", pixels, out="patch.pixels", to=TensorProto.FLOAT)
    mean, std = model.mean.double().cpu().numpy(), model.std.double().cpu().numpy()
    repeats = config.token_values // 3
    scale = graph.constant("patch.scale", np.tile(1 / (255 * std), repeats))
    shift = graph.constant("patch.shift", np.tile(-mean / std, repeats))
    pixels = graph.op("Mul", pixels, scale, out="patch.scaled")
    pixels = graph.op("Add", pixels, shift, out="patch.normalised")
    tokens = graph.linear(pixels, "encoder.patch", out="patch")
    positions = graph.constant("positions", model.encoder.positions.cpu().numpy())
    return graph.op("Add", tokens, positions, out="tokens")


def _block(graph: _Graph, model: Geolocator, tokens: str, name: str) -> str:
    """One transformer block.  [N, P, D] -> [N, P, D]."""
    epsilon, source = model.config.norm_eps, f"encoder.{name}"
    normed = graph.norm(tokens, f"{source}.norm1", epsilon, out=f"{name}.norm1")
    attended = _attention(graph, model, normed, name)
    projected = graph.linear(attended, f"{source}.proj", out=f"{name}.proj")
    tokens = graph.op("Add", tokens, projected, out=f"{name}.attended")
    normed = graph.norm(tokens, f"{source}.norm2", epsilon, out=f"{name}.norm2")
    hidden = graph.linear(normed, f"{source}.fc1", out=f"{name}.fc1")
    hidden = graph.op("Gelu", hidden, out=f"{name}.gelu")
    hidden = graph.linear(hidden, f"{source}.fc2", out=f"{name}.fc2")
    return graph.op("Add", tokens, hidden, out=f"{name}.out")


def _attention(graph: _Graph, model: Geolocator, tokens: str, name: str) -> str:
    """Attention in the form that TensorRT and OpenVINO fuse.  [N, P, D] -> [N, P, D].

    Query, key and value are three products (a packed one loses INT8 in TensorRT), and each of
    query and key carries the square root of the scale, so that float16 scores stay in range.
    """
    config = model.config
    head_width = config.width // config.heads
    root = graph.constant("attention.root_scale", head_width**-0.25)
    parts = {}
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        out = f"{name}.{part}"
        values = graph.linear(tokens, f"encoder.{name}.{part}", out=out)
        shape = (0, config.tokens, config.heads, head_width)
        values = graph.reshape(values, shape, out=f"{out}.split")
        values = graph.op("Transpose", values, out=f"{out}.heads", perm=order)
        if part != "value":
            values = graph.op("Mul", values, root, out=f"{out}.scaled")
        parts[part] = values
    scores = graph.op("MatMul", parts["query"], parts["key"], out=f"{name}.scores")
    shares = graph.op("Softmax", scores, out=f"{name}.shares", axis=-1)
    mixed = graph.op("MatMul", shares, parts["value"], out=f"{name}.mixed")
    mixed = graph.op("Transpose", mixed, out=f"{name}.merged", perm=[0, 2, 1, 3])
    return graph.reshape(mixed, (0, config.tokens, config.width), out=f"{name}.context")
