"""Pack a dataset into shards of small pictures, which training reads many times faster.

    python -m train.pack cityguessr:/data/CityGuessr68k --out packed
    python -m train.pack manifest:labels.csv --out packed --frames 32 --seed 0
    python -m train.pack --check packed

The folder is then a dataset itself, `shards:packed`. Interrupted, the same command goes on; shards
that are finished are kept.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.bundle import Policy, Resize
from engines.choose import usable_cores
from geotag.errors import EXIT_SOME_FAILED
from train.data.dataset import Picking, Split
from train.data.packing import pack
from train.data.shard_index import Packing, read_index
from train.data.shards import open_shards
from train.data.sources import RENDERED_CLIPS, Splitting, notes_of, open_dataset, parse_place
from train.endings import telling
from train.errors import DatasetError
from train.files import refuse_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from train.data.dataset import ClipDataset
    from train.data.packing import PackReport

MOST_BAD_TOLD = 10
BESIDE = ("text_table.safetensors", "scenes.safetensors")
"""Files of a dataset that belong to its clips by their names, so that they fit packed ones too."""

EMPTY: dict[Split, str] = {
    "train": "there is nothing to learn from",
    "val": (
        "about a tenth of what is trained on is held out, by whole drives or runs of clips, and "
        "there are too few of them: no weights will be chosen and no confidences calibrated"
    ),
    "test": "a model that is trained on this folder will not be evaluated at the end",
}
"""What it means that a split holds no clip."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    spec: Annotated[
        str | None,
        typer.Argument(
            help="Dataset: rendered, cityguessr:PATH, msls:PATH, manifest:FILE or shards:PATH."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to pack into.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Instead: read a packed folder through, against its hashes.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Part to pack; repeatable. Default: all three.")
    ] = None,
    splitting: Annotated[
        str, typer.Option(help="Who decides on the splits: official, blocks or drives.")
    ] = "official",
    clips: Annotated[int, typer.Option(min=1, help="Clips of the rendered world.")] = (
        RENDERED_CLIPS
    ),
    frames: Annotated[
        str, typer.Option(help="Stored of each clip, evenly spaced: a number, or all there are.")
    ] = "all",
    image_px: Annotated[int, typer.Option(help="Side of the stored pictures.")] = 256,
    resize: Annotated[str, typer.Option(help="squash, or crop to the middle.")] = "squash",
    quality: Annotated[int, typer.Option(help="Of the JPEGs.")] = 90,
    picking: Annotated[str, typer.Option(help="Rule by which a number of frames is picked.")] = (
        "uniform"
    ),
    policy: Annotated[
        str | None, typer.Option(help="Of video: dense, exact or keyframe. Default: drawn.")
    ] = None,
    span_s: Annotated[
        float | None, typer.Option(help="Of video: seconds a clip covers. Default: drawn.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of what is drawn. Default: no randomness.")
    ] = None,
    clips_per_shard: Annotated[int, typer.Option(help="Clips in one file.")] = 1000,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read. Default: one a core.")
    ] = None,
) -> None:
    """Pack a dataset into shards of small pictures."""
    console = Console(stderr=True)
    command = shlex.join(["python", "-m", "train.pack", *sys.argv[1:]])
    stopped = f"stopped. Finished shards are kept; to go on, repeat: {command}"
    with telling(console, stopped="stopped" if check is not None else stopped):
        if check is not None:
            _check(check, console)
            return
        if spec is None or out is None:
            raise DatasetError("packing clips: give a dataset and --out FOLDER, or --check FOLDER.")
        refuse_file(out, doing="packing into")
        packing = Packing(
            frames=_frames(frames),
            image_px=image_px,
            resize=_one_of("--resize", resize, get_args(Resize)),
            quality=quality,
            picking=_one_of("--picking", picking, get_args(Picking)),
            policy=None if policy is None else _one_of("--policy", policy, get_args(Policy)),
            span_s=span_s,
            seed=seed,
            clips_per_shard=clips_per_shard,
        )
        opened = _open_all(
            spec,
            [_one_of("--split", name, get_args(Split)) for name in split or get_args(Split)],
            _one_of("--splitting", splitting, get_args(Splitting)),
            clips,
        )
        reports = pack_all(
            opened,
            out,
            packing,
            workers=usable_cores() if workers is None else workers,
            beside=find_beside(spec),
            console=console,
        )
    _tell(reports, out, console)
    if any(report.bad for report in reports.values()):
        raise typer.Exit(EXIT_SOME_FAILED)


