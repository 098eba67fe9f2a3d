"""One evaluation: a model on what a task looks at, to all the numbers of `evaluation.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibration.estimates import REPEATS
from engines.bundle import LEVELS, Level
from train.data.clips import RenderedClips
from train.data.dataset import View
from train.errors import TrainError
from train.evaluation.calibrate import calibrate, uncalibrated
from train.evaluation.metrics import Outcomes, Predictions, compare_top1, join
from train.evaluation.predict import Scored, fuse_drives, predict
from train.evaluation.report import (
    MODES,
    SHOWN_MODE,
    Context,
    bad_samples,
    drive_report,
    judge_calibrated,
    report,
)
from train.evaluation.sets import RENDERED, Pass, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from train.config import EvaluatedPolicy
    from train.data.dataset import Picking
    from train.evaluation.report import Calibration
    from train.evaluation.scorers import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a model is looked at."""

    clips: int = 1
    """Clips of each sample that are fused into its answer."""
    by_drive: bool = False
    """Whether drives are reported too, all their samples fused."""
    picking: Picking = "uniform"
    """For data sets of stored frames: which are taken."""
    repeats: int = REPEATS
    """Bootstrap replicates of every interval."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model, and how its confidences are to be read where nothing here calibrates them."""

    scorer: Scorer
    calibration: Calibration | None = None
    """None for temperature 1."""
    calibrated_by: str = "nothing: temperature 1"
    """Where that calibration comes from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pipeline:
    """What reads and scores clips."""

    plan: Plan
    workers: int
    console: Console

    def run(self, scorer: Scorer, given: Pass) -> Scored:
        view = view_of(scorer, self.plan, given.policy)
        return predict(
            scorer,
            given.dataset,
            view,
            indices=given.indices,
            workers=self.workers,
            console=self.console,
            title=given.title,
        )

    def run_all(self, scorer: Scorer, passes: Sequence[Pass]) -> list[Scored]:
        return [self.run(scorer, given) for given in passes]


def evaluate(
    candidate: Candidate,
    task: Task,
    plan: Plan,
    *,
    against: Candidate | None = None,
    workers: int,
    console: Console,
    command: str,
) -> dict[str, Any]:
    """All numbers of a model on what a task looks at, as JSON values.

    Args:
        candidate: the model.
        task: which clips calibrate and are counted.
        plan: how they are looked at.
        against: a second model, whose difference is reported on the same clips.
        workers: reading processes.
        console: where progress is shown.
        command: what a reader types to get these numbers.

    Raises:
        DatasetError: a data set cannot be used, or holds no readable sample.
        TrainError: the second model reads other samples.
        EngineError: a bundle's engine fails.
    """
    pipeline = _Pipeline(plan=plan, workers=workers, console=console)
    scorer, dataset = candidate.scorer, task.tests[0].dataset
    context = Context(
        model=scorer.hierarchy, given=dataset.hierarchy, repeats=plan.repeats, seed=plan.seed
    )
    val = None if task.val is None else pipeline.run(scorer, task.val)
    calibration, calibrated_by = _calibration(candidate, task, val)
    scorer.take_routing()  # of the clips that calibrate
    passes = pipeline.run_all(scorer, task.tests)
    routing = scorer.take_routing()
    everything = join([scored.predictions for scored in passes])
    evaluation = {
        "data": RENDERED if isinstance(dataset, RenderedClips) else dataset.name,
        "dataset": dataset.name,
        "split": task.split,
        "model": scorer.label,
        **report(everything, context, calibration),
        "samples": task.total,
        "counted_samples": len(set(everything.names)),
        "clips_per_answer": plan.clips,
        "policies": _policy_records(task, passes, context, calibration),
        "calibration": calibration,
        "calibrated_by": calibrated_by,
        # A sample that cannot be read is bad once, however many ways of sampling asked for it.
        "bad_samples": bad_samples(
            tuple(dict.fromkeys(bad for scored in passes for bad in scored.bad))
        ),
        "bad_val_samples": bad_samples(() if val is None else val.bad),
        "command": command,
    }
    if routing:
        evaluation["routing"] = routing
    if plan.by_drive:
        evaluation["drives"] = _drives(passes, val, context, calibration, nests=scorer.nests)
    if against is not None:
        evaluation["against"] = _against(
            against, task, pipeline, context, everything=everything, calibration=calibration
        )
    return evaluation


def view_of(scorer: Scorer, plan: Plan, policy: EvaluatedPolicy | None = None) -> View:
    """How a model's clips are read under a plan: nothing random, nothing disturbed."""
    frames, image_px, resize = scorer.clip_shape
    return View(
        frames=frames,
        image_px=image_px,
        resize=resize,
        picking=plan.picking,
        policy=None if policy is None else policy.policy,
        span_s=None if policy is None else policy.span_s,
        parts=plan.clips,
    )


