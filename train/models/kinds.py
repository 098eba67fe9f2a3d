"""The kinds of network that can be trained, evaluated, exported and scanned with: one line each.

`docs/adding-a-model.md` shows how another is added.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.models.base import Kind

KINDS: dict[str, str] = {
    "videomae": "train.models.geolocator",
    "timesformer": "train.models.timesformer",
    "vit": "train.models.vit",
    "planet": "train.models.planet",
    "isns": "train.models.isns",
    "geodecoder": "train.models.geodecoder",
}
"""Name -> the module whose `KIND` says all that is to be said of it."""
CUSTOM = "custom"
"""Size of a shape that no size of its kind has."""


def find_kind(name: str) -> Kind:
    """What the table says of a kind.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in KINDS:
        raise ValueError(f"model.kind {name!r} is none of {', '.join(KINDS)}")
    kind: Kind = importlib.import_module(KINDS[name]).KIND
    assert kind.model.kind == name, f"{kind.model.__name__}.kind is not {name!r}"
    return kind


def shape_from(kind: Kind, record: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A shape out of JSON.

    Raises:
        TypeError, ValueError: the record is of another kind.
    """
    return kind.shape(**{name: _frozen(value) for name, value in record.items()})


def shape_names(name: str) -> tuple[str, ...]:
    """The fields of a kind's shape, which a recipe may change.

    Raises:
        ValueError: there is no such kind.
    """
    return tuple(each.name for each in fields(find_kind(name).shape))


def sized_shape(name: str, size: str, changes: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The shape of a size, with some of its values changed.

    Args:
        name: of the kind.
        size: one of the kind's.
        changes: by the names of the shape's fields.

    Raises:
        ValueError: no such kind, size or field, or a value that it cannot have.
    """
    kind = find_kind(name)
    if size not in kind.sizes:
        raise ValueError(f"model.size {size!r} is none of {', '.join(kind.sizes)}")
    shape, known = kind.sizes[size], shape_names(name)
    for key, value in changes.items():
        if key not in known:
            raise ValueError(f"model.{key} is nothing that {name} has: {', '.join(sorted(known))}")
        usual = getattr(shape, key)
        is_number = isinstance(usual, float) and type(value) is int
        if type(_frozen(value)) is not type(usual) and not is_number:
            raise ValueError(f"model.{key} {value!r} must be such as {usual!r}")
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(type(each) in (int, float) and not each > 0 for each in numbers):
            raise ValueError(f"model.{key} {value!r} must be above 0, such as {usual!r}")
    return replace(shape, **{key: _frozen(value) for key, value in changes.items()})


def size_of(kind: Kind, shape: Any) -> str:  # noqa: ANN401
    """The name of a shape: that of a size, of clips or of single pictures, or CUSTOM."""
    sizes = kind.sizes.items()
    return next((name for name, known in sizes if shape in (known, kind.one_frame(known))), CUSTOM)


def _frozen(value: Any) -> Any:  # noqa: ANN401
    """JSON and TOML have lists where shapes have tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
