"""A run folder: what training leaves behind, and what evaluation and export start from.

`model.safetensors` (weights), `checkpoint.json` (what they are, readable), `places.csv` (the class
tree) and, once `python -m train.evaluate` has run, `evaluation.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from engines.bundle import sha256_of
from geotag.errors import ConfigError
from train.files import write_aside
from train.models.base import GeoModel
from train.models.kinds import KINDS, find_kind, shape_from, size_of
from train.models.teachers import TeacherConfig

SCHEMA = 2
WEIGHTS = "model.safetensors"
FACTS = "checkpoint.json"
PLACES = "places.csv"
EVALUATION = "evaluation.json"
PICTURES = ("confusion.png", "reliability.png")
"""That show an evaluation."""


class CheckpointError(ConfigError):
    """A run folder that cannot be used; the text says what is wrong and what to do."""


def save_checkpoint(
    folder: Path, model: GeoModel, *, places_csv: Path | str, facts: Mapping[str, Any]
) -> None:
    """Write a run folder; each file is written aside and moved into place.

    `checkpoint.json` comes last and holds the hash of the weights, so that a folder cut off half
    way is refused by `load_checkpoint`, never half used. An evaluation of earlier weights is
    removed.

    Args:
        folder: made if missing; an older checkpoint in it is replaced.
        model: its weights, configuration and normalisation are kept.
        places_csv: the class tree: a Path of a file, or a str with the text itself.
        facts: how it was trained (data, preset, seed, steps, commit, ...); JSON values.

    Raises:
        ValueError: `places_csv` is a one-line str, which is a file name and not a class tree.
    """
    places = _places_text(places_csv)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (EVALUATION, *PICTURES):
        (folder / name).unlink(missing_ok=True)
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_aside(folder / WEIGHTS, save(weights))  # save_file makes a file others may not read
    write_aside(folder / PLACES, places.encode())
    record = {
        "schema": SCHEMA,
        "kind": model.kind,
        "size": size_of(find_kind(model.kind), model.config),
        "config": asdict(model.config),
        "classes": model.classes,
        "normalisation": {"mean": _floats(model.mean), "std": _floats(model.std)},
        "teachers": asdict(model.teaching),
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "training": dict(facts),
    }
    write_aside(folder / FACTS, (json.dumps(record, indent=2) + "\n").encode())


def load_checkpoint(folder: Path) -> tuple[GeoModel, dict[str, Any]]:
    """Read a run folder: the model on the CPU, in evaluation mode, and `checkpoint.json`.

    Raises:
        CheckpointError: no such folder, a missing file, another schema, or damaged content.
    """
    record = _read_facts(folder)
    weights = folder / WEIGHTS
    try:
        found = sha256_of(weights)
    except OSError as exc:
        raise CheckpointError(
            f"loading the checkpoint {folder}: {WEIGHTS} cannot be read ({exc}). "
            "Copy the whole folder again, or train again with python -m train.fit."
        ) from exc
    try:
        if found != record["weights_sha256"]:
            raise CheckpointError(
                f"loading the checkpoint {folder}: {WEIGHTS} is not the file that {FACTS} "
                "describes: it was damaged, or saving was cut off. Copy the folder again, or train "
                "again with python -m train.fit."
            )
        name = record.get("kind", "videomae")  # that of checkpoints that name none
        if name not in KINDS:
            raise CheckpointError(
                f"loading the checkpoint {folder}: it is a network of the kind {name!r}, which "
                f"this geotag does not know; it knows {', '.join(KINDS)}. Use the geotag that "
                "trained it: one with a model of your own must be installed with pip install -e."
            )
        kind = find_kind(name)
        model = kind.model(
            shape_from(kind, record["config"]),
            record["classes"],
            teachers=TeacherConfig(**record["teachers"]),
            **record["normalisation"],
        )
        model.load_state_dict(load_file(weights), strict=True)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as exc:
        raise CheckpointError(
            f"loading the checkpoint {folder}: {FACTS} and {WEIGHTS} do not describe a model "
            f"({exc!r}). Train again with python -m train.fit."
        ) from exc
    return model.eval(), record


def _unread(folder: Path, exc: OSError) -> str:
    if not folder.exists():
        return "there is no such folder"
    if folder.is_dir() and not (folder / FACTS).exists():
        return f"it holds no {FACTS}"
    return f"{FACTS} cannot be read ({exc})"


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except OSError as exc:
        raise CheckpointError(
            f"loading the checkpoint {folder}: {_unread(folder, exc)}. "
            "A checkpoint is the folder that python -m train.fit writes."
        ) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(
            f"loading the checkpoint {folder}: {FACTS} is damaged ({exc!r}). "
            "Copy the folder again, or train again with python -m train.fit."
        ) from exc
    if schema != SCHEMA:
        raise CheckpointError(
            f"loading the checkpoint {folder}: its schema is {schema!r}, this version reads "
            f"{SCHEMA}. Update geotag, or train again with python -m train.fit."
        )
    return dict(record)


def _places_text(places_csv: Path | str) -> str:
    if isinstance(places_csv, Path):
        return places_csv.read_text(encoding="utf-8")
    if "\n" not in places_csv:
        raise ValueError(
            f"saving a checkpoint with places_csv={places_csv!r}: a str is the text of the class "
            "tree; give a Path for a file."
        )
    return places_csv


def _floats(values: torch.Tensor) -> list[float]:
    """Shortest decimals that give the same float32 again: 0.485 rather than 0.48500001430511475."""
    return [float(str(value)) for value in values.cpu().numpy()]
