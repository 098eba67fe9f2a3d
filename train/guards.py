"""What can go wrong while a run goes on, and how a person hears of it."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

from train.errors import TrainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from train.build import Sources
    from train.config import TrainConfig
    from train.data.dataset import ClipDataset
    from train.resume import State


WORDS = {
    "clips": "clips",
    "steps": "steps",
    "places_sha256": "class tree",
    "train_sha256": "content of train",
    "chosen_on_sha256": "content of what weights are chosen on",
    "texts_sha256": "texts",
}
"""What `describe_sources` finds, for a person."""


def describe_sources(sources: Sources) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    found = {
        "clips": len(sources.train.entries),
        "steps": sources.steps,
        "places_sha256": sha256(sources.train.places_csv.encode()).hexdigest(),
        "train_sha256": digest_of(sources.train),
        "chosen_on_sha256": digest_of(sources.chosen_on),
    }
    if sources.texts_KE is not None:
        found["texts_sha256"] = sha256(sources.texts_KE.tobytes()).hexdigest()
    return found


def digest_of(dataset: ClipDataset) -> str:
    """Tells whether two datasets hold the same clips with the same labels, wherever they lie.

    Clips are known by their names and labels; where other clips can have the same, as packed ones
    of other frames, the dataset itself knows.
    """
    own: str | None = getattr(dataset, "content_sha256", None)
    if own is not None:
        return own
    found = sha256(getattr(dataset, "labels_sha256", "").encode())
    for entry in dataset.entries:
        found.update(json.dumps([entry.name, entry.city_id, entry.group]).encode())
    return found.hexdigest()


def check_dataset(state: State, found: dict[str, Any], name: str) -> None:
    """Refuse to go on with other data than a run was begun with.

    Args:
        state: of the run.
        found: what `describe_sources` says of the data at hand.
        name: of it.

    Raises:
        TrainError: it is other data.
    """
    other = [
        f"{WORDS[key]} {state.sources[key]!s:.12} then, {value!s:.12} now"
        for key, value in found.items()
        if state.sources.get(key, value) != value  # states of earlier versions say less
    ]
    if other:
        raise TrainError(
            f"going on with a run on {name}: it is not the dataset that the run was begun with "
            f"({'; '.join(other)}). Give the one it was begun with, or begin a new run."
        )


def warn_of_parts(config: TrainConfig, sources: Sources) -> Iterator[str]:
    """What will not be done at the end, for want of clips, and what that means."""
    if not len(sources.chosen_on.entries):
        chosen = "" if not config.eval_every else "the last weights are kept, none are chosen; and "
        yield (
            f"warning: {sources.chosen_on.name} holds no clips: {chosen}nothing calibrates the "
            "model, so that it claims a place from a confidence of 50 % on. About a tenth of what "
            "is trained on is held out, by whole drives or runs of clips: more of them make a val "
            "part."
        )
    elif config.eval_every and sources.chosen_at is None:
        yield (
            f"warning: {sources.chosen_on.name} shows no place that is trained on, not even a "
            "continent: the last weights are kept, none are chosen."
        )
    elif config.eval_every and sources.chosen_at != "city":
        yield (
            f"warning: no city of {sources.chosen_on.name} is trained on: weights are chosen by "
            f"the {sources.chosen_at} that they answer."
        )
    if sources.tested_on is None or not len(sources.tested_on.entries):
        name = "the packed dataset" if sources.tested_on is None else sources.tested_on.name
        yield (
            f"warning: {name} holds no clips to test on: the model will not be evaluated at the "
            "end, and geotag export needs an evaluation. How to make one on other footage is said "
            "then."
        )


class StopRequests:
    """While it is entered, Ctrl-C and SIGTERM ask to stop after the step; a second one stops."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.is_asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


@contextmanager
def with_advice(config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into what to do about it."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as exc:
        raise TrainError(_out_of_memory(config)) from exc
    except RuntimeError as exc:
        if "DataLoader worker" in str(exc):
            raise TrainError(
                f"a process that reads clips died ({exc}). Memory, or shared memory (/dev/shm, in "
                "a container --shm-size), ran out: give fewer --workers, or 0."
            ) from exc
        if "can't allocate memory" not in str(exc) and "out of memory" not in str(exc).lower():
            raise
        raise TrainError(_out_of_memory(config)) from exc


def _out_of_memory(config: TrainConfig) -> str:
    doing = f"memory ran out on {config.batch} clips a step in {config.accumulate} piece(s): "
    more = [n for n in range(config.accumulate + 1, config.batch + 1) if config.batch % n == 0]
    if config.model.warm_start or not more:
        return f"{doing}lower --batch."
    return (
        f"{doing}add --accumulate {more[0]}, which gives the same result in less memory (but that "
        "batch normalisation sees less at a time), or lower --batch."
    )
