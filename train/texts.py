"""The targets of TextLabel Alignment: one unit vector for each city, out of its names.

    python -m train.texts --out DATASET/text_table.safetensors
    python -m train.texts --places places.csv --encoder FOLDER_OR_HUB_ID --out FILE
    python -m train.texts --dataset manifest:clips.csv --encoder names --out FILE

Which text belongs to a clip depends on its city alone, so that the texts go through a frozen text
encoder once, and training needs no such network. A table knows the class tree it was made for, and
is refused for any other.

Shape suffixes: K cities, E width of an embedding.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256, shake_256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
import typer
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engines.bundle import LEVELS
from geotag.errors import ConfigError, OutputError
from geotag.places.hierarchy import build_hierarchy, read_hierarchy
from train.endings import telling
from train.errors import DatasetError, WeightsError
from train.files import refuse_file, write_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]

Variant = Literal["all", "city"]
"""all: the mean over the names of all four levels; city: the city's name alone (CityGuessr,
Kulkarni et al., ECCV 2024, table of components)."""
FILE_NAME = "text_table.safetensors"
CLIP = "openai/clip-vit-base-patch32"
"""512 wide, as the method's text features are; MIT."""
NAMES = "names"
"""Stands for no network: `name_table`."""
NAME_WIDTH = 512
GRAMS = (2, 3, 4)
"""Lengths of the pieces that a name's spelling is told by."""
LEAST_DIFFERENCE = 1e-5
"""Of embeddings of length 1: below it an encoder takes all names for the same."""
_SCHEMA = 1
_KEY = "text_table"
"""Of the one entry of metadata: several would be written in any order, and bytes would differ."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextTable:
    """Targets for every city of one class tree."""

    all_KE: NDArray[np.float32]
    """The names of all levels; each row of length 1."""
    city_KE: NDArray[np.float32]
    """The city's name alone; each row of length 1."""
    encoder: str
    """Hub id, name of the folder, or `names`; no path."""
    weights_sha256: dict[str, str]
    """Of the encoder's files of weights, by name; empty for `names`."""
    tree_sha256: str
    texts: tuple[str, ...]
    """What was embedded for each city."""

    def of(self, variant: Variant) -> NDArray[np.float32]:
        """One of the two tables.  [K, E]."""
        return self.all_KE if variant == "all" else self.city_KE


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="File to write, best beside the dataset.")] = Path(
        FILE_NAME
    ),
    places: Annotated[
        Path | None, typer.Option(help="Class tree: a places.csv. Default: the 166 cities.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Class tree of a dataset, such as cityguessr:FOLDER.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="CLIP as a folder or hub id; or: names, which needs none.")
    ] = CLIP,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Fetch weights for non-commercial use, too.")
    ] = False,
) -> None:
    """Write the text table that training aligns features with."""
    console = Console(stderr=True)
    with telling(console, stopped="stopped; nothing was written"):
        refuse_file(out.parent, doing="writing the text table into")
        hierarchy = _wanted_tree(places, dataset)
        if encoder == NAMES:
            table = table_of_names(hierarchy)
        else:
            table = table_of_clip(
                hierarchy, encoder, is_accepted=accept_licence, tell=console.print
            )
        write_text_table(table, out)
    count, width = table.all_KE.shape
    console.print(f"{out}: {count} cities, {width} wide, from {table.encoder}")


