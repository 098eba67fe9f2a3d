"""What a bundle says of its training, without any path of the machine that it was trained on."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any


def plain_facts(facts: dict[str, Any]) -> dict[str, str | int | float | None]:
    """How the weights came to be, without any path of the machine that made them."""
    flat = dict(facts)
    for part in ("model", "loss", "optimiser", "input"):
        held = dict(flat.pop(part, {}))
        held |= held.pop("options", {})
        flat |= {f"{part}_{name}": value for name, value in held.items()} if held else {}
    for name in ("data", "pretrained", "texts", "scenes"):
        flat[name] = _without_folders(str(flat.get(name) or "")) or None
    return {
        name: value
        for name, value in flat.items()
        if value is None or isinstance(value, (str, int, float))
    }


def _without_folders(given: str) -> str:
    """`manifest:/data/drives.csv?footage=/videos/2024` -> `manifest:drives.csv?footage=2024`.

    A hub id stays whole.
    """
    place, mark, words = given.partition("?")
    kind, colon, path = place.partition(":")
    if not colon:
        kind, path = "", place
    is_path = bool(colon) or path.startswith((".", "/", "~")) or path.count("/") > 1
    if is_path or path.endswith((".pth", ".safetensors")):
        path = PurePath(path).name
    pairs = [word.partition("=") for word in words.split("&")]
    words = "&".join(f"{name}{equals}{PurePath(value).name}" for name, equals, value in pairs)
    return f"{kind}{colon}{path}{mark}{words}"


def plain_command(command: str) -> str:
    """A command without the folders of the machine that it was given on."""
    try:
        words = shlex.split(command)
    except ValueError:  # not of a shell
        return command
    return shlex.join(_plain_word(word) for word in words)


def _plain_word(word: str) -> str:
    name, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    place, mark, query = value.partition("?")
    kind, colon, path = place.rpartition(":")
    if "/" in path:
        path = PurePath(path).name
    pairs = [each.partition("=") for each in query.split("&")]
    query = "&".join(f"{key}{sign}{PurePath(held).name}" for key, sign, held in pairs)
    return f"{name}{equals}{kind}{colon}{path}{mark}{query}"
