"""CityGuessr68k in miniature, laid out and labelled as its release and its released loader say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.pictures import grey_jpeg
from train.data.city_tree import cityguessr_tree

CITIES = ("Abu_Dhabi", "Austin", "Banglore", "Dallas", "Malm")


def write_clip(folder: Path, frames: int = 5, first: int = 1) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + frames):
        # The frame's number is its grey.
        (folder / f"{number}.jpg").write_bytes(grey_jpeg(2 * number))


def write_release(root: Path, cities: tuple[str, ...] = CITIES, clips: int = 3) -> Path:
    for city in cities:
        for index in range(clips):
            write_clip(root / "train" / city / f"{city}_{index:04}")
        write_clip(root / "val" / city / f"{city}_{clips:04}")
    return root


def ids_of(city: str) -> list[int]:
    tree = cityguessr_tree()
    number = tree.city_ids[city]
    return [
        int(tree.hierarchy.ancestors[level][number])
        for level in ("city", "state", "country", "continent")
    ]


def text_of(city: str) -> list[float]:
    return np.random.default_rng(ids_of(city)[0]).normal(size=512).round(4).tolist()


def label_line(
    name: str, columns: int, *, scene: list[float] | None = None, ids: list[int] | None = None
) -> str:
    city = name.rpartition("_")[0]
    cells: list[object] = [name]
    if columns >= 5:
        cells += ids or ids_of(city)
    if columns >= 517:
        cells += text_of(city)
    if columns >= 533:
        cells += scene or [0.25] * 4 + [0.0] * 12
    return ",".join(map(str, cells))


def write_labels(root: Path, columns: int, part: str = "train", name: str = "labels") -> Path:
    names = sorted(path.name for path in (root / part).glob("*/*"))
    path = root / f"{part}_{name}.txt"
    path.write_text("".join(label_line(name, columns) + "\n" for name in names))
    return path
