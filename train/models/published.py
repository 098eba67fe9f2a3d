"""Networks as transformers publishes them, for networks of ours: every tensor placed, or named.

A folder in the hub's layout, or a hub id, is read whole; each kind of network says what its tensors
are called here, and nothing is left out without a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from train.errors import WeightsError
from train.networks import find_network
from train.weights import read_folder, some, to_float32

if TYPE_CHECKING:
    from torch import Tensor, nn

QKV_BIASES = (".query.bias", ".key.bias", ".value.bias")
"""How the names end of what attention may do without (`qkv_bias` in config.json)."""
Layout = Literal["transformers", "original"]
Colours = tuple[float, float, float]
Rename = Callable[[str, "Tensor"], "Mapping[str, Tensor] | str"]
"""A tensor of a file -> tensors of ours by name; empty for an unknown one; a text says why it has
no place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What was read, for the record and for a person."""

    source: str
    """Hub id, or the name of the folder or file; no path."""
    revision: str | None
    """Commit of the hub, where it is known."""
    sha256: dict[str, str]
    """Of the files of weights, by name."""
    layout: Layout
    used: tuple[str, ...]
    """Names of the tensors that went into the encoder, as the file has them."""
    left_out: dict[str, str]
    """Name of every other tensor, and why it has no place in an encoder."""
    heads: int | None = None
    """What the encoder was built with; None where it has no attention."""
    config_heads: int | None = None
    """What the file says; None where it says nothing."""
    notes: tuple[str, ...] = ()
    """What a person should know, such as a corrected number of heads."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Published:
    """A folder of transformers."""

    name: str
    """Hub id, or the folder's name; no path."""
    revision: str | None
    said: dict[str, Any]
    """Its config.json."""
    tensors: Mapping[str, Tensor]
    sha256: dict[str, str]
    normalisation: tuple[Colours, Colours] | None
    """Mean and deviation of R, G, B, as its processor has them; None where it has none."""


def read_published(
    source: str | Path,
    *,
    model_types: Mapping[str, str],
    must: Mapping[str, Any],
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Published:
    """Read a folder of transformers, or fetch it from the hub.

    Args:
        source: a folder in the hub's layout, a hub id, or the name of a known model.
        model_types: what its `model_type` may be, each with a model of that kind to name.
        must: entries of config.json that the arithmetic depends on; one that is missing is right.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Raises:
        WeightsError: no such source, or another network.
        ConfigError, OutputError: it cannot be fetched; the text says what to do.
    """
    fetched = find_network(source, with_tokenizer=False, is_accepted=is_accepted, tell=tell)
    folder = fetched.folder
    name = folder.resolve().name if Path(source).expanduser().is_dir() else str(source)
    try:
        said: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = said["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise WeightsError(
            f"reading the encoder {name}: its config.json is missing or no model's ({exc!r}). "
            "Needed is the whole folder as the hub has it."
        ) from exc
    other = {key: said[key] for key, value in must.items() if said.get(key, value) != value}
    if kind not in model_types or other:
        examples = ", ".join(model_types.values())
        raise WeightsError(
            f"reading the encoder {name}: its model_type is {kind!r}"
            + (f", and config.json has {other} where {dict(must)} is needed" if other else "")
            + f"; this network takes {', '.join(model_types)}. Take weights such as {examples}."
        )
    weights = read_folder(folder)
    return Published(
        name=name,
        revision=fetched.revision,
        said=said,
        tensors=weights.tensors,
        sha256=weights.sha256,
        normalisation=_normalisation(folder),
    )


def numbers_of(published: Published, names: Mapping[str, str]) -> dict[str, int]:
    """Whole numbers above 0 out of config.json.

    Args:
        published: the folder.
        names: our name -> theirs.

    Raises:
        WeightsError: one is missing, or something else.
    """
    try:
        found = {ours: int(published.said[theirs]) for ours, theirs in names.items()}
    except (KeyError, TypeError, ValueError) as exc:
        raise WeightsError(
            f"reading the encoder {published.name}: config.json describes no such network "
            f"({exc!r}). Needed are whole numbers for {', '.join(names.values())}."
        ) from exc
    if wrong := [names[ours] for ours, value in found.items() if value < 1]:
        raise WeightsError(
            f"reading the encoder {published.name}: config.json gives {wrong[0]} below 1."
        )
    return found


def place(
    published: Published, rename: Rename, encoder: nn.Module, *, heads: int | None = None
) -> tuple[dict[str, Tensor], WeightsReport]:
    """The tensors of an encoder, by its own names, and what was read.

    Args:
        published: the folder.
        rename: says where each tensor goes.
        encoder: the network that is filled; on any device, its values do not matter.
        heads: of its attention, for the report.

    Raises:
        WeightsError: tensors are missing (biases of attention may be, where config.json says so),
            unknown, there twice, not finite or of another shape.
    """
    state: dict[str, Tensor] = {}
    used, left_out, unknown = [], {}, []
    notes: tuple[str, ...] = ()
    for name, value in published.tensors.items():
        ours = rename(name, value)
        if isinstance(ours, str):
            left_out[name] = ours
        elif not ours or ours.keys() & state.keys():
            unknown.append(name)
        else:
            used.append(name)
            state.update(ours)
    wanted = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    if published.said.get("qkv_bias") is False:
        lacking = [name for name in wanted if name.endswith(QKV_BIASES) and name not in state]
        state |= {name: torch.zeros(wanted[name]) for name in lacking}
        notes = (f"has no biases of queries, keys and values: {len(lacking)} begin at 0",)
    wrong = {
        "unknown, or there twice; nothing is left out silently": unknown,
        "missing": [name for name in wanted if name not in state],
        "too many": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} {list(value.shape)} in place of {list(wanted[name])}"
            for name, value in state.items()
            if name in wanted and tuple(value.shape) != wanted[name]
        ],
    }
    for what, names in wrong.items():
        if names:
            raise WeightsError(
                f"reading the encoder {published.name}: {some(names)} {what}. The file is not "
                "whole, or its configuration is another model's."
            )
    report = WeightsReport(
        source=published.name,
        revision=published.revision,
        sha256=published.sha256,
        layout="transformers",
        used=tuple(used),
        left_out=left_out,
        heads=heads,
        config_heads=heads,
        notes=notes,
    )
    return to_float32(state, source=published.name), report


def _normalisation(folder: Path) -> tuple[Colours, Colours] | None:
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        mean, std = (tuple(map(float, said[name])) for name in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (mean, std) if len(mean) == len(std) == 3 else None
