import errno
import importlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from geotag.errors import ConfigError, OutputError
from geotag.types import Tag
from geotag.writers import Outputs, geopackage
from geotag.writers.frames import tag_types
from geotag.writers.geopackage import GEOPACKAGE
from geotag.writers.geoparquet import GEOPARQUET
from geotag.writers.tracks import DriveTrack

TAG = Tag(id="1", path="a.mp4", location_source="gps", gps_lat=1.0, gps_lon=2.0, clips=3)
NOWHERE = Tag(id="2", path="b.mp4", error="not a letter: \udc80")
DRIVE = DriveTrack(drive_id="d", points=2, km=1.5, paths=("a", "b"), line=((1.0, 2.0), (3.0, 4.0)))
PARKED = DriveTrack(drive_id="p", points=2, km=0.0, line=((1.0, 2.0), (1.0, 2.0)))


def need_geo() -> None:
    for name in ("geopandas", "pyogrio", "pyarrow"):
        pytest.importorskip(name)


def test_the_type_of_a_column_is_that_of_its_field() -> None:
    types = tag_types()
    assert (types["path"], types["level"], types["gps_quality"]) == (str, str, str)
    assert (types["clips"], types["gps_points"], types["gps_lat"]) == (int, int, float)


@pytest.mark.parametrize("name", ["tags.parquet", "tags.gpkg"])
def test_a_missing_extra_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def missing(wanted: str) -> None:
        raise ModuleNotFoundError(f"No module named {wanted!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError) as caught:
        Outputs([str(tmp_path / "a.csv"), str(tmp_path / name)])
    assert "pip install '.[geo]' in geotag's source folder" in str(caught.value)
    assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_text_formats_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("geopandas", "pandas", "pyarrow", "shapely", "pyogrio"):
        monkeypatch.setitem(sys.modules, name, None)
    outputs = Outputs(
        [str(tmp_path / f"a{suffix}") for suffix in (".csv", ".geojson", ".geojsonl")]
    )
    outputs.add(TAG)
    outputs.close(keep=True)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("keep", [True, False])
def test_tables_appear_complete_or_not_at_all(tmp_path: Path, keep: bool) -> None:
    need_geo()
    paths = [tmp_path / "t.parquet", tmp_path / "t.gpkg"]
    for path in paths:
        path.write_text("old", encoding="utf-8")
    outputs = Outputs([str(path) for path in paths], with_tracks=True)
    outputs.add(TAG)
    assert all(path.read_text(encoding="utf-8") == "old" for path in paths)
    outputs.close(keep=keep, tracks=[DRIVE])
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert all((path.read_bytes() == b"old") is not keep for path in paths)


def test_a_geopackage_has_a_layer_of_tracks_where_they_are_wanted(tmp_path: Path) -> None:
    need_geo()
    import geopandas

    path = tmp_path / "t.gpkg"
    path.write_bytes(GEOPACKAGE.encode([TAG, NOWHERE], [DRIVE, PARKED]))
    assert list(geopandas.list_layers(path).name) == ["tags", "tracks"]
    assert list(geopandas.list_layers(path).geometry_type) == ["Point", "MultiLineString"]
    tracks = geopandas.read_file(path, layer="tracks")
    assert tracks.crs == "EPSG:4326"
    assert tracks.drop(columns="geometry").to_dict("records") == [
        {
            "drive_id": "d",
            "vendor": None,
            "start_utc": None,
            "end_utc": None,
            "start_local": None,
            "paths": "a; b",
            "points": 2,
            "km": 1.5,
        }
    ]
    assert tracks.geometry[0].wkt == "MULTILINESTRING ((2 1, 4 3))"
    path.write_bytes(GEOPACKAGE.encode([TAG], None))
    assert list(geopandas.list_layers(path).name) == ["tags"]
    path.write_bytes(GEOPACKAGE.encode([TAG], []))
    assert list(geopandas.list_layers(path).name) == ["tags", "tracks"]


def test_a_geopackage_does_not_tell_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    need_geo()
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2001-02-03T04:05:06.000Z"})
    try:
        first = GEOPACKAGE.encode([TAG], [DRIVE])
        assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") == "2001-02-03T04:05:06.000Z"
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    assert GEOPACKAGE.encode([TAG], [DRIVE]) == first
    assert geopackage.LAST_CHANGE.encode() in first


def test_geoparquet_is_of_version_1_1_with_boxes_to_skip_by() -> None:
    need_geo()
    import pyarrow.parquet as pq

    for tags, kinds in (([TAG, NOWHERE], ["Point"]), ([NOWHERE], []), ([], [])):
        schema = pq.read_schema(io.BytesIO(GEOPARQUET.encode(tags, None)))
        facts = json.loads(schema.metadata[b"geo"], parse_constant=pytest.fail)
        assert facts["version"] == "1.1.0"
        assert facts["columns"]["geometry"]["geometry_types"] == kinds
        assert facts["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]


def test_columns_have_the_same_types_whatever_they_hold() -> None:
    need_geo()
    import pyarrow.parquet as pq

    read = [
        pq.read_schema(io.BytesIO(GEOPARQUET.encode(tags, None)))
        for tags in ([], [NOWHERE], [TAG, NOWHERE])
    ]
    assert read[0].types == read[1].types == read[2].types
    assert "null" not in map(str, read[0].types)


def test_a_full_temporary_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_geo()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outputs = Outputs([str(tmp_path / "t.gpkg")])
    outputs.add(TAG)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(OutputError, match=r"No space left on device\. Free some space there"):
        outputs.close(keep=True)
    assert list(tmp_path.iterdir()) == []
