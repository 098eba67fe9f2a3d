"""The paper's tables as we print them: rows of presets, ours over seeds beside the published.

The paper does not say how most of its rows were decoded, and decoding moves the coarse levels by
points: every row is therefore shown in all decodings, one line each, above the published line.

Shape suffixes: S seeds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines.bundle import LEVELS
from train.config import tomllib
from train.evaluation.report import MODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engines.bundle import DecodingMode
    from train.stills import Looks

TABLES = Path(__file__).with_name("published.toml")
DIGITS = 4
"""Of a percentage, behind the point, in JSON."""
Z95 = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""
WIDE = 120
"""Columns of a terminal from which on intervals are printed; a file has as many."""
NARROW = 72
"""Columns below which what networks cost is left out, too."""
PAPER = "the paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system of a table."""

    label: str
    preset: str
    mode: DecodingMode | None = None
    """How it is decoded; None in all the ways that are asked for."""
    still: Looks | None = None
    """Of a model of single pictures: what it is measured on, if not what it was trained on."""
    published: tuple[float, ...] | None = None
    """Top-1 % of city, state, country, continent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """What is compared."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""
    """What must be known of the published numbers."""
    published_on: str = "CityGuessr68k"
    data: str | None = None
    """Dataset that all its rows are trained on; None for that of their presets, CityGuessr68k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Top-1 % at one level."""

    value: float
    low: float
    high: float
    """95 % interval; see `pool`."""

    def record(self) -> dict[str, float]:
        """For JSON: percentages with no more digits than they are known to."""
        return {name: round(value, DIGITS) for name, value in asdict(self).items()}


def read_tables() -> dict[str, PaperTable]:
    """Every table, by name."""
    record = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return {
        name: PaperTable(**{**table, "rows": tuple(map(_row, table["rows"]))})
        for name, table in record.items()
    }


def _row(record: dict[str, Any]) -> Row:
    published = record.pop("published", None)
    return Row(**record, published=None if published is None else tuple(published))


def pool(estimates: Sequence[Mapping[str, float]]) -> Cell:
    """One number of several seeds, each `{"value", "low", "high"}` in shares of 1.

    The interval holds both reasons for chance: which clips are counted, the same for all seeds and
    taken from their intervals, and the seed, from the spread of the values:
    s^2 = s_clips^2 + s_seeds^2 / S, as a normal distribution.
    """
    values_S = 100 * np.array([estimate["value"] for estimate in estimates])
    widths_S = 100 * np.array([estimate["high"] - estimate["low"] for estimate in estimates])
    clips = float(widths_S.mean()) / (2 * Z95)
    seeds = float(values_S.var(ddof=1)) / len(values_S) if len(values_S) > 1 else 0.0
    half = Z95 * float(np.sqrt(clips**2 + seeds))
    mean = float(values_S.mean())
    return Cell(value=mean, low=max(0.0, mean - half), high=min(100.0, mean + half))


def record_row(
    row: Row, evaluations: Sequence[Mapping[str, Any]], modes: Sequence[DecodingMode] = MODES
) -> dict[str, Any]:
    """What is known of a system, as JSON values; percentages.

    Args:
        row: of a table.
        evaluations: of every seed; with `cost`, as a cell has it.
        modes: decodings that are asked for; one that the row names goes before them.
    """
    record: dict[str, Any] = {"label": row.label, "preset": row.preset}
    if row.still is not None:
        record["measured_on"] = row.still
    decodings: dict[str, Any] = {}
    for mode in (row.mode,) if row.mode else modes:
        found = [evaluation["metrics"][mode] for evaluation in evaluations]
        decodings[mode] = {
            **{level: pool([each[level]["top1"] for each in found]).record() for level in LEVELS},
            "conflicts": pool([each["conflict_rate"] for each in found]).record(),
        }
    record |= {**evaluations[0]["cost"], "decodings": decodings, "published": row.published}
    if routing := mean_routing(evaluations):
        record["routing"] = routing
    return record


def mean_routing(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much was used of several parts of a network: of each route the mean over seeds.

    Empty where it has no such parts.
    """
    every = [evaluation.get("routing", {}) for evaluation in evaluations]

    def mean(division: str, route: str, name: str) -> float:
        values = [found[division]["routes"][route][name] for found in every]
        return round(sum(values) / len(values), DIGITS)

    return {
        division: {
            route: {name: mean(division, route, name) for name in shares}
            for route, shares in found["routes"].items()
        }
        for division, found in every[0].items()
    }


def record_table(
    table: PaperTable,
    cells: Sequence[Sequence[Mapping[str, Any]]],
    modes: Sequence[DecodingMode] = MODES,
) -> dict[str, Any]:
    """What a table shows, as JSON values.

    Args:
        table: what is compared.
        cells: of each of its rows, the evaluation of every seed.
        modes: decodings of the rows that name none of their own.
    """
    first = cells[0][0]
    return {
        "title": table.title,
        "measured_on": f"{first['clips']} clips of {first['dataset']}",
        "published_on": table.published_on,
        "note": table.note,
        "seeds": len(cells[0]),
        "rows": [
            record_row(row, evaluations, modes)
            for row, evaluations in zip(table.rows, cells, strict=True)
        ],
    }


def output_console() -> Console:
    """Standard output, as wide as a terminal is; a file has room for intervals."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show_table(record: Mapping[str, Any], console: Console) -> None:
    """Print a table: of each system a block of lines, one a decoding, and the published one.

    Args:
        record: of `record_table`.
        console: where to; where it is narrow, intervals are left to the JSON.
    """
    is_wide, is_narrow = console.width >= WIDE, console.width < NARROW
    intervals = "95 % intervals" if is_wide else "intervals in the JSON"
    heading = (
        f"{record['title']}: ours, top-1 % on {record['measured_on']}, {record['seeds']} seed(s), "
        f"{intervals}"
    )
    if any(row["published"] is not None for row in record["rows"]):
        heading += f"; {PAPER}'s on {record['published_on']}"
    table = Table(title=heading, box=box.SIMPLE_HEAD, padding=(0, int(is_wide), 0, 0))
    table.add_column("", min_width=11)
    for head in () if is_narrow else ("param.\nM", "GMAC\na clip"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("decoding", no_wrap=True)
    for level in LEVELS:
        table.add_column(level, justify="right", no_wrap=True)
    table.add_column("con-\nflicts", justify="right", no_wrap=True)
    for row in record["rows"]:
        lines = [
            (mode, *(_told(found[level], is_wide) for level in LEVELS), _told(found["conflicts"]))
            for mode, found in row["decodings"].items()
        ]
        texts = [Text("\n".join(column)) for column in zip(*lines, strict=True)]
        if row["published"] is not None:
            published = (PAPER, *(f"{value:.1f}" for value in row["published"]), "")
            for text, value in zip(texts, published, strict=True):
                text.append(f"\n{value}", style="dim")
        cost = (f"{row['parameters'] / 1e6:.2f}", f"{row['gmac_per_clip']:.2f}")
        table.add_row(row["label"], *(() if is_narrow else cost), *texts)
        table.add_section()
    console.print(table)
    if record["note"]:
        console.print(record["note"], style="dim", highlight=False, markup=False)


def _told(found: Mapping[str, float], is_wide: bool = False) -> str:
    """A percentage, maybe with its interval."""
    interval = f" ({found['low']:.0f}-{found['high']:.0f})" if is_wide else ""
    return f"{found['value']:.1f}{interval}"
