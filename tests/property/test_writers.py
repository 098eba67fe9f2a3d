import csv
import io
from dataclasses import fields
from types import NoneType
from typing import get_args, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from geotag.types import Tag
from geotag.writers.csv import CSV
from geotag.writers.format import Format
from geotag.writers.geojson import GEOJSON
from geotag.writers.ndjson import NDJSON
from tests.rfc7946 import check_collection, check_feature, parse

# Any text but lone surrogates, which are no text, and NUL, which is in no file name.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def strategy_for(name: str, kind: object) -> st.SearchStrategy[object]:
    if name in ("visual_lat", "gps_lat"):
        return st.none() | st.floats(-90, 90).map(lambda value: round(value, 6))
    if name in ("visual_lon", "gps_lon"):
        return st.none() | st.floats(-180, 180).map(lambda value: round(value, 6))
    options = get_args(kind) or (kind,)
    known = {str: TEXTS, int: st.integers(), float: FLOATS, NoneType: st.none()}
    return st.one_of(*(known.get(option, st.just(option)) for option in options))


TAGS = st.builds(
    Tag, **{name: strategy_for(name, kind) for name, kind in get_type_hints(Tag).items()}
)


def written(tags: list[Tag], form: Format) -> str:
    return form.head + form.separator.join(map(form.row, tags)) + form.tail


@settings(max_examples=40, deadline=None)
@given(st.lists(TAGS, max_size=3, unique_by=lambda tag: tag.id))
def test_what_geojson_says_is_the_tag(tags: list[Tag]) -> None:
    features = check_collection(written(tags, GEOJSON))
    assert [Tag(**feature["properties"]) for feature in features] == tags
    assert [feature["id"] for feature in features] == [tag.id for tag in tags]


@settings(max_examples=40, deadline=None)
@given(st.lists(TAGS, max_size=3))
def test_what_ndjson_says_is_the_tag(tags: list[Tag]) -> None:
    lines = written(tags, NDJSON).split("\n")
    assert lines.pop() == ""
    features = [parse(line) for line in lines]
    for feature in features:
        check_feature(feature)
    assert [Tag(**feature["properties"]) for feature in features] == tags


@settings(max_examples=40, deadline=None)
@given(st.lists(TAGS, max_size=3))
def test_what_csv_says_is_the_tag(tags: list[Tag]) -> None:
    records = list(csv.DictReader(io.StringIO(written(tags, CSV), newline="")))
    assert len(records) == len(tags)
    for record, tag in zip(records, tags, strict=True):
        for field in fields(Tag):
            value = getattr(tag, field.name)
            assert record[field.name] == ("" if value is None else str(value))
