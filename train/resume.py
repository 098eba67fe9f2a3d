"""Stopping a run and going on as if nothing had happened.

`RUN/last/` holds one safetensors file with everything that training has changed (weights, running
mean, moments of the optimiser) and `state.json`, which names and hashes it. The readable file is
written last, so that a run that dies while saving goes on from the state before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save

from engines.bundle import sha256_of
from train.config import TrainConfig, config_from_record
from train.errors import TrainError
from train.files import write_aside
from train.models.kinds import find_kind, shape_from

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

SCHEMA = 1
FOLDER = "last"
STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    best_score: float | None = None
    """Of the weights that are kept as the best; None while there are none."""
    best_step: int | None = None
    bad: dict[str, str] = field(default_factory=dict)
    """Samples that could not be read: name -> reason."""


def save_state(
    run: Path,
    config: TrainConfig,
    progress: Progress,
    tensors: Mapping[str, Tensor],
    architecture: Any,  # noqa: ANN401 - each kind of network has a dataclass of its own
    facts: Mapping[str, Any],
    sources: Mapping[str, Any],
) -> None:
    """Keep all that the rest of a run depends on; the state before stays until this one is whole.

    Args:
        run: the run's folder.
        config: the recipe.
        progress: how far it is.
        tensors: all that training has changed.
        architecture: shape of the network.
        facts: what is to be told of the weights that it began from.
        sources: what of the dataset must be the same when it goes on.

    Raises:
        OSError: it cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{progress.step:08d}.safetensors"
    write_aside(
        folder / name,
        save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}),
    )
    record = {
        "schema": SCHEMA,
        "file": name,
        "sha256": sha256_of(folder / name),
        "progress": asdict(progress),
        "architecture": asdict(architecture),
        "facts": dict(facts),
        "sources": dict(sources),
        "config": asdict(config),
    }
    write_aside(folder / STATE, (json.dumps(record, indent=2) + "\n").encode())
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """A run that can go on."""

    config: TrainConfig
    progress: Progress
    architecture: Any
    """Shape of the network."""
    facts: dict[str, Any]
    sources: dict[str, Any]
    weights: Path
    """File of the tensors."""

    @property
    def is_finished(self) -> bool:
        """Whether all steps were done."""
        return self.progress.step >= self.progress.steps

    def read_tensors(self) -> dict[str, Tensor]:
        """All that training had changed."""
        return load_file(self.weights)


def load_state(run: Path) -> State:
    """What a run was and how far it got.

    Raises:
        TrainError: there is nothing to go on from, or it is damaged.
    """
    path = run / FOLDER / STATE
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise TrainError(
                f"going on with {run}: its state has schema {record['schema']!r}, this version "
                f"reads {SCHEMA}. Begin again with python -m train.fit."
            )
        weights = path.with_name(str(record["file"]))
        if sha256_of(weights) != record["sha256"]:
            raise TrainError(
                f"going on with {run}: {weights.name} is not the file that {STATE} describes. It "
                "was damaged; copy the folder again, or begin again with python -m train.fit."
            )
        config = config_from_record(record["config"], source=str(path))
        return State(
            config=config,
            progress=Progress(**record["progress"]),
            architecture=shape_from(find_kind(config.model.kind), record["architecture"]),
            facts=dict(record["facts"]),
            sources=dict(record["sources"]),
            weights=weights,
        )
    except FileNotFoundError as exc:
        raise TrainError(
            f"going on with {run}: there is no {exc.filename}. A run that can go on is the folder "
            "that python -m train.fit was writing."
        ) from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainError(
            f"going on with {run}: its state is damaged ({exc!r}). Begin again with "
            "python -m train.fit."
        ) from exc


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and counts of every parameter, by number and name."""
    return {
        f"{number}.{name}": value if torch.is_tensor(value) else torch.tensor(value)
        for number, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out."""
    record = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**record, "state": state})
