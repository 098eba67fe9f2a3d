import csv
import io
import json
from dataclasses import fields
from typing import Literal

import pytest

from geotag.types import Tag
from geotag.writers.csv import CSV
from geotag.writers.format import position
from geotag.writers.geojson import GEOJSON
from geotag.writers.ndjson import NDJSON
from tests.rfc7946 import check_collection, check_feature, parse

LOCATED = Tag(
    id="1",
    path='a "b", c\n🚗.mp4',
    city="Paris",
    level="city",
    location_source="visual",
    visual_lat=48.8534101,
    visual_lon=2.3488,
    clips=2,
)
UNLOCATED = Tag(id="2", path="b.mp4", status="failed", error="empty: zero bytes")


def test_geojson_is_what_the_rfc_says() -> None:
    text = GEOJSON.head + GEOJSON.row(LOCATED) + GEOJSON.separator + GEOJSON.row(UNLOCATED)
    located, unlocated = check_collection(text + GEOJSON.tail)
    assert located["geometry"] == {"type": "Point", "coordinates": [2.3488, 48.85341]}
    assert unlocated["geometry"] is None
    assert list(located["properties"]) == [field.name for field in fields(Tag)]
    assert located["properties"]["path"] == LOCATED.path


def test_an_empty_collection_is_geojson_too() -> None:
    assert check_collection(GEOJSON.head + GEOJSON.tail) == []


def test_numbers_that_are_none_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        GEOJSON.row(Tag(id="1", path="a", radius_m=float("nan")))


def test_ndjson_is_one_feature_a_line() -> None:
    text = (
        NDJSON.head + NDJSON.row(LOCATED) + NDJSON.separator + NDJSON.row(UNLOCATED) + NDJSON.tail
    )
    lines = text.splitlines()
    assert len(lines) == 2
    for line in lines:
        check_feature(parse(line))
    assert json.loads(lines[0])["properties"]["path"] == LOCATED.path


def test_csv_has_latitude_and_longitude_first_and_empty_for_null() -> None:
    text = CSV.head + CSV.row(LOCATED) + CSV.separator + CSV.row(UNLOCATED) + CSV.tail
    head, located, unlocated = csv.reader(io.StringIO(text, newline=""))
    assert head == ["latitude", "longitude", *(field.name for field in fields(Tag))]
    assert located[:4] == ["48.8534101", "2.3488", "1", LOCATED.path]
    assert unlocated[:4] == ["", "", "2", "b.mp4"]
    assert text.count("\r\n") == 3
    assert '"a ""b"", c\n🚗.mp4"' in text


@pytest.mark.parametrize(
    ("source", "point"),
    [("gps", (1.0, 2.0)), ("visual", (3.0, 4.0)), ("drive", (5.0, 6.0)), ("none", None)],
)
def test_the_point_is_that_of_whoever_gave_the_answer(
    source: Literal["gps", "visual", "drive", "none"], point: tuple[float, float] | None
) -> None:
    tag = Tag(
        id="1",
        path="a",
        location_source=source,
        gps_lat=1.0,
        gps_lon=2.0,
        visual_lat=3.0,
        visual_lon=4.0,
        drive_lat=5.0,
        drive_lon=6.0,
    )
    assert position(tag) == point
    assert position(Tag(id="1", path="a", location_source=source)) is None
