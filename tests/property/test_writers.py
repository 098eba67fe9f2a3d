import csv
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from geotag.types import Tag
from geotag.writers.csv import CSV
from geotag.writers.format import Format, TableFormat, position
from geotag.writers.geojson import GEOJSON
from geotag.writers.ndjson import NDJSON
from geotag.writers.schema import SCHEMA_FIELD, tag_schema
from geotag.writers.sidecars import json_bytes
from geotag.writers.tracks import DriveTrack, bounds, split_line, tracks_geojson
from tests.rfc7946 import check_bbox, check_collection, check_feature, check_line, parse

# Any text but lone surrogates, which are no text, and NUL, which is in no file name.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
COUNTS = st.integers(0, 2**53)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 6) + 0.0)


def floats_for(name: str) -> st.SearchStrategy[float]:
    if name.endswith("_lat"):
        return numbers(-90, 90)
    if name.endswith("_lon"):
        return numbers(-180, 180)
    if name.endswith("_p") or name.startswith("confidence_"):
        return st.floats(0, 1)
    return st.floats(0, allow_infinity=False)


def strategy_for(name: str, kind: object) -> st.SearchStrategy[object]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if not isinstance(kind, type):
        return st.one_of(*(strategy_for(name, part) for part in get_args(kind)))
    known: dict[type, st.SearchStrategy[object]] = {
        str: TEXTS,
        int: COUNTS,
        float: floats_for(name),
        NoneType: st.none(),
    }
    return known[kind]


TAGS = st.builds(
    Tag, **{name: strategy_for(name, kind) for name, kind in get_type_hints(Tag).items()}
)
BARE = Tag(id="1", path="a.mp4")
"""Hardly a field is filled: every other column is null throughout."""
AWKWARD = Tag(id="ünï", path='a "b", c\r\n\t\'🚗\\.mp4', error="\x01\x1f\x7f\u2028", vendor=" ")

quick = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
unique_tags = st.lists(TAGS, max_size=3, unique_by=lambda tag: tag.id)


def written(tags: Sequence[Tag], form: Format) -> str:
    return form.head + form.separator.join(map(form.row, tags)) + form.tail


@quick
@given(unique_tags)
def test_what_geojson_says_is_the_tag(tags: list[Tag]) -> None:
    features = check_collection(written(tags, GEOJSON))
    assert [Tag(**feature["properties"]) for feature in features] == tags
    assert [feature["id"] for feature in features] == [tag.id for tag in tags]


@quick
@given(unique_tags)
def test_what_ndjson_says_is_the_tag(tags: list[Tag]) -> None:
    lines = written(tags, NDJSON).split("\n")
    assert lines.pop() == ""
    features = [parse(line) for line in lines]
    for feature in features:
        check_feature(feature)
    assert [Tag(**feature["properties"]) for feature in features] == tags


@quick
@given(unique_tags)
def test_what_csv_says_is_the_tag(tags: list[Tag]) -> None:
    records = list(csv.DictReader(io.StringIO(written(tags, CSV), newline="")))
    assert len(records) == len(tags)
    for record, tag in zip(records, tags, strict=True):
        for field in fields(Tag):
            value = getattr(tag, field.name)
            assert record[field.name] == ("" if value is None else str(value))


@quick
@given(TAGS)
@example(BARE)
def test_every_tag_is_what_the_schema_says(tag: Tag) -> None:
    validator = jsonschema.Draft202012Validator(tag_schema())
    validator.validate(json.loads(GEOJSON.row(tag))["properties"])
    sidecar = json.loads(json_bytes(tag))
    validator.validate(sidecar)
    assert sidecar.pop(SCHEMA_FIELD) == 1
    assert Tag(**sidecar) == tag


@settings(quick, max_examples=15)
@given(unique_tags)
@example([])
@example([BARE])
@example([BARE, AWKWARD])
def test_what_geoparquet_says_is_the_tag(tags: list[Tag]) -> None:
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("pyarrow")
    from geotag.writers.geoparquet import GEOPARQUET

    check_frame(geopandas.read_parquet(io.BytesIO(encoded(GEOPARQUET, tags))), tags)


@settings(quick, max_examples=15)
@given(unique_tags)
@example([])
@example([BARE])
@example([BARE, AWKWARD])
def test_what_geopackage_says_is_the_tag(tags: list[Tag]) -> None:
    geopandas = pytest.importorskip("geopandas")
    from geotag.writers.geopackage import GEOPACKAGE

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tags.gpkg"
        path.write_bytes(encoded(GEOPACKAGE, tags))
        check_frame(geopandas.read_file(path, layer="tags"), tags)


def encoded(form: TableFormat, tags: list[Tag]) -> bytes:
    content = form.encode(tags, None)
    assert form.encode(tags, None) == content
    return content


def check_frame(frame: Any, tags: list[Tag]) -> None:  # noqa: ANN401
    assert frame.crs == "EPSG:4326"
    assert list(frame.columns) == [*(field.name for field in fields(Tag)), "geometry"]
    rows = frame.drop(columns="geometry").astype(object)
    rows = rows.where(rows.notna(), None).to_dict("records")
    assert rows == [asdict(tag) for tag in tags]
    points = [point and (point.y, point.x) for point in frame.geometry]
    assert points == [position(tag) for tag in tags]


# Drives are short beside the world, and are wrapped to [-180, 180) as receivers say them.
STEPS = st.tuples(st.floats(-5, 5), st.floats(-170, 170))
WAYS = st.builds(
    lambda start, steps: way_from(start, steps),
    st.tuples(st.floats(-60, 60), st.floats(-180, 180)),
    st.lists(STEPS, min_size=0, max_size=8),
)


def way_from(
    start: tuple[float, float], steps: list[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    way = np.cumsum(np.array([start, *steps]), axis=0)
    return tuple((float(np.clip(lat, -90, 90)), float((lon + 180) % 360 - 180)) for lat, lon in way)


@settings(max_examples=200, deadline=None)
@given(WAYS)
@example(((0.0, 180.0), (0.0, -180.0), (1.0, 180.0)))
@example(((0.0, 180.0), (1.0, -179.9)))
@example(((0.0, -179.9), (1.0, 180.0)))
def test_a_way_is_cut_at_the_antimeridian_and_nowhere_else(
    way: tuple[tuple[float, float], ...],
) -> None:
    track = DriveTrack(drive_id="d", points=len(way), km=1.0, line=way)
    features = check_collection(tracks_geojson([track]), check_line)
    pieces = split_line(way)
    assert len(features) == (len(pieces) > 0)
    unwrapped = np.unwrap([lon for _, lon in way], period=360)
    length = sum(
        abs(b[1] - a[1])
        for piece in pieces
        for a, b in zip(piece.points, piece.points[1:], strict=False)
    )
    assert length == pytest.approx(np.abs(np.diff(unwrapped)).sum(), abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(WAYS)
def test_the_bounds_of_a_way_are_no_wider_than_it(way: tuple[tuple[float, float], ...]) -> None:
    pieces = split_line(way)
    if not pieces:
        return
    west, south, east, north = bounds(pieces)
    lines = [[[lon, lat] for lat, lon in piece.points] for piece in pieces]
    check_bbox([west, south, east, north], {"type": "MultiLineString", "coordinates": lines})
    unwrapped = np.unwrap([lon for _, lon in way], period=360)
    width = min(float(np.ptp(unwrapped)), 360.0)
    assert (east - west if west <= east else east - west + 360) == pytest.approx(width, abs=1e-4)
