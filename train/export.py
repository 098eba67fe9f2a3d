"""From a run folder to a bundle: the network as ONNX, what it needs to run, and a model card.

That the graph computes what the network does is checked on every export, with ONNX Runtime and
OpenVINO against torch. Smaller precisions are made beside float32, and judged by held-out clips
(`train.smaller`). Nothing is written that fails a check.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnxruntime
import torch
from rich.console import Console

from engines.base import BundleError, EngineUnavailableError
from engines.bundle import (
    LEVELS,
    MANIFEST,
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
from engines.choose import usable_cores
from engines.openvino_cpu import OpenvinoEngine
from geotag.errors import OutputError
from geotag.wish import PrecisionWish
from train.checkpoint import EVALUATION, PLACES, load_checkpoint
from train.data.world import SCENE_GROUPS
from train.errors import ExportError
from train.from_bundle import facts_of, load_bundle_model
from train.model_card import model_card, with_precisions
from train.models.geolocator import Geolocator
from train.models.heads import HEADS
from train.onnx_graph import export_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from train.smaller import Smaller

    Scores = Mapping[str, NDArray[np.float32]]

PARITY = 1e-4
"""Largest difference of any logit between torch and a runtime, both in float32: as it is, or of
logits above 1 as a share of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote, and how well the runtimes agree with torch."""

    path: Path
    label: str
    """Name and short digest of the bundle, as tags will carry it."""
    files: dict[str, FileRecord]
    parity: dict[str, float | None]
    """Runtime -> largest difference of a logit from torch; None where it is not installed."""
    allowed: float = PARITY
    """Largest difference that passes."""
    table: tuple[str, ...] = ()
    """The precisions side by side, where there are several."""
    notes: tuple[str, ...] = ()
    """What else a person should know of it."""

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
            f"  largest logit difference from torch: {checks} (allowed {self.allowed:.0e})"
            + "".join(f"\n  {line}" for line in self.table)
            + "".join(f"\n  note: {note}" for note in self.notes)
        )


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    wish: PrecisionWish | None = None,
    console: Console | None = None,
) -> ExportReport:
    """Turn a trained and evaluated run folder into a bundle.

    The bundle is made in a folder beside `out` and moved there when every check has passed. The
    same run, footage and machine give the same bytes, wherever they are written.

    Args:
        checkpoint: the run folder, with its `evaluation.json`; or a bundle, of which smaller
            precisions are to be made.
        out: the bundle's folder.
        name: of the bundle; None takes that of the run folder, or of the bundle it is made of.
        overwrite: replace a bundle at `out`; a folder that is not a bundle is never replaced.
        wish: which precisions beside fp32, and how they are made; None for none.
        console: where progress is shown; None for standard error.

    Raises:
        CheckpointError: the run folder is missing or damaged.
        ExportError: `out` exists, the run was not evaluated, or a runtime disagrees with torch.
        CalibrationError: no usable footage, or a model that int8 or float16 cannot hold.
        GateError: a smaller precision lost too much.
        OutputError: the folder cannot be written.
    """
    out = out.absolute()
    wish = wish or PrecisionWish()
    check_target(out, overwrite=overwrite)
    console = console or Console(stderr=True)
    if (checkpoint / MANIFEST).is_file():
        return _export_smaller(read_bundle(checkpoint), out, name, wish, console)
    model, record = load_checkpoint(checkpoint)
    evaluation = _read_evaluation(checkpoint)
    plain = {**evaluation, "command": _plain_command(str(evaluation.get("command", "")))}
    with bundle_aside(out, doing=f"exporting {checkpoint}") as aside:
        export_onnx(model, aside / "model.onnx")
        shutil.copyfile(checkpoint / PLACES, aside / "places.csv")
        draft = _draft(aside, name or checkpoint.resolve().name, model, record, plain)
        parity = check_parity(partial(_scores, model), draft)
        smaller = None
        if wish.precision != "fp32":
            from train.smaller import make_smaller

            smaller = make_smaller(model, draft, record["training"], wish, console=console)
            draft = smaller.bundle
        _finish(draft, model_card(draft.manifest, plain))
        return _report(out, read_bundle(aside), parity, smaller)


def _export_smaller(
    source: Bundle, out: Path, name: str | None, wish: PrecisionWish, console: Console
) -> ExportReport:
    """Make smaller precisions of a bundle; what else it says stays as it is."""
    if wish.precision == "fp32":
        raise ExportError(
            f"exporting {source.path}: it is a bundle already. Ask for a smaller one with "
            "--precision int8 or fp16."
        )
    from train.smaller import make_smaller

    model = load_bundle_model(source)
    kept = {file: source.manifest.files[file] for file in ("model.onnx", "places.csv")}
    with bundle_aside(out, doing=f"exporting {source.path}") as aside:
        for file in kept:
            shutil.copyfile(source.file(file), aside / file)
        manifest = replace(source.manifest, name=name or source.manifest.name, files=kept)
        draft = Bundle(path=aside, manifest=manifest, digest="")
        parity = check_parity(partial(_scores, model), draft)
        smaller = make_smaller(model, draft, facts_of(source), wish, console=console)
        card = source.file("MODEL_CARD.md").read_text(encoding="utf-8")
        _finish(smaller.bundle, with_precisions(card, smaller.bundle.manifest))
        return _report(out, read_bundle(aside), parity, smaller)


def _report(
    out: Path, bundle: Bundle, parity: dict[str, float | None], smaller: Smaller | None
) -> ExportReport:
    return ExportReport(
        path=out,
        label=bundle.label,
        files=bundle.manifest.files,
        parity=parity,
        table=() if smaller is None else smaller.table,
        notes=() if smaller is None else smaller.notes,
    )


@contextlib.contextmanager
def bundle_aside(out: Path, *, doing: str) -> Iterator[Path]:
    """A folder beside `out`, to be filled; it takes the place of `out` unless something fails.

    Raises:
        ExportError: what was put into it is no bundle.
        OutputError: it cannot be written.
    """
    aside = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        _move_into_place(aside, out)
    except BundleError as exc:
        raise ExportError(f"{doing}: {exc}") from exc
    except OSError as exc:
        raise OutputError(f"writing the bundle {out}: {exc}") from exc
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_parity(
    score: Callable[[NDArray[np.uint8]], Scores], bundle: Bundle, *, allowed: float = PARITY
) -> dict[str, float | None]:
    """Compare the runtimes with torch on two clips: noise, and even frames.

    Args:
        score: what torch makes of clips, uint8 [N, T, H, W, 3] -> [N, K] per head.
        bundle: what the runtimes are given.
        allowed: largest difference of a logit that passes.

    Returns:
        Runtime -> largest difference of a logit; None where the runtime is not installed.

    Raises:
        ExportError: a larger difference.
    """
    clips_NTHWC = _check_clips(bundle.manifest.input)
    wanted = score(clips_NTHWC)
    session = onnxruntime.InferenceSession(
        bundle.file("model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = list(bundle.manifest.outputs)
    found = dict(zip(names, session.run(names, {"clip": clips_NTHWC}), strict=True))
    parity: dict[str, float | None] = {"ONNX Runtime": _worst(found, wanted), "OpenVINO": None}
    with contextlib.suppress(EngineUnavailableError):
        engine = OpenvinoEngine(bundle, threads=usable_cores())
        parity["OpenVINO"] = _worst(engine.infer(clips_NTHWC), wanted)
    allowed *= max(1.0, *(float(np.abs(wanted[head]).max()) for head in HEADS if head in wanted))
    for runtime, worst in parity.items():
        if worst is not None and not worst <= allowed:
            raise ExportError(
                f"checking the exported network: a logit of {runtime} is {worst:.2e} away from "
                f"torch's, allowed is {allowed:.0e}. Weights that are not finite or very large do "
                "this; train again with a lower learning rate, or report it with the checkpoint."
            )
    return parity


def _scores(model: Geolocator, clips_NTHWC: NDArray[np.uint8]) -> Scores:
    with torch.inference_mode():
        found = model(torch.from_numpy(clips_NTHWC))
    return {output: value.numpy() for output, value in found.items()}


def _check_clips(wanted: InputSpec) -> NDArray[np.uint8]:
    """Noise, and frames of one colour each.  uint8 [2, T, H, W, 3]."""
    rng = np.random.default_rng(0)
    shape = (wanted.frames, wanted.height_px, wanted.width_px, 3)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    colours = rng.integers(0, 256, (wanted.frames, 1, 1, 3), dtype=np.uint8)
    return np.stack([noise, np.broadcast_to(colours, shape)])


def _worst(found: Scores, wanted: Scores) -> float:
    """Largest difference of any logit; not a number if one is not a number."""
    heads = [head for head in HEADS if head in found]
    return float(np.max([np.abs(found[head] - wanted[head]).max() for head in heads]))


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse to write over what is there.  Raises ExportError."""
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


