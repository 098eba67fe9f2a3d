"""A model with what its folder says of how to evaluate it, and which clips that makes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engines.bundle import LEVELS
from train.checkpoint import EVALUATION, FACTS
from train.config import EvaluatedPolicy, SamplingRange
from train.data.dataset import Split
from train.data.sources import open_dataset
from train.errors import DatasetError, MissingPartError, TrainError
from train.evaluation.measure import Candidate, view_of
from train.evaluation.report import MODES
from train.evaluation.scorers import BundleScorer, open_model
from train.evaluation.sets import RENDERED, Task, dataset_task, rendered_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from engines.bundle import Precision
    from train.data.dataset import ClipDataset, Picking
    from train.data.sources import Splitting
    from train.evaluation.measure import Plan
    from train.evaluation.scorers import CheckpointScorer

TEST_CLIPS = 900
"""Rendered clips that a model is measured on where nothing else is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a run was trained on."""

    spec: str
    splitting: Splitting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A model with what its folder says of how to evaluate it."""

    candidate: Candidate
    is_bundle: bool
    spec: str
    """What it is evaluated on."""
    is_own: bool
    """Whether that is what it was trained on, divided as it was then."""
    splitting: Splitting
    own: Own | None
    """What it was trained on, where that is known."""
    picking: Picking
    """Of the stored frames that it saw."""
    sampling: SamplingRange
    policies: tuple[EvaluatedPolicy, ...]
    val_clips: int | None
    """How many samples calibrate, as the run was trained; None for all."""
    test_clips: int | None
    """How many are counted, as the run was trained; None for all."""


def open_for(
    folder: Path, data: str | None, device: torch.device, precision: Precision | None = None
) -> Opened:
    """Open a model, and find out how it is to be evaluated.

    Args:
        folder: of a run, or a bundle.
        data: what it is evaluated on; None for what it was trained on.
        device: where the network of a run goes.
        precision: of a bundle; None for fp32.

    Raises:
        TrainError: the folder holds no model, or does not say what it was trained on or how.
        CheckpointError, EngineError: it holds one that cannot be used.
    """
    opened = open_model(folder, device, precision)
    if isinstance(opened, BundleScorer):
        return _opened_bundle(opened, folder, data)
    scorer, record = opened
    facts = record["training"]
    own = None if facts.get("data") is None else str(facts["data"])
    spec = _spec(folder, data, own)
    candidate = Candidate(scorer=scorer) if spec == own else _calibrated(scorer, folder)
    splitting = facts.get("splitting", "official")
    try:
        return Opened(
            candidate=candidate,
            is_bundle=False,
            spec=spec,
            is_own=spec == own,
            splitting=splitting if spec == own else "official",
            own=None if own is None else Own(spec=own, splitting=splitting),
            picking=_picking_of(facts),
            sampling=SamplingRange(**facts["sampling"]),
            policies=tuple(EvaluatedPolicy(**policy) for policy in facts["policies"]),
            val_clips=facts["val_clips"],
            test_clips=facts["test_clips"],
        )
    except (KeyError, TypeError) as exc:
        raise TrainError(
            f"evaluating {folder}: its {FACTS} does not say how clips are sampled ({exc!r}). Train "
            "it again with python -m train.fit."
        ) from exc


def _picking_of(facts: dict[str, Any]) -> Picking:
    """Which stored frames a run saw, by what its checkpoint says of it."""
    if facts.get("model", {}).get("still", "none") != "none":
        return "ends"
    picking: Picking = facts.get("input", {}).get("picking", "uniform")
    return picking


def _bundle_picking(facts: Mapping[str, Any]) -> Picking:
    """The same of a bundle, by its training facts."""
    if facts.get("model_still", "none") != "none":
        return "ends"
    picking: Picking = facts.get("input_picking") or "uniform"
    return picking


def _opened_bundle(scorer: BundleScorer, folder: Path, data: str | None) -> Opened:
    manifest = scorer.bundle.manifest
    sampling = manifest.sampling
    return Opened(
        candidate=Candidate(
            scorer=scorer,
            calibration={
                mode: {level: asdict(entry) for level, entry in levels.items()}
                for mode, levels in manifest.calibration.items()
            },
            calibrated_by="the bundle",
        ),
        is_bundle=True,
        spec=_spec(folder, data, RENDERED if manifest.domain == RENDERED else None),
        is_own=False,  # nothing says where that data is, nor that it is the same
        splitting="official",
        own=None,
        picking=_bundle_picking(manifest.training),
        sampling=SamplingRange(
            min_span_s=sampling.min_span_s,
            max_span_s=sampling.max_span_s,
            max_keyframe_gap_s=sampling.max_keyframe_gap_s,
            clips=sampling.clips,
        ),
        policies=tuple(
            EvaluatedPolicy(policy=policy.policy, span_s=policy.span_s)
            for policy in sampling.policies
        ),
        val_clips=None,
        test_clips=None,
    )


