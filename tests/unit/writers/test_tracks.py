import json
from pathlib import Path

import pytest

from geotag.errors import OutputError
from geotag.writers.tracks import DriveTrack, tracks_geojson, write_tracks
from tests.rfc7946 import check_collection, check_line


def drive(*line: tuple[float, float], drive_id: str = "d") -> DriveTrack:
    return DriveTrack(
        drive_id=drive_id,
        vendor="VIOFO",
        start_utc="2024-05-01T10:00:00Z",
        end_utc="2024-05-01T11:00:00Z",
        start_local="2024-05-01T12:00:00",
        paths=("a/1.mp4", "a/2.mp4"),
        points=len(line),
        km=12.345,
        line=line,
    )


def test_a_drive_is_one_line_with_flat_properties(tmp_path: Path) -> None:
    write_tracks(tmp_path / "tracks.geojson", [drive((48.12345678, 11.5), (48.2, 11.6))])
    text = (tmp_path / "tracks.geojson").read_text(encoding="utf-8")
    (feature,) = check_collection(text, check_line)
    assert feature["geometry"] == {
        "type": "LineString",
        "coordinates": [[11.5, 48.123457], [11.6, 48.2]],
    }
    assert feature["bbox"] == [11.5, 48.123457, 11.6, 48.2]
    assert feature["properties"] == {
        "drive_id": "d",
        "vendor": "VIOFO",
        "start_utc": "2024-05-01T10:00:00Z",
        "end_utc": "2024-05-01T11:00:00Z",
        "start_local": "2024-05-01T12:00:00",
        "paths": "a/1.mp4; a/2.mp4",
        "points": 2,
        "km": 12.345,
    }


def test_a_drive_across_the_antimeridian_is_cut_there_and_its_box_spans_it() -> None:
    # Taveuni, Fiji: the road crosses 180 degrees.
    text = tracks_geojson([drive((-16.8, 179.9), (-16.9, -179.9), (-16.95, 179.95))])
    (feature,) = check_collection(text, check_line)
    assert feature["geometry"]["type"] == "MultiLineString"
    assert feature["geometry"]["coordinates"] == [
        [[179.9, -16.8], [180.0, -16.85]],
        [[-180.0, -16.85], [-179.9, -16.9], [-180.0, -16.933333]],
        [[180.0, -16.933333], [179.95, -16.95]],
    ]
    assert feature["bbox"] == [179.9, -16.95, -179.9, -16.8]


def test_a_drive_that_only_touches_the_antimeridian_stays_whole() -> None:
    (feature,) = check_collection(
        tracks_geojson([drive((1, 179.9), (1, 180), (2, 180))]), check_line
    )
    assert feature["geometry"]["type"] == "LineString"
    assert feature["bbox"] == [179.9, 1, 180, 2]


def test_a_drive_at_one_point_has_no_line() -> None:
    still = drive((1.0, 2.0), (1.00000001, 2.0))
    assert check_collection(tracks_geojson([drive((1.0, 2.0)), still, drive()]), check_line) == []


def test_standstills_are_one_point_of_the_line() -> None:
    text = tracks_geojson([drive((1.0, 2.0), (1.0, 2.0), (-0.0000001, -0.0000001))])
    assert json.loads(text)["features"][0]["geometry"]["coordinates"] == [[2.0, 1.0], [0.0, 0.0]]
    assert "-0.0" not in text


def test_a_file_of_tracks_that_cannot_be_written_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another --tracks"):
        write_tracks(tmp_path / "nope" / "tracks.geojson", [])