def _draft(
    folder: Path, name: str, model: Geolocator, record: dict[str, Any], evaluation: dict[str, Any]
) -> Bundle:
    """The bundle as far as it is known before its graphs are judged; nothing is hashed yet."""
    facts, config = dict(record["training"]), model.config
    rendered = facts.get("data") == "rendered"
    policies = _policies(evaluation)
    outputs = {output: model.widths[output] for output in model.outputs}
    best = max(policies, key=lambda policy: policy.city_top1 or 0.0)
    measured: dict[str, float | str] = {
        "policy": best.policy,
        "span_s": best.span_s,
        **_accuracy(best),
        "command": str(evaluation["command"]),
    }
    manifest = Manifest(
        name=name,
        description=f"VideoMAE-{record['size']}, {config.frames} frames of {config.image_px} px, "
        f"{model.classes['city']} cities" + (" of the rendered world" if rendered else ""),
        domain="rendered" if rendered else "road",
        input=InputSpec(
            frames=config.frames,
            height_px=config.image_px,
            width_px=config.image_px,
            resize=facts.get("input", {}).get("resize", "squash"),
        ),
        outputs=outputs,
        scenes=SCENE_GROUPS if "scene" in outputs else (),
        sampling=_sampling(facts.get("sampling", {}), policies),
        calibration=_calibration(evaluation),
        files={
            "model.onnx": describe_file(folder / "model.onnx", precision="fp32", **measured),
            "places.csv": describe_file(folder / "places.csv"),
        },
        training={
            "size": record["size"],
            **_plain_facts(facts),
        },
        licence=str(facts.get("licence", "Apache-2.0" if rendered else "not stated")),
    )
    return Bundle(path=folder, manifest=manifest, digest="")


