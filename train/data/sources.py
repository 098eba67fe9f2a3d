"""Every kind of dataset by one line of text, such as `cityguessr:/data/CityGuessr68k`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from train.data.clips import RenderedClips
from train.data.dataset import SamplingRange
from train.data.timed import with_frame_s
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.data.dataset import ClipDataset, Split

Splitting = Literal["official", "blocks", "drives"]

RENDERED_CLIPS = 2400
"""Of the rendered world, where nothing says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a dataset of files is opened with."""

    path: Path
    split: Split
    sampling: SamplingRange
    splitting: Splitting
    words: dict[str, str]
    """What stands behind the question mark."""


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
        spec: `rendered`, or `KIND:PATH` with a kind of SOURCES, and maybe `?WORD&WORD`: `partial`
            for a part of a published dataset; `frame-s=SECONDS` between stored frames, where it is
            known; `spatial` and `test-cities` of Mapillary MSLS; `footage=FOLDER` of a manifest.
        split: which part.
        sampling: the clips drawn from footage with real time; None for what is usual.
        splitting: who decides what belongs to which split.
        clips: of the rendered world: how many.
        seed: of the rendered world: other drives.

    Raises:
        DatasetError: an unknown kind or word, no such path, or an unusable dataset.
    """
    sampling = sampling or SamplingRange()
    kind, _, rest = spec.partition(":")
    if spec == "rendered":
        if splitting != "official":
            raise DatasetError(
                f"opening the dataset 'rendered': it cannot be divided by {splitting}; its parts "
                "are different drives already. Leave out --splitting."
            )
        count = RENDERED_CLIPS if clips is None else clips
        return RenderedClips(split=split, clips=count, sampling=sampling, seed=seed)
    path, words = parse_place(rest)
    source = SOURCES.get(kind)
    if source is None or not path:
        raise DatasetError(
            f"opening the dataset {spec!r}: it is `rendered` or KIND:PATH, where KIND is one of "
            f"{', '.join(sorted(SOURCES))}."
        )
    if unknown := sorted(set(words) - set(source.words)):
        raise DatasetError(
            f"opening the dataset {spec!r}: {', '.join(unknown)} says nothing to {kind}; behind "
            f"the question mark it takes {', '.join(source.words) or 'nothing'}."
        )
    if splitting not in source.splittings:
        raise DatasetError(
            f"opening the dataset {spec!r}: {kind} cannot be divided by {splitting}; "
            f"what can be chosen is {', '.join(source.splittings)}."
        )
    if not Path(path).expanduser().exists():
        raise DatasetError(f"opening the dataset {spec!r}: there is no file or folder {path}.")
    request = Request(
        path=Path(path).expanduser(),
        split=split,
        sampling=sampling,
        splitting=splitting,
        words=words,
    )
    dataset = source.open(request)
    return with_frame_s(dataset, words["frame-s"]) if "frame-s" in words else dataset


def parse_place(text: str) -> tuple[str, dict[str, str]]:
    """`PATH?WORD&NAME=VALUE` -> the path, and the words with their values."""
    path, _, query = text.partition("?")
    pairs = (word.partition("=") for word in query.split("&") if word)
    return path, {name: value for name, _, value in pairs}


def notes_of(dataset: ClipDataset) -> tuple[str, ...]:
    """What a person should know of an opened dataset, such as clips that were left out."""
    return tuple(getattr(dataset, "notes", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A kind of dataset."""

    open: Callable[[Request], ClipDataset]
    words: tuple[str, ...] = ()
    """What may stand behind the question mark."""
    splittings: tuple[Splitting, ...] = ("official",)
    """Ways in which it can be divided."""


def _open_cityguessr(request: Request) -> ClipDataset:
    from train.data.cityguessr import open_cityguessr

    return open_cityguessr(
        request.path,
        request.split,
        splitting=request.splitting,
        partial="partial" in request.words,
    )


def _open_msls(request: Request) -> ClipDataset:
    from train.data.msls import open_msls

    return open_msls(
        request.path,
        request.split,
        splitting="spatial" if "spatial" in request.words else "drives",
        with_test_cities="test-cities" in request.words,
        partial="partial" in request.words,
    )


def _open_manifest(request: Request) -> ClipDataset:
    from train.data.manifest import open_manifest

    footage = request.words.get("footage")
    return open_manifest(
        request.path,
        request.split,
        footage=None if footage is None else Path(footage).expanduser(),
        sampling=request.sampling,
    )


def _open_shards(request: Request) -> ClipDataset:
    from train.data.shards import open_shards

    return open_shards(request.path, request.split)


SOURCES: dict[str, Source] = {
    "cityguessr": Source(
        open=_open_cityguessr,
        words=("frame-s", "partial"),
        splittings=("official", "blocks", "drives"),
    ),
    "manifest": Source(open=_open_manifest, words=("footage",), splittings=("official", "drives")),
    "msls": Source(
        open=_open_msls,
        words=("partial", "spatial", "test-cities"),
        splittings=("official", "drives"),
    ),
    "shards": Source(open=_open_shards, words=("frame-s",)),
}
"""What stands before the colon."""
