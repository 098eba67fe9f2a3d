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
import shutil
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from engines.base import BundleError
from engines.bundle import (
    MANIFEST,
    TENSORRT_GRAPHS,
    Bundle,
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
from engines.macs import count_macs
from geotag.errors import OutputError
from geotag.wish import PrecisionWish
from train.checkpoint import EVALUATION, PLACES, load_checkpoint
from train.data.clips import WORLD
from train.data.world import SCENE_GROUPS
from train.errors import ExportError
from train.evaluation.calibrate import uncalibrated
from train.evaluation.scorers import seen_stills
from train.from_bundle import facts_of, load_bundle_model
from train.graphs import graph_of
from train.model_card import NOT_STATED, model_card, with_precisions
from train.models.kinds import find_kind
from train.onnx_graph import write_graph
from train.parity import PARITY, check_parity
from train.plain_facts import plain_command, plain_facts
from train.plans import make_plans
from train.stills import moment_of
from train.torch_tensorrt import load_torch_tensorrt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from train.models.base import GeoModel
    from train.smaller import Smaller

    Scores = Mapping[str, NDArray[np.float32]]


_UNCALIBRATED = (
    "the confidences were not calibrated, for want of validation clips: they say which place is "
    "likelier, not how often it is right, and a place is claimed from 0.5"
)


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
        EngineError: TensorRT is here and compiles no plan (the bundle is written then), or
            torch-tensorrt was asked for and is not here.
        OutputError: the folder cannot be written.
    """
    out = out.absolute()
    wish = wish or PrecisionWish()
    check_target(out, overwrite=overwrite)
    if wish.builder == "torch-tensorrt" and wish.has_plan:
        load_torch_tensorrt()  # said before minutes of work, not after them
    console = console or Console(stderr=True)
    if (checkpoint / MANIFEST).is_file():
        model, report = _export_smaller(read_bundle(checkpoint), out, name, wish, console)
    else:
        model, report = _export_run(checkpoint, out, name, wish, console)
    return _with_plans(report, model, wish, console) if wish.has_plan else report


def _export_run(
    checkpoint: Path, out: Path, name: str | None, wish: PrecisionWish, console: Console
) -> tuple[GeoModel, ExportReport]:
    model, record = load_checkpoint(checkpoint)
    evaluation = _read_evaluation(checkpoint)
    plain = {**evaluation, "command": plain_command(str(evaluation.get("command", "")))}
    if wish.precision != "fp32":
        from train.precisions import check_wish

        check_wish(model, wish)  # refused before the network is traced, not after
    with bundle_aside(out, doing=f"exporting {checkpoint}") as aside:
        write_graph(graph_of(model), aside / "model.onnx")
        shutil.copyfile(checkpoint / PLACES, aside / "places.csv")
        draft = _draft(aside, name or checkpoint.resolve().name, model, record, plain)
        parity = check_parity(partial(_scores, model), draft)
        smaller = None
        if wish.precision != "fp32":
            from train.smaller import make_smaller

            smaller = make_smaller(model, draft, record["training"], wish, console=console)
            draft = smaller.bundle
        card = model_card(draft.manifest, plain, network=find_kind(model.kind).noun)
        _finish(draft, card)
        report = _report(out, read_bundle(aside), parity, smaller)
    if str(evaluation.get("calibrated_by", "")).startswith("nothing"):
        report = replace(report, notes=(_UNCALIBRATED, *report.notes))
    return model, report


def _export_smaller(
    source: Bundle, out: Path, name: str | None, wish: PrecisionWish, console: Console
) -> tuple[GeoModel, ExportReport]:
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
        return model, _report(out, read_bundle(aside), parity, smaller)


def _with_plans(
    report: ExportReport, model: GeoModel, wish: PrecisionWish, console: Console
) -> ExportReport:
    """Compile the finished bundle for TensorRT, where that is here."""
    bundle = read_bundle(report.path)
    precisions = [each for each in bundle.precisions if TENSORRT_GRAPHS[each] in report.files]
    made, reason = make_plans(
        bundle,
        precisions,
        builder=wish.builder,
        model=model,
        say=lambda line: console.print(line, highlight=False),
    )
    notes = [
        f"plan {plan.engine} of {plan.size_bytes / 1e6:.1f} MB, built in {plan.seconds:.0f} s by "
        f"{plan.builder}, in {plan.folder}"
        for plan in made
    ]
    if reason is not None and wish.is_asked:
        notes.append(reason)
    return replace(report, notes=(*report.notes, *notes))


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
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        _move_into_place(aside, out)
    except BundleError as exc:
        raise ExportError(f"{doing}: {exc}") from exc
    except OSError as exc:
        raise OutputError(f"writing the bundle {out}: {exc}") from exc
    except KeyboardInterrupt as exc:
        raise KeyboardInterrupt(f"interrupted: no bundle was written to {out}.") from exc
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):  # what was made for it, and holds something now, stays
            for folder in made:
                folder.rmdir()


def _scores(model: GeoModel, clips_NTHWC: NDArray[np.uint8]) -> Scores:
    with torch.inference_mode():
        found = model(torch.from_numpy(clips_NTHWC))
    return {output: value.numpy() for output, value in found.items()}


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
    try:
        if out.exists():
            out.replace(old)
        aside.replace(out)
    except BaseException:  # an interrupt between the two, too
        if old.exists() and not out.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_evaluation(checkpoint: Path) -> dict[str, Any]:
    advice = f"Run `python -m train.evaluate --model {checkpoint}` first."
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
    folder: Path, name: str, model: GeoModel, record: dict[str, Any], evaluation: dict[str, Any]
) -> Bundle:
    """The bundle as far as it is known before its graphs are judged; nothing is hashed yet."""
    facts, kind = dict(record["training"]), find_kind(model.kind)
    frames, height_px, width_px, _ = model.clip_shape
    # Packed clips of it are read as shards; their name still begins with the world's.
    rendered = facts.get("data") == "rendered" or str(facts.get("dataset")).startswith(WORLD)
    policies = _policies(evaluation)
    outputs = {output: model.widths[output] for output in model.outputs}
    stills = seen_stills(facts.get("model", {}))
    best = max(policies, key=lambda policy: policy.city_top1 or 0.0)
    measured: dict[str, float | str] = {
        "policy": best.policy,
        "span_s": best.span_s,
        **_accuracy(best),
        "command": str(evaluation["command"]),
    }
    manifest = Manifest(
        name=name,
        description=f"{kind.title}-{record['size']}, {_told_frames(frames)} of {height_px} px, "
        f"{model.classes['city']} cities" + (" of the rendered world" if rendered else ""),
        domain="rendered" if rendered else "road",
        input=InputSpec(
            frames=frames,
            height_px=height_px,
            width_px=width_px,
            resize=facts.get("input", {}).get("resize", "squash"),
            moment=moment_of(**stills) if stills else 0.0,
        ),
        outputs=outputs,
        scenes=SCENE_GROUPS if "scene" in outputs else (),
        sampling=_sampling(facts.get("sampling", {}), policies),
        calibration=_calibration(evaluation, model),
        files={
            "model.onnx": describe_file(folder / "model.onnx", precision="fp32", **measured),
            "places.csv": describe_file(folder / "places.csv"),
        },
        training={
            "size": record["size"],
            "gmac_per_clip": _gmac(folder / "model.onnx", model.clip_shape),
            **plain_facts(facts),
            **({"still_frames": stills["frames"]} if stills else {}),
        },
        licence=str(facts.get("licence", "Apache-2.0" if rendered else NOT_STATED)),
    )
    return Bundle(path=folder, manifest=manifest, digest="")


def _told_frames(count: int) -> str:
    return "one frame" if count == 1 else f"{count} frames"


def _gmac(path: Path, clip_shape: tuple[int, ...]) -> float | None:
    """Multiplications with an addition that a clip takes, in 10^9; None without OpenVINO."""
    macs = count_macs(path, clip_shape=clip_shape)
    return None if macs is None else round(macs / 1e9, 3)


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


def _calibration(
    evaluation: dict[str, Any], model: GeoModel
) -> dict[str, dict[str, LevelCalibration]]:
    """Calibration of every mode and level; temperature 1 and threshold 0.5 where not measured."""
    measured = evaluation.get("calibration", {})
    return {
        mode: {
            level: LevelCalibration(**{**default, **measured.get(mode, {}).get(level, {})})
            for level, default in levels.items()
        }
        for mode, levels in uncalibrated(nests=model.nests).items()
    }
