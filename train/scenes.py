"""Scene labels for the clips of a dataset, by a network that was trained on Places365.

    python -m train.scenes --dataset cityguessr:FOLDER --split train \
        --weights resnet50_places365.pth.tar --out FOLDER/scenes.safetensors

The network is the published ResNet-50 (http://places2.csail.mit.edu/models_places365/; CC BY). A
run that was stopped goes on where it was, and splits may share a file.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K = 365 categories, S = 16 scene
groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, Dataset

from train.data.dataset import BadSample, Split, View
from train.data.places365 import CATEGORIES, membership
from train.data.scenes import FILE_NAME, SceneLabels, read_scenes, with_scenes, write_scenes
from train.endings import telling
from train.errors import DatasetError, TrainError, WeightsError
from train.files import refuse_file
from train.models.base import IMAGENET_MEAN, IMAGENET_STD
from train.models.resnet import ResNet
from train.processes import find_device
from train.weights import read_file, some, to_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from train.data.dataset import ClipDataset, Sample

__all__ = ["label_scenes", "read_places_network", "scenes_of_scores", "with_scenes"]

FRAMES = 16
"""Looked at in each clip: those that the model gets, too."""
SQUASH_PX = 256
CROP_PX = 224
"""A picture is squashed to 256 x 256 and its middle 224 x 224 is taken: as the demonstration code
of Places365 does."""
SAVE_EVERY = 500
"""Clips between two writes of the file: what a run that is killed loses at most."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacesNetwork:
    """A network that scores the 365 categories, and the file that it is of."""

    model: nn.Module
    """float [N, 3, 224, 224], normalised -> logits [N, 365]."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneReport:
    """What one run did."""

    labelled: int
    known: int
    """Labelled by an earlier run."""
    bad: tuple[BadSample, ...]


@app.command()
def main(
    dataset: Annotated[str, typer.Option(help="Such as cityguessr:FOLDER or manifest:FILE.")],
    weights: Annotated[Path, typer.Option(help="resnet50_places365.pth.tar of Places365.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    out: Annotated[Path, typer.Option(help="File to write, or to go on with.")] = Path(FILE_NAME),
    frames: Annotated[int, typer.Option(min=1, help="Frames looked at in each clip.")] = FRAMES,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read clips.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Label the clips of a dataset with shares of 16 scene groups."""
    console = Console(stderr=True)
    stopped = f"stopped. What {out} holds is kept; the same command goes on."
    with telling(console, stopped=stopped):
        refuse_file(out.parent, doing="writing scene labels into")
        place = find_device(device)
        clips = _open(dataset, split)
        report = label_scenes(
            clips,
            read_places_network(weights),
            out,
            frames=frames,
            workers=workers,
            device=place,
            tell=console.print,
        )
    for sample in report.bad:
        console.print(f"not labelled: {sample.name}: {sample.reason}", markup=False)
    console.print(
        f"{out}: {report.labelled} clips labelled, {report.known} were already, "
        f"{len(report.bad)} could not be read"
    )
    if report.bad:
        raise typer.Exit(3)


def read_places_network(path: Path) -> PlacesNetwork:
    """Read Places365's ResNet-50 from its published file, strictly.

    Args:
        path: a checkpoint with `state_dict`, whose names may begin with `module.`, or a bare state
            dict; tensors alone are read from it.

    Raises:
        WeightsError: no such file, code in it, or tensors missing, unknown or of another shape.
    """
    weights = read_file(path)
    tensors = {name.removeprefix("module."): value for name, value in weights.tensors.items()}
    # Counts of training steps, which files from before 2018 do not have and scoring does not need.
    tensors = {name: v for name, v in tensors.items() if not name.endswith("num_batches_tracked")}
    with torch.device("meta"):  # no time for random weights: every one is replaced
        model = ResNet(CATEGORIES)
    wanted = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if wrong:
        raise WeightsError(
            f"reading the scene network {path}: {some(wrong)} missing, unknown or of another shape "
            f"than in a ResNet-50 of {CATEGORIES} categories. Take resnet50_places365.pth.tar."
        )
    model.load_state_dict(to_float32(tensors, source=str(path)), assign=True)
    return PlacesNetwork(model=model.eval(), sha256=weights.sha256[path.name])