def table_of_clip(
    hierarchy: Hierarchy,
    source: str | Path,
    *,
    revision: str | None = None,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> TextTable:
    """Targets from a published text encoder.

    Args:
        hierarchy: the class tree.
        source: CLIP or SigLIP: a folder in the hub's layout, a hub id, or a known model's name.
        revision: commit, branch or tag at the hub.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Raises:
        WeightsError, ExportError: no such network, or one that takes all names for the same.
        ConfigError, OutputError: it cannot be fetched; the text says what to do.
    """
    # What reads a table needs neither of the two.
    from train.networks import find_network
    from train.zeroshot.checkpoint import embed_texts, read_checkpoint

    fetched = find_network(
        source, with_tokenizer=True, revision=revision, is_accepted=is_accepted, tell=tell
    )
    checkpoint = read_checkpoint(fetched.folder)
    is_folder = Path(source).expanduser().is_dir()
    name = fetched.folder.resolve().name if is_folder else str(source)
    return _table(hierarchy, lambda texts: embed_texts(checkpoint, texts), name, checkpoint.weights)


def table_of_names(hierarchy: Hierarchy, width: int = NAME_WIDTH) -> TextTable:
    """Targets without any network; see `name_table`."""
    return _table(
        hierarchy, lambda texts: np.stack([spell(text, width) for text in texts]), NAMES, {}
    )


def name_table(
    hierarchy: Hierarchy, width: int = NAME_WIDTH, variant: Variant = "all"
) -> NDArray[np.float32]:
    """Targets that know how names are spelt, and nothing of the world.  [K, E], rows of length 1.

    For trials and tests where no text encoder is at hand. Cities of one country still come closer
    to each other than others do, since they share the names of the coarser levels.
    """
    return table_of_names(hierarchy, width).of(variant)


def spell(text: str, width: int = NAME_WIDTH) -> NDArray[np.float32]:
    """A text's spelling as a direction.  [E], of length 1.

    Every run of two, three and four characters (ends marked, case ignored) stands for a fixed
    random direction of +1 and -1, taken from its hash; a text is the sum over its runs, so that
    cosines are about the share of runs that two texts have in common.
    Source: hashed n-grams as in fastText (Bojanowski et al., TACL 2017); random directions after
    Achlioptas, 2003.
    """
    marked = f"\x02{text.casefold()}\x03"
    total_E = np.zeros(width, np.int64)
    for length in GRAMS:
        for at in range(max(1, len(marked) - length + 1)):
            gram = marked[at : at + length].encode("utf-8", "surrogatepass")
            bits = np.frombuffer(shake_256(gram).digest(-(-width // 8)), np.uint8)
            total_E += 2 * np.unpackbits(bits)[:width].astype(np.int64) - 1
    norm = float(np.sqrt((total_E**2).sum()))
    # Runs can cancel out exactly where a table is a few columns wide.
    total_E[0] += norm == 0
    return (total_E / (norm or 1.0)).astype(np.float32)


def text_of(name: str, level: Level) -> str:
    """What is embedded for a class: its bare name, as it is written in English.

    Underscores become spaces. A city by the name of a folder of CityGuessr68k (`Malm`, `Banglore`)
    gets its right name (`Malmö`, `Bengaluru`): in the text alone, labels keep theirs.
    """
    spaced = " ".join(name.replace("_", " ").split())
    return _right_names().get(spaced, spaced) if level == "city" else spaced


def tree_digest(hierarchy: Hierarchy) -> str:
    """SHA-256 of a class tree: the names above every city, in the order of the ids."""
    paths = [
        [hierarchy.places[level][hierarchy.ancestors[level][city]].name for level in LEVELS]
        for city in range(hierarchy.size("city"))
    ]
    return sha256(json.dumps(paths, ensure_ascii=False).encode("utf-8")).hexdigest()


def write_text_table(table: TextTable, path: Path) -> None:
    """Write a table; the same table gives the same bytes.

    Raises:
        OutputError: the file cannot be written; what was there is untouched.
    """
    record = {
        "schema": _SCHEMA,
        "encoder": table.encoder,
        "weights_sha256": table.weights_sha256,
        "tree_sha256": table.tree_sha256,
        "texts": table.texts,
    }
    tensors = {"all": table.all_KE, "city": table.city_KE}
    content = save(tensors, {_KEY: json.dumps(record, ensure_ascii=False, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, content)
    except OSError as exc:
        raise OutputError(f"writing the text table {path}: {exc.strerror or exc}.") from exc


def read_text_table(
    path: Path, hierarchy: Hierarchy, variant: Variant = "all"
) -> NDArray[np.float32]:
    """Targets of a dataset's cities, in the order of their ids.

    Returns:
        float32 [K, E], rows of length 1.

    Raises:
        DatasetError: no such file, no text table, or one for another class tree.
    """
    table = open_text_table(path)
    if table.tree_sha256 != tree_digest(hierarchy):
        raise DatasetError(
            f"reading the text table {path}: it is for another class tree (of {len(table.texts)} "
            f"cities, first {table.texts[0]!r}) than this dataset's (of {hierarchy.size('city')}, "
            f"first {hierarchy.places['city'][0].name!r}). Make one for this dataset: "
            "python -m train.texts --dataset SPEC --out FILE"
        )
    if variant not in get_args(Variant):
        raise DatasetError(
            f"reading the text table {path}: there is no variant {variant!r}; there are "
            f"{', '.join(get_args(Variant))}."
        )
    return table.of(variant)


def open_text_table(path: Path) -> TextTable:
    """Read a text table, whatever tree it is for.

    Raises:
        DatasetError: no such file, or no text table.
    """
    advice = "Make it with: python -m train.texts --dataset SPEC --out FILE"
    if not path.is_file():
        raise DatasetError(f"reading the text table {path}: there is no such file. {advice}")
    try:
        with safe_open(path, framework="numpy") as opened:
            record = json.loads((opened.metadata() or {})[_KEY])
            all_KE, city_KE = opened.get_tensor("all"), opened.get_tensor("city")
        table = TextTable(
            all_KE=all_KE,
            city_KE=city_KE,
            encoder=str(record["encoder"]),
            weights_sha256=dict(record["weights_sha256"]),
            tree_sha256=str(record["tree_sha256"]),
            texts=tuple(map(str, record["texts"])),
        )
        schema = record["schema"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(
            f"reading the text table {path}: no text table, or cut short ({exc!r}). {advice}"
        ) from exc
    if schema != _SCHEMA or not table.texts or not _is_table(table):
        raise DatasetError(
            f"reading the text table {path}: schema {schema!r}, tensors of {all_KE.shape} and "
            f"{city_KE.shape} for {len(table.texts)} cities; needed are schema {_SCHEMA} and "
            f"two of float32 [cities, width] with rows of length 1. {advice}"
        )
    return table


def _is_table(table: TextTable) -> bool:
    return table.all_KE.shape == table.city_KE.shape and all(
        rows_KE.dtype == np.float32
        and rows_KE.ndim == 2
        and len(rows_KE) == len(table.texts)
        and bool((abs(np.linalg.norm(rows_KE, axis=1) - 1) < 1e-3).all())
        for rows_KE in (table.all_KE, table.city_KE)
    )


def _table(
    hierarchy: Hierarchy, embed: Embed, encoder: str, weights_sha256: dict[str, str]
) -> TextTable:
    """Embed every name once; average, at length 1, what stands above each city."""
    texts = {
        level: [text_of(place.name, level) for place in hierarchy.places[level]] for level in LEVELS
    }
    rows = {level: _embed_distinct(texts[level], embed) for level in LEVELS}
    city_KE = rows["city"]
    if len(set(texts["city"])) > 1 and np.ptp(city_KE, axis=0).max() < LEAST_DIFFERENCE:
        raise WeightsError(
            f"embedding {len(city_KE)} names of cities with {encoder}: it takes all of them for "
            "the same. Its tokenizer may be another network's, or missing."
        )
    total_KE = sum(rows[level][hierarchy.ancestors[level]].astype(np.float64) for level in LEVELS)
    norms_K1 = np.linalg.norm(total_KE, axis=1, keepdims=True)
    return TextTable(
        all_KE=(total_KE / np.maximum(norms_K1, 1e-12)).astype(np.float32),
        city_KE=city_KE,
        encoder=encoder,
        weights_sha256=dict(weights_sha256),
        tree_sha256=tree_digest(hierarchy),
        texts=tuple(
            " / ".join(texts[level][hierarchy.ancestors[level][city]] for level in LEVELS)
            for city in range(hierarchy.size("city"))
        ),
    )


def _embed_distinct(texts: Sequence[str], embed: Embed) -> NDArray[np.float32]:
    """Embed equal texts once.  -> [K, E], rows of length 1."""
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    found_ME = np.asarray(embed(list(row_of)), np.float32)
    return found_ME[[row_of[text] for text in texts]]


@cache
def _right_names() -> dict[str, str]:
    """What CityGuessr68k's folders are called, with spaces, and the cities' English names."""
    text = (files("geotag.places") / "places166.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["folder"].replace("_", " "): row["city"] for row in rows}


def _wanted_tree(places: Path | None, dataset: str | None) -> Hierarchy:
    if places is not None and dataset is not None:
        raise ConfigError("making a text table: give --places or --dataset, not both.")
    if places is not None:
        if not places.is_file():
            raise ConfigError(f"making a text table: there is no file {places}.")
        return read_hierarchy(places)
    if dataset is not None:
        from train.data.sources import open_dataset

        return open_dataset(dataset, "train").hierarchy
    text = (files("geotag.places") / "places166.csv").read_text(encoding="utf-8")
    return build_hierarchy(csv.DictReader(text.splitlines()), source="places166.csv")


if __name__ == "__main__":
    app()
