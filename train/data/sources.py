"""Every kind of dataset by one line of text, such as `cityguessr:/data/CityGuessr68k`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from train.data.clips import RenderedClips
from train.data.dataset import SamplingRange
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.data.dataset import ClipDataset, Split

Splitting = Literal["official", "blocks", "drives"]

RENDERED_CLIPS = 2400
"""Of the rendered world, where nothing says how many."""


def open_dataset(
    spec: str,
    split: Split,
    *,
    sampling: SamplingRange | None = None,
    splitting: Splitting = "official",
    clips: int | None = None,
    seed: int = 0,
) -> ClipDataset:
    """Open one split of a dataset.

    Args:
        spec: `rendered`, or `KIND:PATH` with a kind of SOURCES.
        split: which part.
        sampling: the clips drawn from footage with real time; None for what is usual.
        splitting: who decides what belongs to which split.
        clips: of the rendered world: how many.
        seed: of the rendered world: other drives.

    Raises:
        DatasetError: an unknown kind, no such path, or an unusable dataset.
    """
    sampling = sampling or SamplingRange()
    kind, _, path = spec.partition(":")
    if kind == "rendered" and not path:
        count = RENDERED_CLIPS if clips is None else clips
        return RenderedClips(split=split, clips=count, sampling=sampling, seed=seed)
    opener = SOURCES.get(kind)
    if opener is None or not path:
        raise DatasetError(
            f"opening the dataset {spec!r}: it is `rendered` or KIND:PATH, where KIND is one of "
            f"{', '.join(sorted(SOURCES))}."
        )
    if not Path(path).exists():
        raise DatasetError(f"opening the dataset {spec!r}: there is no {path}.")
    return opener(Path(path), split, sampling, splitting)


def _open_cityguessr(
    path: Path, split: Split, sampling: SamplingRange, splitting: Splitting
) -> ClipDataset:
    from train.data.cityguessr import open_cityguessr

    return open_cityguessr(path, split, splitting=splitting)


def _open_msls(
    path: Path, split: Split, sampling: SamplingRange, splitting: Splitting
) -> ClipDataset:
    from train.data.msls import open_msls

    return open_msls(path, split)


def _open_manifest(
    path: Path, split: Split, sampling: SamplingRange, splitting: Splitting
) -> ClipDataset:
    from train.data.manifest import open_manifest

    return open_manifest(path, split, sampling=sampling)


def _open_shards(
    path: Path, split: Split, sampling: SamplingRange, splitting: Splitting
) -> ClipDataset:
    from train.data.shards import open_shards

    return open_shards(path, split)


SOURCES: dict[str, Callable[[Path, Split, SamplingRange, Splitting], ClipDataset]] = {
    "cityguessr": _open_cityguessr,
    "manifest": _open_manifest,
    "msls": _open_msls,
    "shards": _open_shards,
}
"""What stands before the colon."""
