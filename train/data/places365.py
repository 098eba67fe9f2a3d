"""From the 365 categories of Places365 to the 16 scene groups.

The published hierarchy puts 63 categories into two groups or more; it is not part of any release.
`places365.csv` is our own table: one group for each category, by what it means. Its rules: inside
or outside comes first; a road in the open country is transportation, and a street, an alley or a
crosswalk belongs to its town; where people live is a house, a whole settlement is a town; a field
is a field, and an orchard or a vineyard is a farm.

Shape suffixes: K = 365 categories, S = 16 scene groups.
"""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from train.data.world import SCENE_GROUPS
from train.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CATEGORIES = 365
"""Classes of the published networks (Zhou et al., TPAMI 2018), in the order of
`categories_places365.txt`."""
COLUMNS = ("category", "group")
_TABLE = Path(__file__).with_name("places365.csv")


@cache
def categories() -> tuple[str, ...]:
    """Names of the 365 categories in the published order, such as `bazaar/outdoor`."""
    return tuple(category for category, _ in _rows())


@cache
def membership() -> NDArray[np.float32]:
    """Which share of a category each scene group gets.  [365, 16], each row sums to 1.

    The probability of a group is the sum over its categories: `probs_NK @ membership()`.
    """
    shares_KS = np.zeros((CATEGORIES, len(SCENE_GROUPS)), np.float32)
    for row, (_, group) in enumerate(_rows()):
        shares_KS[row, group] = 1
    shares_KS.flags.writeable = False  # shared by all who ask
    return shares_KS


def parse_table(text: str, *, source: str) -> tuple[tuple[str, int], ...]:
    """Read a table of categories and the group of each.

    Args:
        text: CSV with the columns `category` and `group` (one of `SCENE_GROUPS`).
        source: what errors call it.

    Returns:
        Category and index into `SCENE_GROUPS`, row by row.

    Raises:
        DatasetError: other columns, an unknown group, a category twice, or not 365 of them.
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        rows = list(reader)
    except csv.Error as exc:
        raise DatasetError(
            f"reading {source}, line {reader.line_num}: no CSV ({exc}). Needed are the columns "
            f"{' and '.join(COLUMNS)}."
        ) from exc
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DatasetError(
            f"reading {source}: its columns are {reader.fieldnames}; needed are "
            f"{' and '.join(COLUMNS)}."
        )
    found: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        category, group = row["category"], row["group"]
        if not category or category in found or group not in SCENE_GROUPS:
            raise DatasetError(
                f"reading {source}, line {line}: {category!r} in the group {group!r}; each "
                f"category is named once, with one of the groups {'; '.join(SCENE_GROUPS)}."
            )
        found[category] = SCENE_GROUPS.index(group)
    if len(found) != CATEGORIES:
        raise DatasetError(
            f"reading {source}: {len(found)} categories; Places365 has {CATEGORIES}, all of them "
            "are needed, in the published order."
        )
    return tuple(found.items())


@cache
def _rows() -> tuple[tuple[str, int], ...]:
    return parse_table(_TABLE.read_text(encoding="utf-8"), source=_TABLE.name)
