"""The outputs as the programs of others see them: geopandas (GDAL), pandas, ExifTool."""

import json
import shutil
import subprocess
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from geotag.types import Tag
from geotag.writers import FORMATS, Outputs
from geotag.writers.sidecars import write_sidecars
from geotag.writers.tracks import DriveTrack, write_tracks

TAGS = (
    Tag(
        id="blake2b:01",
        path='DCIM/a "b", c\n🚗.MP4',
        vendor="VIOFO",
        channel="front",
        drive_id="d1",
        start_utc="2024-05-01T10:00:00Z",
        start_local="2024-05-01T12:00:00",
        time_zone="Europe/Berlin",
        duration_s=60.06,
        location_source="gps",
        continent="Europe",
        continent_code="EU",
        country="Germany",
        country_code="DE",
        state="Bavaria",
        state_code="DE-BY",
        city="Munich",
        city_geonameid=2867714,
        level="city",
        gps_lat=48.137154,
        gps_lon=-11.576124,
        gps_points=61,
        gps_quality="good",
        clips=2,
    ),
    Tag(
        id="blake2b:02",
        path="DCIM/2.MP4",
        location_source="visual",
        continent="Africa",
        continent_code="AF",
        country="Namibia",
        # pandas takes NA for missing where it is left to guess.
        country_code="NA",
        level="country",
        confidence_country=0.75,
        visual_lat=-22.55941,
        visual_lon=17.08323,
        clips=3,
    ),
    Tag(
        id="blake2b:03",
        path="DCIM/3.MP4",
        location_source="drive",
        location_from="DCIM/2.MP4",
        country="Namibia",
        country_code="NA",
        level="country",
        drive_lat=-22.55941,
        drive_lon=17.08323,
    ),
    Tag(id="blake2b:04", path="DCIM/4.MP4", status="failed", error="empty: zero bytes"),
)
POINTS = [(-11.576124, 48.137154), (17.08323, -22.55941), (17.08323, -22.55941), None]
DRIVE = DriveTrack(
    drive_id="d1",
    start_utc="2024-05-01T10:00:00Z",
    paths=("DCIM/1.MP4",),
    points=61,
    km=26.5,
    line=((-16.8, 179.9), (-16.9, -179.9)),
)
SUFFIXES = [suffix for suffix in FORMATS if suffix != "-"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("geopandas", "pyogrio", "pyarrow"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("outputs")
    written = Outputs([str(folder / f"tags{suffix}") for suffix in SUFFIXES], with_tracks=True)
    for tag in TAGS:
        written.add(tag)
    written.close(keep=True, tracks=[DRIVE])
    write_tracks(folder / "tracks.geojson", [DRIVE])
    return folder


def opened(path: Path) -> Any:  # noqa: ANN401
    import geopandas

    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, **({"layer": "tags"} if path.suffix == ".gpkg" else {}))


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".csv"])
def test_every_map_format_opens_with_its_points_and_values(outputs: Path, suffix: str) -> None:
    frame = opened(outputs / f"tags{suffix}")
    assert frame.crs == "EPSG:4326"
    assert [point and (point.x, point.y) for point in frame.geometry] == POINTS
    assert set(frame.columns) == {*(field.name for field in fields(Tag)), "geometry"}
    table = frame.drop(columns="geometry").astype(object)
    for row, tag in zip(table.where(table.notna(), None).to_dict("records"), TAGS, strict=True):
        for name, value in asdict(tag).items():
            if name in ("start_utc", "start_local") and value is not None:
                assert as_written(row[name]) == value.removesuffix("Z")
            else:
                assert row[name] == value, name


def as_written(moment: Any) -> str:  # noqa: ANN401
    """A time as ISO text, whether it came as text or as the time that GDAL made of it."""
    text = moment if isinstance(moment, str) else moment.isoformat()
    return text.removesuffix("Z").removesuffix("+00:00")


def test_gdal_makes_points_of_the_first_two_columns_of_csv(outputs: Path) -> None:
    import geopandas

    frame = geopandas.read_file(
        outputs / "tags.csv", X_POSSIBLE_NAMES="longitude", Y_POSSIBLE_NAMES="latitude"
    )
    assert list(frame.columns[:2]) == ["latitude", "longitude"]
    assert [point and (point.x, point.y) for point in frame.geometry] == POINTS


