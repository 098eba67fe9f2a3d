"""Tensors out of a file of weights, without running anything that the file holds.

Safetensors are numbers and names. A pickle (`.bin`, `.pth`, `.pth.tar`) is a program: it is read by
torch's restricted reader, which knows tensors and plain containers and refuses all else.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engines.bundle import sha256_of
from geotag.hub import WEIGHTS
from train.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENTRIES = ("state_dict", "model", "module")
"""Where checkpoints of training programs keep their weights, beside an optimizer and the like:
torchvision's and Places365's, VideoMAE's, and those that DeepSpeed wrote for VideoMAE."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Named tensors, and the files that they are of."""

    tensors: dict[str, Tensor]
    sha256: dict[str, str]
    """By file name."""


def read_folder(folder: Path) -> Weights:
    """Read the weights of a folder in the hub's layout: one file, or parts that an index names.

    Raises:
        WeightsError: there are none, a part is missing, or one cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    digests: dict[str, str] = {}
    for path in _weight_files(folder):
        part = read_file(path)
        twice = sorted(tensors.keys() & part.tensors.keys())
        if twice:
            raise WeightsError(
                f"reading the weights in {folder}: {path.name} holds {twice[0]} again, which "
                "another part holds. Fetch the folder again."
            )
        tensors |= part.tensors
        digests |= part.sha256
    return Weights(tensors=tensors, sha256=digests)


def read_file(path: Path) -> Weights:
    """Read one file of weights, to the memory of the CPU.

    Args:
        path: `.safetensors`, or a pickle whatever its name: a dict of tensors, or a checkpoint that
            has one under `state_dict`, `model` or `module`.

    Raises:
        WeightsError: no such file, a damaged one, one with code in it, or no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"reading weights: there is no file {path}. Give the path of one.")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = _named_tensors(found, path)
    return Weights(tensors=tensors, sha256={path.name: sha256_of(path)})


def to_float32(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Weights in single precision, each with memory of its own.

    Raises:
        WeightsError: one holds NaN or an infinity, or is no floating-point tensor.
    """
    wrong = [
        name
        for name, value in tensors.items()
        if not value.is_floating_point() or not bool(torch.isfinite(value).all())
    ]
    if wrong:
        raise WeightsError(
            f"reading {source}: {some(wrong)} not finite floating-point numbers. The file is "
            "damaged, or of a run that failed: take another."
        )
    return {
        name: value.to(torch.float32, copy=True).contiguous() for name, value in tensors.items()
    }


def some(names: list[str], most: int = 8) -> str:
    """A list of names for an error's text: the first few, and how many there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} tensors ({', '.join(names[:most])}{more}) are"


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError, ValueError) as exc:
        raise WeightsError(
            f"reading {path}: no safetensors, or cut short ({exc}). Fetch it again."
        ) from exc
    return found


def _read_pickle(path: Path) -> Any:  # noqa: ANN401
    # Checkpoints of research code keep their command line beside the weights: names and values.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as exc:
            raise WeightsError(
                f"reading {path}: it is no file of tensors alone, and is not opened, since a "
                f"pickle with other things in it can run code ({_reason(exc)}). Take a file in "
                "safetensors, or one that holds nothing but the state dict."
            ) from exc
        except Exception as exc:  # the many ways in which a damaged file breaks the reader
            raise WeightsError(
                f"reading {path}: no weights, or cut short ({type(exc).__name__}: "
                f"{_reason(exc)}). Fetch it again."
            ) from exc


def _reason(exc: Exception) -> str:
    """What was refused, of torch's long advice on how to allow it after all."""
    text = str(exc)
    named = re.search(r"(?:GLOBAL|[Uu]nsupported (?:global|class|operand):?)\s+([\w.]+)", text)
    if named:
        return named[1].rstrip(".")
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _named_tensors(found: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401
    for key in ENTRIES:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict):
        raise WeightsError(
            f"reading {path}: a {type(found).__name__}; needed is a dict of tensors, or one with "
            f"such a dict under {', '.join(ENTRIES)}."
        )
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others or not found or not all(isinstance(name, str) for name in found):
        raise WeightsError(
            f"reading {path}: no dict of tensors by name; among its {len(found)} entries are "
            f"others ({', '.join(others[:5]) or 'none'}). Needed is a state dict, on its own or "
            f"under {', '.join(ENTRIES)}."
        )
    return dict(found)


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _parts(index)
    raise WeightsError(
        f"reading the weights in {folder}: there are none; needed is one of {', '.join(WEIGHTS)}. "
        "The download is not whole, or the model is of another library."
    )


def _parts(index: Path) -> list[Path]:
    try:
        named = {str(part) for part in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise WeightsError(
            f"reading {index}: no index of weights ({exc!r}). Fetch the folder again."
        ) from exc
    paths = [index.parent / name for name in sorted(named)]
    # A name with a folder in it could lead anywhere on this machine.
    missing = [path.name for path in paths if not path.is_file() or path.parent != index.parent]
    if missing or not paths:
        raise WeightsError(
            f"reading {index}: it names {len(paths)} files of weights, missing beside it are "
            f"{', '.join(missing[:3]) or 'all'}. The download is not whole; fetch it again."
        )
    return paths
