"""How good a model is on a data set, in every decoding mode, with intervals; and calibration.

    python -m train.evaluate --model runs/demo
    python -m train.evaluate --model geotag/demo_bundle --test-clips 90 --out evaluation
    python -m train.evaluate --model bundles/mine --precision int8 --against bundles/mine
    python -m train.evaluate --model runs/cityguessr --data msls:/data/msls --by-drive --clips 4

`evaluation.json` holds every number, `confusion.png` and `reliability.png` show them. The one in
the run folder is what `geotag export` takes: an evaluation of another kind lies in a folder beside
it, unless `--out` says that it is to take its place.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console

from engines.bundle import PRECISIONS, Precision
from engines.choose import usable_cores
from geotag.errors import OutputError
from train.checkpoint import EVALUATION, PICTURES
from train.data.clips import RenderedClips, rendered_hierarchy
from train.data.dataset import Picking, Split
from train.data.sources import Splitting, open_dataset
from train.endings import telling
from train.errors import TrainError
from train.evaluation.measure import Candidate, Plan, evaluate
from train.evaluation.opened import Opened, open_for, task_of
from train.evaluation.plots import draw_plots, need_matplotlib
from train.evaluation.scorers import CheckpointScorer, seen_stills
from train.evaluation.sets import RENDERED
from train.evaluation.tables import show_evaluation
from train.files import refuse_file, write_aside
from train.processes import find_device

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.evaluation.sets import Pass
    from train.models.base import GeoModel
    from train.stills import Looks

TABLE_COLUMNS = 100
"""Width of the printed tables, also where the output is a file."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[
        Path,
        typer.Option("--model", "--checkpoint", help="Run folder of train.fit, or a bundle."),
    ],
    precision: Annotated[
        str | None, typer.Option(help="Of a bundle: fp32, fp16 or int8. [default: fp32]")
    ] = None,
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
        int | None,
        typer.Option(
            min=1, help="Samples that calibrate. Default: as many as the run was trained with."
        ),
    ] = None,
    test_clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples that are counted. Default: as many as the run was trained with; of other "
            "data all, of the rendered world 900.",
        ),
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
            "test data is counted, as much as it was trained with; else a folder in it named after "
            "the data; ./evaluation for a bundle. With the run folder itself, geotag export takes "
            "this evaluation."
        ),
    ] = None,
    plots: Annotated[bool, typer.Option(help="Draw confusion.png and reliability.png.")] = True,
) -> None:
    """Measure a model on a data set, calibrate it, and write evaluation.json and two plots."""
    console = Console(stderr=True)
    with telling(console, stopped="stopped; nothing was written"):
        if plots:
            need_matplotlib()
        if out is not None:
            refuse_file(out, doing="writing the evaluation into")
        place = find_device(device)
        opened = open_for(model, data, place, _precision(precision))
        if splitting is not None and splitting != opened.splitting:
            opened = replace(opened, splitting=_splitting(splitting), is_own=False)
        plan = Plan(
            clips=clips,
            by_drive=by_drive,
            picking=steady(opened.picking) if picking is None else _picking(picking),
        )
        task = task_of(
            opened, _split(split), plan, model, val_clips=val_clips, test_clips=test_clips
        )
        evaluation = evaluate(
            opened.candidate,
            task,
            plan,
            against=None if against is None else open_for(against, opened.spec, place).candidate,
            workers=usable_cores() if workers is None else workers,
            console=console,
            command=shlex.join(["python", "-m", "train.evaluate", *sys.argv[1:]]),
        )
        folder = out or _default_out(
            opened,
            split,
            plan,
            model,
            val_clips=_unusual(val_clips, opened.val_clips, _held_by(task.val)),
            test_clips=_unusual(
                test_clips, opened.test_clips if opened.is_own else None, _held_by(task.tests[0])
            ),
        )
        write_evaluation(evaluation, folder, plots=plots)
        show_evaluation(evaluation, Console(width=TABLE_COLUMNS))
        console.print(f"written to {folder}", highlight=False, markup=False, soft_wrap=True)
        if not opened.is_bundle and not (model / EVALUATION).is_file():
            console.print(
                f"geotag export takes {model / EVALUATION}, which is not there yet: with "
                f"--out {model} this evaluation is the one.",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def write_evaluation(evaluation: dict[str, Any], folder: Path, *, plots: bool) -> None:
    """Write `evaluation.json`, with its pictures or without; those of an earlier one are removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation, indent=2, allow_nan=False) + "\n"
        for picture in PICTURES:
            (folder / picture).unlink(missing_ok=True)
        write_aside(folder / EVALUATION, text.encode())
        if plots:
            draw_plots(evaluation, folder)
    except OSError as exc:
        raise OutputError(
            f"writing the evaluation into {folder}: {exc}. Choose another --out."
        ) from exc


def evaluate_run(
    model: GeoModel,
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
    opened = Opened(
        candidate=Candidate(scorer=scorer),
        is_bundle=False,
        spec=config.data,
        is_own=True,
        splitting=config.splitting,
        own=None,
        picking=seen,
        sampling=config.sampling,
        policies=config.policies,
        val_clips=config.val_clips,
        test_clips=config.test_clips,
    )
    return evaluate(
        opened.candidate,
        task_of(opened, "test", plan, None, val_clips=None, test_clips=None),
        plan,
        workers=workers,
        console=console,
        command=command,
    )


def steady(picking: Picking) -> Picking:
    """How evaluation picks the frames of a model that was trained so: mixed is drawn at random."""
    return "uniform" if picking == "mixed" else picking


def _held_by(given: Pass | None) -> int | None:
    """How many samples a pass could take; None without end."""
    if given is None or isinstance(given.dataset, RenderedClips):
        return None
    return len(given.dataset.entries)


def _unusual(asked: int | None, usual: int | None, held: int | None) -> int | None:
    """How many samples were asked for, where that is not as many as usual."""
    if asked is None or asked == usual:
        return None
    if held is not None and min(asked, held) == min(held if usual is None else usual, held):
        return None
    return asked


def _default_out(
    opened: Opened,
    split: str,
    plan: Plan,
    model: Path,
    *,
    val_clips: int | None,
    test_clips: int | None,
) -> Path:
    """The run folder for the evaluation that export reads; no other may take its place."""
    if opened.is_bundle:
        return Path("evaluation")
    usual = steady(opened.picking)
    own = "official" if opened.own is None else opened.own.splitting
    kind, _, path = opened.spec.partition(":")
    further = [
        opened.splitting * (opened.splitting != own),
        plan.picking * (plan.picking != usual),
        f"{plan.clips} clips" * (plan.clips > 1),
        f"{test_clips} samples" * (test_clips is not None),
        f"{val_clips} calibrating" * (val_clips is not None),
    ]
    if opened.is_own and split == "test" and not any(further):
        return model
    words = ["evaluation", kind, Path(path).name, split, *further]
    return model / re.sub(r"[^\w.]+", "-", " ".join(filter(None, words)))


def _split(text: str) -> Split:
    for known in get_args(Split):
        if text == known:
            return cast("Split", known)
    raise TrainError(f"--split {text!r}: allowed are {', '.join(get_args(Split))}.")


def _precision(given: str | None) -> Precision | None:
    if given is not None and given not in PRECISIONS:
        raise TrainError(f"--precision {given}: allowed are {', '.join(PRECISIONS)}.")
    return given


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
