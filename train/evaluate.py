"""How good a model is on a data set, in every decoding mode, with intervals; and calibration.

    python -m train.evaluate --model runs/demo
    python -m train.evaluate --model geotag/demo_bundle --test-clips 90 --out evaluation
    python -m train.evaluate --model runs/cityguessr --data msls:/data/msls --by-drive --clips 4

`evaluation.json` holds every number, `confusion.png` and `reliability.png` show them.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import torch
import typer
from rich.console import Console

from engines.base import EngineError
from engines.bundle import LEVELS
from engines.choose import usable_cores
from geotag.errors import EXIT_ENGINE, ConfigError, GeotagError, OutputError
from train.checkpoint import EVALUATION, FACTS
from train.config import EvaluatedPolicy, SamplingRange, TrainConfig
from train.data.clips import rendered_hierarchy
from train.data.dataset import Picking, Split
from train.data.sources import Splitting, open_dataset
from train.errors import TrainError
from train.evaluation.measure import Candidate, Plan, evaluate, view_of
from train.evaluation.plots import draw_plots, need_matplotlib
from train.evaluation.report import MODES
from train.evaluation.scorers import BundleScorer, CheckpointScorer, open_model, seen_stills
from train.evaluation.sets import RENDERED, Task, dataset_task, rendered_task
from train.evaluation.tables import show_evaluation
from train.processes import find_device

if TYPE_CHECKING:
    from train.data.dataset import ClipDataset
    from train.models.geolocator import Geolocator
    from train.stills import Looks

TABLE_COLUMNS = 100
"""Width of the printed tables, also where the output is a file."""
TEST_CLIPS = 900
"""Rendered clips that a model is measured on where nothing else is asked."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A model with what its folder says of how to evaluate it."""

    candidate: Candidate
    is_bundle: bool
    spec: str
    """What it is evaluated on."""
    is_own: bool
    """Whether that is what it was trained on."""
    splitting: Splitting
    picking: Picking
    """Of the stored frames that it saw."""
    sampling: SamplingRange
    policies: tuple[EvaluatedPolicy, ...]
    val_clips: int | None
    test_clips: int | None


@app.command()
def main(
    model: Annotated[
        Path,
        typer.Option("--model", "--checkpoint", help="Run folder of train.fit, or a bundle."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="rendered, cityguessr:PATH, msls:PATH, manifest:FILE or shards:PATH. "
            "Default: what the model was trained on."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="What is counted: test, val or train.")] = "test",
    clips: Annotated[
        int, typer.Option(min=1, help="Clips of each sample, fused into its answer.")
    ] = 1,
    by_drive: Annotated[
        bool, typer.Option("--by-drive", help="Report drives too: all their clips fused.")
    ] = False,
    picking: Annotated[
        str | None,
        typer.Option(
            help="Stored frames taken: uniform, ends, reference or lexicographic. Default: as "
            "trained, uniform for mixed."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another model, compared on the same clips.")
    ] = None,
    val_clips: Annotated[
        int | None, typer.Option(min=1, help="Samples that calibrate. Default: the run's.")
    ] = None,
    test_clips: Annotated[
        int | None, typer.Option(min=1, help="Samples that are counted. Default: the run's.")
    ] = None,
    splitting: Annotated[
        str | None,
        typer.Option(help="Of CityGuessr68k: official, blocks or drives. Default: as trained."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Of a run: cpu, cuda or auto. A bundle runs on the CPU.")
    ] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Reading processes.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json and the plots. Default: the run folder, where its own "
            "test data is counted; else a folder in it named after the data; ./evaluation for a "
            "bundle."
        ),
    ] = None,
    plots: Annotated[bool, typer.Option(help="Draw confusion.png and reliability.png.")] = True,
) -> None:
    """Measure a model on a data set, calibrate it, and write evaluation.json and two plots."""
    console = Console(stderr=True)
    try:
        if plots:
            need_matplotlib()
        place = find_device(device)
        opened = _open(model, data, place)
        if splitting is not None:
            opened = replace(opened, splitting=_splitting(splitting), is_own=False)
        plan = Plan(
            clips=clips,
            by_drive=by_drive,
            picking=steady(opened.picking) if picking is None else _picking(picking),
        )
        evaluation = evaluate(
            opened.candidate,
            _task(opened, _split(split), plan, val_clips=val_clips, test_clips=test_clips),
            plan,
            against=None if against is None else _open(against, opened.spec, place).candidate,
            workers=usable_cores() if workers is None else workers,
            console=console,
            command=shlex.join(["python", "-m", "train.evaluate", *sys.argv[1:]]),
        )
        folder = out or _default_out(opened, split, plan, model)
        _write(evaluation, folder, plots=plots)
    except ConfigError as exc:
        raise typer.BadParameter(str(exc)) from exc
    except (GeotagError, EngineError) as exc:
        console.print(f"error: {exc}", style="red", highlight=False)
        code = exc.exit_code if isinstance(exc, GeotagError) else EXIT_ENGINE
        raise typer.Exit(code) from exc
    show_evaluation(evaluation, Console(width=TABLE_COLUMNS))
    console.print(f"written to {folder}", highlight=False)


