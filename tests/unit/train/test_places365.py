from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from train.data import places365
from train.data.world import SCENE_GROUPS
from train.errors import DatasetError

OFFICIAL_MD5 = "06c963b85866bd0649f97cb43dd16673"
"""Of the published `categories_places365.txt` (6,833 bytes), as mirrors of the data record it."""


def test_names_and_order_are_those_of_the_published_list() -> None:
    lines = [f"/{name[0]}/{name} {row}" for row, name in enumerate(places365.categories())]
    listing = "\n".join(lines).encode()
    assert len(listing) == 6833
    assert hashlib.md5(listing, usedforsecurity=False).hexdigest() == OFFICIAL_MD5


def test_every_category_has_one_group_and_every_group_some_category() -> None:
    shares_KS = places365.membership()
    assert shares_KS.shape == (365, 16)
    np.testing.assert_array_equal(shares_KS.sum(axis=1), 1)
    assert (shares_KS.sum(axis=0) > 0).all()


@pytest.mark.parametrize(
    ("category", "group"),
    [
        ("highway", 10),
        ("street", 15),
        ("residential_neighborhood", 14),
        ("forest/broadleaf", 8),
        ("mountain_snowy", 7),
        ("coast", 6),
        ("car_interior", 3),
        ("construction_site", 13),
        ("castle", 11),
        ("park", 12),
        ("kitchen", 2),
        ("supermarket", 0),
    ],
)
def test_plain_cases_go_where_everybody_would_put_them(category: str, group: int) -> None:
    assert places365.membership()[places365.categories().index(category)].argmax() == group


def test_the_table_cannot_be_changed_by_who_reads_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        places365.membership()[0, 0] = 1


def table(**changes: str) -> str:
    text = Path(places365.__file__).with_name("places365.csv").read_text(encoding="utf-8")
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "columns are None"),
        ("category\nbar\n", "columns are"),
        ("category,group\nbar,shopping and dining\n", "1 categories"),
        (table(zen_garden="yard"), "line 366: 'yard'"),
        (table(workplace="work place"), "'work place'"),
        ('category,group\n"bar', "no CSV"),
        (f"category,group\n,{SCENE_GROUPS[0]}\n", "line 2: ''"),
        ("category,group\nbar\n", "None"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(DatasetError, match="reading a table") as caught:
        places365.parse_table(text, source="a table")
    assert says in str(caught.value)