def label_scenes(
    dataset: ClipDataset,
    network: PlacesNetwork,
    out: Path,
    *,
    frames: int = FRAMES,
    workers: int = 0,
    device: torch.device | str = "cpu",
    save_every: int = SAVE_EVERY,
    tell: Callable[[str], None] = lambda text: None,
) -> SceneReport:
    """Label every clip that the file does not have yet; clips that were unreadable are tried again.

    Args:
        dataset: the clips.
        network: what scores their frames.
        out: written every `save_every` clips, and at the end or when the run is stopped.
        frames: looked at in each clip.
        workers: processes that read clips; 0: this one.
        device: where the network runs.
        save_every: clips between two writes.
        tell: is told how far it is.

    Returns:
        How many clips were labelled, and those that cannot be.

    Raises:
        DatasetError: the file holds labels that were made otherwise, or is none; or a score is no
            number.
        OutputError: the file cannot be written.
    """
    labels = _begin(out, _facts(network, frames))
    names = [entry.name for entry in dataset.entries]
    wanted = [index for index, name in enumerate(names) if name not in labels.soft]
    known = len(names) - len(wanted)
    model, bad = network.model.to(device), []
    try:
        for done, (index, sample) in enumerate(_read(dataset, wanted, frames, workers), start=1):
            name = names[index]
            labels.bad.pop(name, None)
            if isinstance(sample, BadSample):
                bad.append(sample)
                labels.bad[name] = sample.reason
            else:
                scores_TK = _score(model, sample.clip_THWC, name)
                labels.soft[name], labels.majority[name] = scenes_of_scores(scores_TK)
            if done % save_every == 0:
                write_scenes(labels, out)
                tell(f"{done} of {len(wanted)} clips")
    finally:
        if labels.soft or labels.bad:
            write_scenes(labels, out)
    return SceneReport(labelled=len(wanted) - len(bad), known=known, bad=tuple(bad))


def scenes_of_scores(scores_TK: NDArray[np.floating]) -> tuple[NDArray[np.float32], int]:
    """From scores of the 365 categories of a clip's frames to its scene.

    Softmax over the categories of each frame; a group's share is the sum over its categories; the
    mean over the frames. The majority is the group that is the likeliest in the most frames; of
    several, the one with the largest share of the clip.

    Args:
        scores_TK: logits, [T, 365].

    Returns:
        Shares of the 16 groups, float32 [S], sum 1; and the majority group.

    Source: CityGuessr (Kulkarni et al., ECCV 2024), soft and majority scene labels; the order of
        softmax, groups and mean is that of established tools for Places365.
    """
    scores = np.asarray(scores_TK, np.float64)
    powers_TK = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs_TK = powers_TK / powers_TK.sum(axis=1, keepdims=True)
    shares_TS = probs_TK @ membership().astype(np.float64)
    soft_S = shares_TS.mean(axis=0)
    counts_S = np.bincount(shares_TS.argmax(axis=1), minlength=len(soft_S))
    majority = np.lexsort((soft_S, counts_S))[-1]
    return (soft_S / soft_S.sum()).astype(np.float32), int(majority)


def normalise(clip_THWC: NDArray[np.uint8]) -> torch.Tensor:
    """The middle of every frame, as the network takes it.  -> float [T, 3, 224, 224]."""
    edge = (SQUASH_PX - CROP_PX) // 2
    middle_THWC = clip_THWC[:, edge : edge + CROP_PX, edge : edge + CROP_PX]
    pixels = torch.from_numpy(np.ascontiguousarray(middle_THWC)).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return pixels.permute(0, 3, 1, 2)


def _score(model: nn.Module, clip_THWC: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        scores_TK = model(normalise(clip_THWC).to(device)).float().cpu()
    if scores_TK.shape[1:] != (CATEGORIES,) or not bool(torch.isfinite(scores_TK).all()):
        raise DatasetError(
            f"labelling the scene of {name}: the network's scores, {list(scores_TK.shape)}, are "
            f"not {CATEGORIES} finite numbers a frame. Its weights are damaged or another "
            "network's: take resnet50_places365.pth.tar."
        )
    return np.asarray(scores_TK.numpy())


class _Clips(Dataset[Any]):
    """Wanted clips of a dataset, for processes that read them."""

    def __init__(self, dataset: ClipDataset, wanted: list[int], view: View) -> None:
        self.dataset, self.wanted, self.view = dataset, wanted, view

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, number: int) -> tuple[int, Sample | BadSample]:
        index = self.wanted[number]
        return index, self.dataset.read(index, self.view)


def _read(
    dataset: ClipDataset, wanted: list[int], frames: int, workers: int
) -> Iterable[tuple[int, Sample | BadSample]]:
    view = View(frames=frames, image_px=SQUASH_PX)
    clips = _Clips(dataset, wanted, view)
    return DataLoader(clips, batch_size=None, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(found: Any) -> Any:  # noqa: ANN401
    return found


def _facts(network: PlacesNetwork, frames: int) -> dict[str, Any]:
    return {
        "network_sha256": network.sha256,
        "frames": frames,
        "table_sha256": sha256(membership().tobytes()).hexdigest(),
    }


def _begin(out: Path, facts: dict[str, Any]) -> SceneLabels:
    """What an earlier run left, where it was made the same way; else nothing yet."""
    if not out.exists():
        return SceneLabels(facts=facts)
    labels = read_scenes(out)
    other = [name for name in facts if labels.facts.get(name) != facts[name]]
    if other:
        raise DatasetError(
            f"labelling scenes into {out}: the {len(labels.soft)} labels in it were made with "
            f"another {', '.join(other)}. Choose another --out, or delete it."
        )
    return labels


def _open(spec: str, split: str) -> ClipDataset:
    from train.data.sources import open_dataset

    if split not in get_args(Split):
        raise TrainError(f"--split {split}: allowed are {', '.join(get_args(Split))}.")
    return open_dataset(spec, cast("Split", split))


if __name__ == "__main__":
    app()