def _finish(draft: Bundle, text: str) -> None:
    """Write MODEL_CARD.md and bundle.json; no time and no path, so that it can be made again."""
    card = draft.file("MODEL_CARD.md")
    card.write_text(text, encoding="utf-8", newline="\n")
    files = {"MODEL_CARD.md": describe_file(card), **draft.manifest.files}
    write_manifest(draft.path, replace(draft.manifest, files=files))


def _accuracy(policy: PolicyAccuracy) -> dict[str, float]:
    """What was measured of a policy; nothing where nobody has."""
    shares = {"city_top1": policy.city_top1, "country_top1": policy.country_top1}
    return {name: share for name, share in shares.items() if share is not None}


def _plain_facts(facts: dict[str, Any]) -> dict[str, str | int | float | None]:
    """How the weights came to be, without any path of the machine that made them."""
    flat = dict(facts)
    for part in ("model", "loss", "optimiser", "input"):
        held = flat.pop(part, {})
        flat |= {f"{part}_{name}": value for name, value in held.items()} if held else {}
    for name in ("data", "pretrained", "texts", "scenes"):
        flat[name] = _without_folders(str(flat.get(name) or "")) or None
    return {
        name: value
        for name, value in flat.items()
        if value is None or isinstance(value, (str, int, float))
    }


def _without_folders(given: str) -> str:
    """`manifest:/data/drives.csv?footage=/videos/2024` -> `manifest:drives.csv?footage=2024`.

    A hub id stays whole.
    """
    place, mark, words = given.partition("?")
    kind, colon, path = place.partition(":")
    if not colon:
        kind, path = "", place
    is_path = bool(colon) or path.startswith((".", "/", "~")) or path.count("/") > 1
    if is_path or path.endswith((".pth", ".safetensors")):
        path = PurePath(path).name
    pairs = [word.partition("=") for word in words.split("&")]
    words = "&".join(f"{name}{equals}{PurePath(value).name}" for name, equals, value in pairs)
    return f"{kind}{colon}{path}{mark}{words}"


def _plain_command(command: str) -> str:
    """A command without the folders of the machine that it was given on."""
    try:
        words = shlex.split(command)
    except ValueError:  # not of a shell
        return command
    return shlex.join(_plain_word(word) for word in words)


def _plain_word(word: str) -> str:
    name, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    place, mark, query = value.partition("?")
    kind, colon, path = place.rpartition(":")
    if "/" in path:
        path = PurePath(path).name
    pairs = [each.partition("=") for each in query.split("&")]
    query = "&".join(f"{key}{sign}{PurePath(held).name}" for key, sign, held in pairs)
    return f"{name}{equals}{kind}{colon}{path}{mark}{query}"


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
