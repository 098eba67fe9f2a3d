"""JSON Schema of the tag: what a GeoJSON feature's properties and a JSON sidecar hold.

It is made from the dataclass and checked in beside this module; after a change of Tag,
`python -m geotag.writers.schema` writes it anew.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from geotag import types
from geotag.types import Tag

SCHEMA_VERSION = 1
"""Rises when a field changes its meaning or goes; new fields leave it as it is."""
SCHEMA_FIELD = "geotag_schema"
"""What holds the version in a sidecar."""
SCHEMA_FILE = Path(__file__).with_name("tag.schema.json")

_JSON_TYPES: dict[type, str] = {str: "string", int: "integer", float: "number"}


def tag_schema() -> dict[str, object]:
    """The schema, JSON Schema 2020-12.  Reads the source of `geotag.types` for the descriptions."""
    hints, texts = get_type_hints(Tag), _descriptions()
    properties: dict[str, object] = {
        SCHEMA_FIELD: {
            "const": SCHEMA_VERSION,
            "description": "Version of this schema; only in sidecars.",
        }
    }
    for field in fields(Tag):
        described = {"description": texts[field.name]} if field.name in texts else {}
        properties[field.name] = _field_schema(field.name, hints[field.name]) | described
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:geotag:tag:{SCHEMA_VERSION}",
        "title": "Tag",
        "description": _one_line(Tag.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields(Tag)],
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    }


def schema_text() -> str:
    """The schema as it is checked in."""
    return json.dumps(tag_schema(), indent=2, ensure_ascii=False) + "\n"


def _field_schema(name: str, hint: object) -> dict[str, object]:
    parts = (hint,) if isinstance(hint, type) or get_origin(hint) is Literal else get_args(hint)
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    is_nullable = type(None) in parts
    if words:
        return {"enum": words + [None] * is_nullable}
    (kind,) = (part for part in parts if part is not type(None))
    json_type = _JSON_TYPES[kind]
    return {"type": [json_type, "null"] if is_nullable else json_type} | _range(name, kind)


def _range(name: str, kind: type) -> dict[str, object]:
    """The numbers that a field may hold, by the ending of its name."""
    if kind is str:
        return {"format": "date-time"} if name == "start_utc" else {}
    if name.endswith("_lat"):
        return {"minimum": -90, "maximum": 90}
    if name.endswith("_lon"):
        return {"minimum": -180, "maximum": 180}
    if name.endswith("_p") or name.startswith("confidence_"):
        return {"minimum": 0, "maximum": 1}
    return {"minimum": 0}


def _descriptions() -> dict[str, str]:
    """The docstrings below the fields of Tag, which Python itself does not keep."""
    import ast

    module = ast.parse(Path(types.__file__).read_text(encoding="utf-8"))
    (tag,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Tag")
    found: dict[str, str] = {}
    for field, text in zip(tag.body, tag.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = _one_line(words)
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("`", "")


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