def test_pandas_reads_csv_without_being_told_anything(outputs: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(outputs / "tags.csv", keep_default_na=False, na_values=[""])
    assert list(frame.path) == [tag.path for tag in TAGS]
    assert list(frame.country_code[:3]) == ["DE", "NA", "NA"]
    assert list(frame.clips) == [2, 3, 0, 0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_one_format_gives_another_takes(outputs: Path, suffix: str, tmp_path: Path) -> None:
    # Nested values and mixed shapes are what usually breaks here.
    frame = opened(outputs / f"tags{suffix}")
    if suffix == ".csv":
        frame = opened(outputs / "tags.geojson").merge(frame[["id"]], on="id")
    frame.to_parquet(tmp_path / "again.parquet")
    frame.to_file(tmp_path / "again.gpkg", driver="GPKG")
    assert len(opened(tmp_path / "again.parquet")) == len(TAGS)


def test_the_way_of_a_drive_opens_from_both_files(outputs: Path) -> None:
    import geopandas

    alone = geopandas.read_file(outputs / "tracks.geojson")
    layer = geopandas.read_file(outputs / "tags.gpkg", layer="tracks")
    for frame in (alone, layer):
        assert frame.crs == "EPSG:4326"
        assert frame.geometry[0].wkt == (
            "MULTILINESTRING ((179.9 -16.8, 180 -16.85), (-180 -16.85, -179.9 -16.9))"
        )
        assert (frame.km[0], frame.points[0], frame.paths[0]) == (26.5, 61, "DCIM/1.MP4")


def test_a_geopackage_is_a_sound_database(outputs: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(outputs / "tags.gpkg")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA application_id").fetchone() == (0x47504B47,)  # "GPKG"
        layers = database.execute(
            "SELECT table_name, data_type, srs_id, last_change FROM gpkg_contents ORDER BY 1"
        ).fetchall()
    assert layers == [
        ("tags", "features", 4326, "1970-01-01T00:00:00.000Z"),
        ("tracks", "features", 4326, "1970-01-01T00:00:00.000Z"),
    ]


needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="no ExifTool here")


def read_xmp(path: Path) -> dict[str, Any]:
    command = ["exiftool", "-json", "-n", "-struct", "-G1", "-validate", "-all", str(path)]
    result = subprocess.run(command, capture_output=True, check=True)
    return dict(json.loads(result.stdout)[0])


@needs_exiftool
def test_exiftool_reads_a_measured_place_out_of_xmp(tmp_path: Path) -> None:
    assert write_sidecars(TAGS[0], tmp_path / "1.MP4", None, tmp_path) == ()
    found = read_xmp(tmp_path / "1.MP4.xmp")
    assert found["ExifTool:Validate"] == "0 0 0"
    assert "ExifTool:Warning" not in found
    assert found["XMP-exif:GPSLatitude"] == pytest.approx(48.137154, abs=1e-7)
    assert found["XMP-exif:GPSLongitude"] == pytest.approx(-11.576124, abs=1e-7)
    assert found["XMP-photoshop:City"] == "Munich"
    assert found["XMP-photoshop:State"] == "Bavaria"
    assert found["XMP-photoshop:Country"] == "Germany"
    assert found["XMP-iptcCore:CountryCode"] == "DE"
    assert found["XMP-iptcExt:LocationCreated"] == [
        {
            "City": "Munich",
            "CountryCode": "DE",
            "CountryName": "Germany",
            "ProvinceState": "Bavaria",
            "WorldRegion": "Europe",
        }
    ]
    assert found["XMP-digiKam:TagsList"] == ["Places/Europe/Germany/Bavaria/Munich"]
    assert found["XMP-lr:HierarchicalSubject"] == ["Places|Europe|Germany|Bavaria|Munich"]


@needs_exiftool
def test_exiftool_finds_no_place_but_keywords_where_nothing_was_measured(tmp_path: Path) -> None:
    write_sidecars(TAGS[1], tmp_path / "2.MP4", None, tmp_path)
    found = read_xmp(tmp_path / "2.MP4.xmp")
    assert found["ExifTool:Validate"] == "0 0 0"
    assert {name.split(":")[0] for name in found if name.startswith("XMP-")} == {
        "XMP-x",
        "XMP-xmp",
        "XMP-digiKam",
        "XMP-lr",
    }
    assert found["XMP-lr:HierarchicalSubject"] == ["geotag|predicted|Africa|Namibia"]


@needs_exiftool
def test_an_xmp_that_another_program_has_changed_is_theirs(tmp_path: Path) -> None:
    video = tmp_path / "1.MP4"
    write_sidecars(TAGS[0], video, None, tmp_path, ["xmp"])
    edit = ["exiftool", "-overwrite_original", "-XMP-xmp:Rating=5", f"{video}.xmp"]
    subprocess.run(edit, check=True, capture_output=True)
    edited = Path(f"{video}.xmp").read_bytes()
    (problem,) = write_sidecars(TAGS[0], video, None, tmp_path, ["xmp"])
    assert "was not written by geotag" in problem
    assert Path(f"{video}.xmp").read_bytes() == edited