def pack_all(
    opened: dict[Split, ClipDataset],
    out: Path,
    packing: Packing,
    *,
    workers: int,
    beside: Sequence[Path] = (),
    console: Console,
) -> dict[Split, PackReport]:
    """Pack several splits, with progress on a terminal.

    Raises:
        DatasetError: see `train.data.packing.pack`.
    """
    columns = (
        TextColumn("packing {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips,"),
        TimeRemainingColumn(),
    )
    for split, dataset in opened.items():
        if not len(dataset.entries):
            console.print(f"{split} has no clips: {EMPTY[split]}", markup=False, highlight=False)
    reports: dict[Split, PackReport] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for split, dataset in opened.items():
            for note in notes_of(dataset):
                console.print(f"{split}: {note}", markup=False)
            task = progress.add_task(split, total=len(dataset.entries))
            reports[split] = pack(
                dataset,
                out,
                split,
                packing,
                workers=workers,
                beside=beside,
                progress=_advance(progress, task),
            )
    return reports


def find_beside(spec: str) -> tuple[Path, ...]:
    """Tables of texts and scenes that lie beside a dataset, where training looks for them."""
    path, _ = parse_place(spec.partition(":")[2])
    if not path:
        return ()
    place = Path(path).expanduser()
    folder = place if place.is_dir() else place.parent
    return tuple(folder / name for name in BESIDE if (folder / name).is_file())


def _advance(progress: Progress, task: object) -> Callable[[int], None]:
    return lambda clips: progress.update(task, advance=clips)  # type: ignore[arg-type]


def _open_all(
    spec: str, splits: Sequence[Split], splitting: Splitting, clips: int
) -> dict[Split, ClipDataset]:
    return {split: open_dataset(spec, split, splitting=splitting, clips=clips) for split in splits}


def _check(folder: Path, console: Console) -> None:
    index = read_index(folder)
    named = {shard.file for packed in index.splits.values() for shard in packed.shards}
    # What lies there while a packing goes on, or was interrupted, is named when it is finished.
    begun = {path.stem for path in folder.glob("*.packing")}
    found = {path.name for path in folder.glob("*.tar") if path.name.split("-")[0] not in begun}
    if strange := sorted(found - named):
        raise DatasetError(
            f"checking {folder}: its index does not name {', '.join(strange)}, which an earlier "
            "packing left. Take such files away, or pack again."
        )
    for split in sorted(index.splits):
        dataset = open_shards(folder, split, verify=True)  # type: ignore[arg-type]
        console.print(
            f"{split}: {len(dataset.entries)} clips, every shard as it was packed", markup=False
        )


def _frames(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise DatasetError(f"packing clips: --frames {text!r}; allowed are a number, or all.")
    return int(text)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:  # noqa: ANN401
    if value not in allowed:
        raise DatasetError(f"packing clips: {option} {value!r}; allowed are {', '.join(allowed)}.")
    return value


def _tell(reports: dict[Split, PackReport], out: Path, console: Console) -> None:
    for split, report in reports.items():
        earlier = f", {report.kept} of an earlier run" if report.kept else ""
        console.print(
            f"{split}: {report.clips} clips in {report.shards} shards{earlier}; "
            f"{len(report.bad)} could not be packed",
            markup=False,
        )
        if not report.clips + len(report.bad):
            console.print(f"  {EMPTY[split]}", markup=False, highlight=False)
        for name, reason in report.bad[:MOST_BAD_TOLD]:
            console.print(f"  {name}: {reason}", markup=False)
        if len(report.bad) > MOST_BAD_TOLD:
            console.print(f"  and {len(report.bad) - MOST_BAD_TOLD} more: see {out}/index.json")
        if report.bad:
            console.print(
                "  once they are mended, pack into another folder: this one keeps what it has"
            )
    console.print(f"Next: train on shards:{out}", markup=False)


if __name__ == "__main__":
    app()