def _calibration(candidate: Candidate, task: Task, val: Scored | None) -> tuple[Calibration, str]:
    by = Candidate(scorer=candidate.scorer).calibrated_by
    if task.val is not None and val is not None:
        name = task.val.dataset.name
        if val.predictions.known.any():
            by = f"{len(val.predictions)} clips of {name}"
            if task.val.dataset.name == task.tests[0].dataset.name:
                by += (
                    ", the part that is counted here: it is better calibrated there than elsewhere"
                )
            scorer = candidate.scorer
            return calibrate(val.predictions, scorer.hierarchy, nests=scorer.nests), by
        by += f" (the model knows no city of {name})"
    if candidate.calibration is not None:
        return candidate.calibration, candidate.calibrated_by
    return uncalibrated(nests=candidate.scorer.nests), by


def _policy_records(
    task: Task, passes: list[Scored], context: Context, calibration: Calibration
) -> list[dict[str, Any]]:
    """One record a policy; without accuracy, on 0 clips, where the data set has no time.

    `clips` are those whose city the model knows, or where it knows none of them, those whose
    country it knows.
    """
    measured = {
        given.policy: judge_calibrated(scored.predictions, context.model, SHOWN_MODE, calibration)
        for given, scored in zip(task.tests, passes, strict=True)
        if given.policy is not None
    }
    records = []
    for policy in task.policies:
        found = measured.get(policy)
        counts = {
            level: 0 if found is None else int(found.counted[level].sum()) for level in LEVELS
        }
        records.append(
            {
                "policy": policy.policy,
                "span_s": policy.span_s,
                **{f"{level}_top1": _share_right(found, level) for level in LEVELS},
                "clips": counts["city"] or counts["country"],
                "clips_by_level": counts,
            }
        )
    return records


def _share_right(outcomes: Outcomes | None, level: Level) -> float | None:
    if outcomes is None or not outcomes.counted[level].any():
        return None
    return float(outcomes.right[level][outcomes.counted[level]].mean())


def _drives(
    passes: list[Scored],
    val: Scored | None,
    context: Context,
    calibration: Calibration,
    *,
    nests: bool,
) -> dict[str, Any]:
    """The drive report, with temperatures of its own where validation drives are there to fit."""
    everything = join([scored.predictions for scored in passes])
    # Policies over the same samples are not further clips of their drives.
    if len(set(everything.names)) < len(everything.names):
        everything = passes[0].predictions
    if val is not None and val.predictions.known.any():
        calibration = calibrate(fuse_drives(val.predictions), context.model, nests=nests)
    return {**drive_report(everything, context, calibration), "calibration": calibration}


def _against(
    other: Candidate,
    task: Task,
    pipeline: _Pipeline,
    context: Context,
    *,
    everything: Predictions,
    calibration: Calibration,
) -> dict[str, Any]:
    """Another model on the same clips: by how much the first one's top-1 exceeds its own."""
    val = None if task.val is None else pipeline.run(other.scorer, task.val)
    their_calibration, calibrated_by = _calibration(other, task, val)
    found = join([scored.predictions for scored in pipeline.run_all(other.scorer, task.tests)])
    if found.names != everything.names:
        raise TrainError(
            f"comparing with {other.scorer.label}: it reads {len(found)} clips, the first model "
            f"{len(everything)}, and a paired difference needs the same. Mend the bad samples."
        )
    counts_BN = context.draw(everything.groups)
    record: dict[str, Any] = {"model": other.scorer.label, "calibrated_by": calibrated_by}
    for mode in MODES:
        differences = compare_top1(
            judge_calibrated(everything, context.model, mode, calibration),
            judge_calibrated(found, other.scorer.hierarchy, mode, their_calibration),
            counts_BN,
        )
        record[mode] = {level: differences[level].record() for level in LEVELS}
    return record
