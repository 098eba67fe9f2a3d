"""Networks as transformers publishes them, for networks of ours: every tensor placed, or named.

A folder in the hub's layout, or a hub id, is read whole; each kind of network says what its tensors
are called here, and nothing is left out without a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from train.errors import WeightsError
from train.model_card import NOT_STATED, card_licence
from train.models.base import Loaded
from train.networks import find_network
from train.weights import read_folder, some, to_float32

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.models.base import Wanted

QKV_BIASES = (".query.bias", ".key.bias", ".value.bias")
"""How the names end of what attention may do without (`qkv_bias` in config.json)."""
Layout = Literal["transformers", "original"]
Colours = tuple[float, float, float]
Rename = Callable[[str, "Tensor"], "Mapping[str, Tensor] | str"]
"""A tensor of a file -> tensors of ours by name; empty for an unknown one; a text says why it has
no place."""

PLAIN_BLOCKS: Mapping[str, Any] = {"hidden_act": "gelu", "num_channels": 3}
"""What config.json must say, or leave unsaid, for image and video transformers."""
TOKEN_NUMBERS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "image_px": "image_size",
    "patch_px": "patch_size",
}
"""Our name and that of config.json for the numbers of a transformer whose stages are all alike."""
BLOCK_NAMES = (
    ("intermediate.dense.", "fc1."),
    ("output.dense.", "fc2."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
)
"""Theirs and ours of a block's parts, without its attention."""
ENCODER_NAMES = (
    ("attention.q_proj.", "attention.query."),  # as transformers 5 has them in memory
    ("attention.k_proj.", "attention.key."),
    ("attention.v_proj.", "attention.value."),
    ("attention.o_proj.", "attention.proj."),
    ("mlp.", ""),
    *BLOCK_NAMES,
    ("layernorm.", "norm."),
)
"""The same of an encoder that ends with a norm; what of its attention ends in these comes first."""
CLASSIFIER = "classifier of other classes"
DECODER = "decoder: only pretraining rebuilds pixels"
OUTSIDE = {"classifier.": CLASSIFIER, "decoder.": DECODER, "embeddings.mask_token": DECODER}
"""What has no place in an encoder of pictures, by the beginning of its name, and why."""


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
    licence: str = NOT_STATED
    """Of the weights, as the README.md beside them or the run that they are of says."""


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
    licence: str
    """That its README.md names."""


def read_published(
    wanted: Wanted, *, model_types: Mapping[str, str], must: Mapping[str, Any]
) -> Published:
    """Read a folder of transformers, or fetch it from the hub.

    Args:
        wanted: its source is a folder in the hub's layout, a hub id, or the name of a known model.
        model_types: what its `model_type` may be, each with a model of that kind to name.
        must: entries of config.json that the arithmetic depends on; one that is missing is right.

    Raises:
        WeightsError: no such source, or another network.
        ConfigError, OutputError: it cannot be fetched; the text says what to do.
    """
    source = wanted.source
    fetched = find_network(
        source, with_tokenizer=False, is_accepted=wanted.is_accepted, tell=wanted.tell
    )
    folder = fetched.folder
    name = folder.resolve().name if Path(source).expanduser().is_dir() else source
    said = read_config(folder, name)
    kind = said["model_type"]
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
        licence=card_licence(folder),
    )


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The config.json of a folder, which says `model_type`.

    Args:
        folder: in the hub's layout.
        name: what it is called in errors.

    Raises:
        WeightsError: there is none, or it is no model's.
    """
    try:
        said: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _ = said["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise WeightsError(
            f"reading the encoder {name}: its config.json is missing or no model's ({exc!r}). "
            "Needed is the whole folder as the hub has it."
        ) from exc
    return said


@contextmanager
def describing(published: Published) -> Iterator[None]:
    """Say of which weights a shape is that cannot be.

    Raises:
        WeightsError: building it out of config.json raised KeyError, TypeError or ValueError.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as exc:
        raise WeightsError(f"reading the encoder {published.name}: {exc}") from exc


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