def _calibrated(scorer: CheckpointScorer, run: Path) -> Candidate:
    """A run with the calibration that an earlier evaluation fitted, where there was one."""
    try:
        record = json.loads((run / EVALUATION).read_text(encoding="utf-8"))["calibration"]
        calibration = {
            str(mode): {
                str(level): {
                    name: float(record[mode][level][name])
                    for name in ("temperature", "threshold_prob")
                }
                for level in LEVELS
            }
            for mode in MODES
        }
    except FileNotFoundError:
        return Candidate(scorer=scorer)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainError(
            f"reading the calibration of {run / EVALUATION}: it is damaged ({exc!r}). Evaluate the "
            "run on its own data first: python -m train.evaluate without --data."
        ) from exc
    return Candidate(
        scorer=scorer, calibration=calibration, calibrated_by=f"the run's {EVALUATION}"
    )


def _spec(folder: Path, data: str | None, own: str | None) -> str:
    if spec := data or own:
        return spec
    raise TrainError(
        f"evaluating {folder}: what it was trained on is not known here. Say on which data set "
        "with --data: rendered, cityguessr:PATH, msls:PATH, manifest:FILE or shards:PATH."
    )


def task_of(
    opened: Opened,
    split: Split,
    plan: Plan,
    model: Path | None,
    *,
    val_clips: int | None,
    test_clips: int | None,
) -> Task:
    """What to look at.

    A run is calibrated on validation clips of what it was trained on. On other data, and for a
    bundle, the calibration that the model has is used: it is what its user gets.

    Raises:
        DatasetError: a data set cannot be used.
        TrainError: there is nothing to count; the text names `model`, where it has a folder.
    """
    spec, fits = opened.spec, opened.candidate.calibration is None
    val_clips = val_clips or opened.val_clips
    if opened.is_own:
        test_clips = test_clips or opened.test_clips
    if spec == RENDERED:
        return rendered_task(
            split=split,
            sampling=opened.sampling,
            policies=opened.policies,
            val_clips=(val_clips or TEST_CLIPS // 2) if fits else None,
            test_clips=test_clips or TEST_CLIPS,
        )

    counted = open_dataset(spec, split, sampling=opened.sampling, splitting=opened.splitting)
    if not len(counted.entries):
        raise TrainError(_nothing_to_count(counted.name, split, opened, model))
    return dataset_task(
        counted,
        _calibrating(opened, val_clips) if fits else None,
        split=split,
        view=view_of(opened.candidate.scorer, plan),
        policies=opened.policies,
        val_clips=val_clips,
        test_clips=test_clips,
    )


def _calibrating(opened: Opened, val_clips: int | None) -> ClipDataset | None:
    """What calibrates a run that has no calibration: held-out clips of what it was trained on.

    On other data where those are not at hand, the held-out clips of that.
    """
    if opened.own is not None and opened.own.spec != opened.spec:
        with contextlib.suppress(DatasetError):  # it may have been moved, or have no such part
            own = open_dataset(
                opened.own.spec,
                "val",
                sampling=opened.sampling,
                splitting=opened.own.splitting,
                clips=val_clips,
            )
            if len(own.entries):
                return own
        with contextlib.suppress(MissingPartError):
            return open_dataset(opened.spec, "val", sampling=opened.sampling)
        return None
    return open_dataset(opened.spec, "val", sampling=opened.sampling, splitting=opened.splitting)


def _nothing_to_count(name: str, split: Split, opened: Opened, model: Path | None) -> str:
    """What is said where the part that is to be counted is empty."""
    others = ", ".join(word for word in get_args(Split) if word != split)
    text = f"evaluating on {name}: it holds no clips. Count another part with --split ({others})"
    if model is None or opened.is_bundle:
        return f"{text}, or give other footage with --data KIND:PATH."
    return (
        f"{text}, or measure the model on other footage, which geotag export then takes: "
        f"{evaluation_elsewhere(model)}"
    )


def evaluation_elsewhere(run: Path) -> str:
    """The command that measures a run on other footage, so that export takes what it finds."""
    return f"python -m train.evaluate --model {run} --data KIND:PATH --out {run}"