def evaluate_run(
    model: Geolocator,
    config: TrainConfig,
    *,
    workers: int,
    console: Console,
    command: str,
    plan: Plan | None = None,
    still: Looks | None = None,
) -> dict[str, Any]:
    """Calibrate on validation clips, count on test clips.  -> what evaluation.json holds.

    Args:
        model: trained by `config`.
        config: its data, sampling, policies, and how many clips calibrate and are counted.
        workers: reading processes.
        console: where progress is shown.
        command: what a reader types to get these numbers.
        plan: how clips are looked at; None for one clip each, its frames picked as in training.
        still: of a model of single pictures: the frame it is shown, if not as it was trained.

    Raises:
        DatasetError: the data set cannot be used.
    """
    seen: Picking = "ends" if config.model.still != "none" else config.input.picking
    plan = plan or Plan(picking=steady(seen))
    if config.data == RENDERED:
        hierarchy = rendered_hierarchy()
    else:
        # The tree that was trained on: another split may lack places.
        hierarchy = open_dataset(
            config.data, "train", sampling=config.sampling, splitting=config.splitting
        ).hierarchy
    shown = seen_stills(asdict(config.model))
    scorer = CheckpointScorer(
        model,
        hierarchy,
        label=config.preset,
        resize=config.input.resize,
        **(shown | {"still": still} if still else shown),
    )
    opened = _Opened(
        candidate=Candidate(scorer=scorer),
        is_bundle=False,
        spec=config.data,
        is_own=True,
        splitting=config.splitting,
        picking=seen,
        sampling=config.sampling,
        policies=config.policies,
        val_clips=config.val_clips,
        test_clips=config.test_clips,
    )
    return evaluate(
        opened.candidate,
        _task(opened, "test", plan, val_clips=None, test_clips=None),
        plan,
        workers=workers,
        console=console,
        command=command,
    )


def steady(picking: Picking) -> Picking:
    """How evaluation picks the frames of a model that was trained so: mixed is drawn at random."""
    return "uniform" if picking == "mixed" else picking


def _open(folder: Path, data: str | None, device: torch.device) -> _Opened:
    """Open a model, and find out how it is to be evaluated on `data`; None: what it learned."""
    opened = open_model(folder, device)
    if isinstance(opened, BundleScorer):
        return _opened_bundle(opened, folder, data)
    scorer, record = opened
    facts = record["training"]
    own = None if facts.get("data") is None else str(facts["data"])
    spec = _spec(folder, data, own)
    candidate = Candidate(scorer=scorer) if spec == own else _calibrated(scorer, folder)
    try:
        return _Opened(
            candidate=candidate,
            is_bundle=False,
            spec=spec,
            is_own=spec == own,
            splitting=facts.get("splitting", "official") if spec == own else "official",
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


def _opened_bundle(scorer: BundleScorer, folder: Path, data: str | None) -> _Opened:
    manifest = scorer.bundle.manifest
    sampling = manifest.sampling
    return _Opened(
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
        picking=str(manifest.training.get("input_picking") or "uniform"),  # type: ignore[arg-type]
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


def _task(
    opened: _Opened,
    split: Split,
    plan: Plan,
    *,
    val_clips: int | None,
    test_clips: int | None,
) -> Task:
    """What to look at.

    A run is calibrated on validation clips of what it was trained on. On other data, and for a
    bundle, the calibration that the model has is used: it is what its user gets.
    """
    spec, fits = opened.spec, opened.candidate.calibration is None
    if opened.is_own:
        val_clips, test_clips = val_clips or opened.val_clips, test_clips or opened.test_clips
    if spec == RENDERED:
        return rendered_task(
            split=split,
            sampling=opened.sampling,
            policies=opened.policies,
            val_clips=(val_clips or TEST_CLIPS // 2) if fits else None,
            test_clips=test_clips or TEST_CLIPS,
        )

    def part(split: Split) -> ClipDataset:
        return open_dataset(spec, split, sampling=opened.sampling, splitting=opened.splitting)

    return dataset_task(
        part(split),
        part("val") if fits else None,
        split=split,
        view=view_of(opened.candidate.scorer, plan),
        policies=opened.policies,
        val_clips=val_clips,
        test_clips=test_clips,
    )


def _default_out(opened: _Opened, split: str, plan: Plan, model: Path) -> Path:
    """The run folder for the evaluation that export reads; no other may take its place."""
    if opened.is_bundle:
        return Path("evaluation")
    usual = steady(opened.picking)
    if opened.is_own and split == "test" and plan.clips == 1 and plan.picking == usual:
        return model
    kind, _, path = opened.spec.partition(":")
    words = [kind, Path(path).name, split, plan.picking * (plan.picking != usual)]
    words += [f"{plan.clips} clips"] if plan.clips > 1 else []
    return model / re.sub(r"[^\w.]+", "-", " ".join(["evaluation", *filter(None, words)]))


def _write(evaluation: dict[str, Any], folder: Path, *, plots: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation, indent=2, allow_nan=False) + "\n"
        (folder / EVALUATION).write_text(text, encoding="utf-8", newline="\n")
        if plots:
            draw_plots(evaluation, folder)
    except OSError as exc:
        raise OutputError(
            f"writing the evaluation into {folder}: {exc}. Choose another --out."
        ) from exc


def _split(text: str) -> Split:
    for known in get_args(Split):
        if text == known:
            return cast("Split", known)
    raise TrainError(f"--split {text!r}: allowed are {', '.join(get_args(Split))}.")


def _splitting(text: str) -> Splitting:
    for known in get_args(Splitting):
        if text == known:
            return cast("Splitting", known)
    raise TrainError(f"--splitting {text!r}: allowed are {', '.join(get_args(Splitting))}.")


def _picking(text: str) -> Picking:
    for known in get_args(Picking):
        if text == known and text != "mixed":  # mixed draws at random: for training
            return cast("Picking", known)
    allowed = [known for known in get_args(Picking) if known != "mixed"]
    raise TrainError(f"--picking {text!r}: allowed are {', '.join(allowed)}.")


if __name__ == "__main__":
    app()
