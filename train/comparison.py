"""The paper's tables as we print them: rows of presets, ours over seeds beside the published.

Shape suffixes: S seeds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from engines.bundle import LEVELS
from train.config import tomllib

if TYPE_CHECKING:
    from rich.console import Console

    from engines.bundle import DecodingMode
    from train.stills import Looks

TABLES = Path(__file__).with_name("published.toml")
DIGITS = 4
"""Of a percentage, behind the point, in JSON."""
Z95 = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    label: str
    preset: str
    mode: DecodingMode | None = None
    """How it is decoded; None as the table is asked for."""
    still: Looks | None = None
    """Of a model of single pictures: what it is measured on, if not what it was trained on."""
    published: tuple[float, ...] | None = None
    """Top-1 % of city, state, country, continent on CityGuessr68k."""


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

    def __str__(self) -> str:
        """As a table shows it."""
        return f"{self.value:.1f} ({self.low:.1f}-{self.high:.1f})"


def read_tables() -> dict[str, tuple[str, tuple[Row, ...]]]:
    """Title and rows of every table, by name."""
    record = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return {
        name: (
            table["title"],
            tuple(
                Row(**{**row, "published": tuple(row["published"]) if "published" in row else None})
                for row in table["rows"]
            ),
        )
        for name, table in record.items()
    }


def pool(estimates: list[dict[str, float]]) -> Cell:
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


def show_table(
    title: str,
    rows: tuple[Row, ...],
    cells: dict[str, list[dict[str, Any]]],
    mode: str,
    console: Console,
) -> dict[str, Any]:
    """Print a table; what it shows, as JSON values.

    Args:
        title: what it compares.
        rows: its lines.
        cells: of each label, the evaluation of every seed.
        mode: decoding of the rows that name none.
        console: where to.
    """
    first = cells[rows[0].label][0]
    seeds = len(cells[rows[0].label])
    heading = (
        f"{title}: top-1 % on {first['clips']} clips of {first['dataset']}, {seeds} seed(s), 95 % "
        "intervals; beside them the paper's numbers on CityGuessr68k"
    )
    table = Table(title=heading)
    table.add_column("")
    for level in LEVELS:
        table.add_column(level, justify="right")
        table.add_column("paper", justify="right", style="dim")
    record: dict[str, Any] = {"title": heading, "rows": []}
    for row in rows:
        decoding = row.mode or mode
        found = [evaluation["metrics"][decoding] for evaluation in cells[row.label]]
        shown = {level: pool([each[level]["top1"] for each in found]) for level in LEVELS}
        published = row.published or (None,) * len(LEVELS)
        texts = [
            part
            for level, paper in zip(LEVELS, published, strict=True)
            for part in (str(shown[level]), "" if paper is None else f"{paper:.1f}")
        ]
        table.add_row(row.label, *texts)
        record["rows"].append(
            {
                "label": row.label,
                "preset": row.preset,
                "decoding": decoding,
                "ours": {level: shown[level].record() for level in LEVELS},
                "conflict_rate": [each["conflict_rate"]["value"] for each in found],
                "published": row.published,
            }
        )
    console.print(table)
    return record