def left_out(stem: str, reasons: Mapping[str, str]) -> str | None:
    """Why a tensor has no place.

    Args:
        stem: its name, without what wraps the encoder.
        reasons: by what such names begin with.
    """
    return next((why for begin, why in reasons.items() if stem.startswith(begin)), None)


def renamed(name: str, pieces: Iterable[tuple[str, str]]) -> str:
    """A name with pieces of it replaced, one after the other: theirs and ours."""
    for theirs, ours in pieces:
        name = name.replace(theirs, ours)
    return name


def patch_matrix(kernel: Tensor) -> Tensor:
    """Weights of a convolution over patches as ours: [D, colour, ...] -> [D, values]."""
    return kernel.movedim(1, -1).flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What the tensors of a transformer are called here."""

    wrap: str
    """What names begin with where a classifier is around the encoder."""
    outside: Mapping[str, str]
    """Beginnings of the names of tensors that have no place, and why."""
    pieces: tuple[tuple[str, str], ...]
    """Theirs and ours, in the order in which they are replaced."""

    def tensors(self, name: str, value: Tensor) -> dict[str, Tensor] | str:
        """Where a tensor goes; see `Rename`. A patch convolution becomes a matrix."""
        stem = name.removeprefix(self.wrap)
        if why := left_out(stem, self.outside):
            return why
        if stem == "embeddings.cls_token":
            return {"cls": value.flatten()}
        if stem == "embeddings.position_embeddings":
            return {"positions": value[0]}
        return {renamed(stem, self.pieces): patch_matrix(value) if value.ndim == 4 else value}


def load_encoder(
    published: Published,
    build: Callable[[Any], nn.Module],
    shape: Any,  # noqa: ANN401 - each network has its own
    rename: Rename,
    *,
    heads: int | None = None,
) -> Loaded:
    """Published tensors as those of a network's `encoder`.

    Args:
        published: the folder.
        build: makes the encoder of a shape.
        shape: of the encoder.
        rename: says where each tensor goes.
        heads: of its attention, for the report.

    Raises:
        WeightsError: see `place`.
    """
    with torch.device("meta"):  # no time for random weights: every one is replaced
        encoder = build(shape)
    state, report = place(published, rename, encoder, heads=heads)
    return Loaded(
        shape=shape,
        tensors={f"encoder.{name}": value for name, value in state.items()},
        report=report,
        normalisation=published.normalisation,
    )


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
    used, outside, unknown = [], {}, []
    notes: tuple[str, ...] = ()
    for name, value in published.tensors.items():
        ours = rename(name, value)
        if isinstance(ours, str):
            outside[name] = ours
        elif not ours or ours.keys() & state.keys():
            unknown.append(name)
        else:
            used.append(name)
            state.update(ours)
    if published.said.get("qkv_bias") is False:
        wanted = encoder.state_dict()
        lacking = [name for name in wanted if name.endswith(QKV_BIASES) and name not in state]
        state |= {name: torch.zeros(wanted[name].shape) for name in lacking}
        notes = (f"has no biases of queries, keys and values: {len(lacking)} begin at 0",)
    wrong = {"unknown, or there twice; nothing is left out silently": unknown}
    for what, names in {**wrong, **misfits(state, encoder)}.items():
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
        left_out=outside,
        heads=heads,
        config_heads=heads,
        notes=notes,
        licence=published.licence,
    )
    return to_float32(state, source=published.name), report


def misfits(state: Mapping[str, Tensor], encoder: nn.Module) -> dict[str, list[str]]:
    """What is wrong with tensors for an encoder: names of them, by what is wrong."""
    wanted = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    return {
        "missing": [name for name in wanted if name not in state],
        "too many": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} {list(value.shape)} in place of {list(wanted[name])}"
            for name, value in state.items()
            if name in wanted and tuple(value.shape) != wanted[name]
        ],
    }


def _normalisation(folder: Path) -> tuple[Colours, Colours] | None:
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        mean, std = (tuple(map(float, said[name])) for name in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (mean, std) if len(mean) == len(std) == 3 else None
