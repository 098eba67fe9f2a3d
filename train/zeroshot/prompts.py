"""Texts for places and scenes, and the mean embedding of each.

Shape suffixes: K classes of one level, D width of an embedding.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.bundle import LEVELS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy

_FILE = Path(__file__).with_name("prompts.toml")
MOST_TEXTS = 10_000
"""Five thousand cities have two texts each; more have one, which spares minutes."""
CHUNK = 2048
"""Texts embedded between two words of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Templates by head, and the words for scenes."""

    templates: dict[str, tuple[str, ...]]
    """For city, state, country, continent and scene; `{place}` stands for the name."""
    scenes: dict[str, str]
    """What stands for each scene group in a text."""

    def affordable(self, cities: int) -> Prompts:
        """The first templates of every head: as many as make MOST_TEXTS for the cities, or one."""
        count = max(1, MOST_TEXTS // max(cities, 1))
        templates = {head: texts[:count] for head, texts in self.templates.items()}
        return replace(self, templates=templates)

    @property
    def digest(self) -> str:
        """SHA-256 of all that this says."""
        text = json.dumps([self.templates, self.scenes], ensure_ascii=False)
        return sha256(text.encode("utf-8")).hexdigest()


def read_prompts(path: Path = _FILE) -> Prompts:
    """Read the checked-in prompts.

    Raises:
        OSError, ValueError, KeyError: the file is not what it should be.
    """
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    templates = {head: tuple(found["templates"][head]) for head in (*LEVELS, "scene")}
    for head, texts in templates.items():
        if not texts or not all("{place}" in text for text in texts):
            raise ValueError(f"{path.name}: every template of {head} needs {{place}}")
    return Prompts(templates=templates, scenes=dict(found["scenes"]))


def place_names(hierarchy: Hierarchy, level: Level) -> list[str]:
    """What each class of a level is called in a text: with the state and country it lies in.

    "Birmingham, Alabama, United States" is not the Birmingham of England. A continent adds
    nothing; a name that repeats, as in Singapore, Singapore, is said once.
    """
    depth = LEVELS.index(level)
    upwards = LEVELS[depth:-1] or LEVELS[depth:]
    names = []
    for number in range(hierarchy.size(level)):
        parts: list[str] = []
        at = number
        for one in upwards:
            place = hierarchy.places[one][at]
            if place.name not in parts:
                parts.append(place.name)
            at = place.parent
        names.append(", ".join(parts))
    return names


def mean_embeddings(
    names: Sequence[str],
    templates: Iterable[str],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    tell: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """The mean over the templates, at length 1, of each name's embedding.  -> [K, D].

    Args:
        names: K of them; equal ones are embedded once.
        templates: texts with `{place}`.
        embed: texts to embeddings of length 1, [N, D].
        tell: is told how many texts were embedded since it was last called.
    """
    distinct = {name: row for row, name in enumerate(dict.fromkeys(names))}
    total: NDArray[np.float64] | None = None
    for template in templates:
        texts = [template.replace("{place}", name) for name in distinct]
        rows = []
        for at in range(0, len(texts), CHUNK):
            rows.append(embed(texts[at : at + CHUNK]))
            tell(len(rows[-1]))
        found = np.concatenate(rows).astype(np.float64)
        total = found if total is None else total + found
    if total is None:
        raise ValueError("at least one template is needed")
    mean = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return np.asarray(mean[[distinct[name] for name in names]], dtype=np.float32)
