import errno
import json
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from geotag.errors import OutputError
from geotag.types import Tag
from geotag.writers import files
from geotag.writers.sidecars import check_sidecars, sidecar_folder, write_sidecars
from geotag.writers.xmp import gps_text, xmp_bytes

MEASURED = Tag(
    id="1",
    path="DCIM/clip.MP4",
    location_source="gps",
    gps_lat=48.137154,
    gps_lon=-11.576124,
    continent="Europe",
    country="Germany",
    country_code="DE",
    state="Bavaria",
    city="Munich",
    level="city",
)
PREDICTED = replace(
    MEASURED,
    location_source="visual",
    gps_lat=None,
    gps_lon=None,
    visual_lat=48.0,
    visual_lon=11.0,
    state=None,
    city=None,
    level="country",
)
NOWHERE = Tag(id="1", path="DCIM/clip.MP4", status="failed", error="empty")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    (tmp_path / "card" / "DCIM").mkdir(parents=True)
    (tmp_path / "card" / "DCIM" / "clip.MP4").touch()
    return tmp_path / "card"


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_sidecars_lie_beside_the_video_and_keep_its_whole_name(card: Path) -> None:
    assert write_sidecars(MEASURED, card / "DCIM" / "clip.MP4", None, card) == ()
    assert names_below(card) == ["DCIM/clip.MP4", "DCIM/clip.MP4.geotag.json", "DCIM/clip.MP4.xmp"]
    record = json.loads((card / "DCIM" / "clip.MP4.geotag.json").read_text(encoding="utf-8"))
    assert list(record)[:3] == ["geotag_schema", "id", "path"]
    assert record["city"] == "Munich"


def test_sidecars_elsewhere_lie_in_a_tree_of_the_same_shape(card: Path, tmp_path: Path) -> None:
    assert (
        write_sidecars(MEASURED, card / "DCIM" / "clip.MP4", tmp_path / "out", card, ["xmp"]) == ()
    )
    assert names_below(tmp_path / "out") == ["DCIM/clip.MP4.xmp"]
    assert names_below(card) == ["DCIM/clip.MP4"]


def test_a_single_video_has_its_sidecars_in_the_folder_itself(tmp_path: Path) -> None:
    video = tmp_path / "clip.MP4"
    assert sidecar_folder(video, tmp_path / "out", video) == tmp_path / "out"


@pytest.mark.parametrize("path", ["../../etc/clip.MP4", "DCIM/../../clip.MP4", "/etc/clip.MP4"])
def test_no_path_leads_out_of_the_folder_of_sidecars(card: Path, tmp_path: Path, path: str) -> None:
    assert sidecar_folder(card / path, tmp_path / "out", card) == tmp_path / "out"


def test_no_link_leads_out_of_the_folder_of_sidecars(card: Path, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "DCIM").symlink_to(tmp_path / "away")
    (problem,) = write_sidecars(MEASURED, card / "DCIM" / "clip.MP4", tmp_path / "out", card)
    assert "a link leads from" in problem
    assert names_below(tmp_path / "away") == []


def test_a_second_scan_writes_nothing_anew(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = card / "DCIM" / "clip.MP4"
    write_sidecars(MEASURED, video, None, card)
    monkeypatch.setattr(files.os, "replace", refuse)
    assert write_sidecars(MEASURED, video, None, card) == ()


def test_our_own_sidecars_are_brought_up_to_date(card: Path) -> None:
    video = card / "DCIM" / "clip.MP4"
    write_sidecars(MEASURED, video, None, card)
    assert write_sidecars(PREDICTED, video, None, card) == ()
    assert (card / "DCIM" / "clip.MP4.xmp").read_bytes() == xmp_bytes(PREDICTED)
    assert write_sidecars(NOWHERE, video, None, card) == ()
    assert names_below(card) == ["DCIM/clip.MP4", "DCIM/clip.MP4.geotag.json"]


@pytest.mark.parametrize("tag", [MEASURED, NOWHERE])
@pytest.mark.parametrize(
    "theirs",
    [
        b"",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>",
        xmp_bytes(MEASURED).replace(b'xmptk="geotag"', b'xmptk="XMP Core 4.4.0-Exiv2"'),
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b"{}",
    ],
)
def test_sidecars_of_others_stay_as_they_are(card: Path, theirs: bytes, tag: Tag) -> None:
    for suffix in (".xmp", ".geotag.json"):
        (card / "DCIM" / f"clip.MP4{suffix}").write_bytes(theirs)
    problems = write_sidecars(tag, card / "DCIM" / "clip.MP4", None, card)
    assert len(problems) == 2
    assert all("was not written by geotag, so it stays as it is" in text for text in problems)
    assert (card / "DCIM" / "clip.MP4.xmp").read_bytes() == theirs
    assert (card / "DCIM" / "clip.MP4.geotag.json").read_bytes() == theirs


def test_a_link_in_place_of_a_sidecar_is_not_followed(card: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(xmp_bytes(PREDICTED))
    (card / "DCIM" / "clip.MP4.xmp").symlink_to(precious)
    (card / "DCIM" / "clip.MP4.geotag.json").symlink_to(tmp_path / "nothing")
    assert len(write_sidecars(MEASURED, card / "DCIM" / "clip.MP4", None, card)) == 2
    assert precious.read_bytes() == xmp_bytes(PREDICTED)
    assert not (tmp_path / "nothing").exists()


def test_a_name_too_long_for_a_sidecar_is_told_and_stops_nothing(card: Path) -> None:
    video = card / "DCIM" / ("n" * 246 + ".MP4")
    (problem,) = write_sidecars(MEASURED, video, None, card)
    assert "geotag.json, the name is too long" in problem
    assert (card / "DCIM" / (video.name + ".xmp")).is_file()


def test_a_card_that_is_read_only_is_told_beforehand(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError) as caught:
        check_sidecars([card / "DCIM" / "clip.MP4"], None, card)
    assert str(caught.value) == (
        f"writing sidecars into {card / 'DCIM'}: it is read-only. Please give a folder that can be "
        "written with --sidecars-dir."
    )


def test_checking_leaves_no_trace_but_the_folder(card: Path, tmp_path: Path) -> None:
    check_sidecars([card / "DCIM" / "clip.MP4"], None, card)
    check_sidecars([card / "DCIM" / "clip.MP4"], tmp_path / "new" / "out", card)
    assert names_below(tmp_path) == ["card/DCIM/clip.MP4"]
    assert (tmp_path / "new" / "out").is_dir()


def test_a_file_in_place_of_the_folder_is_told(card: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match=r"Choose another --sidecars-dir\."):
        check_sidecars([card / "DCIM" / "clip.MP4"], tmp_path / "out", card)


def test_a_disk_that_fills_keeps_the_old_sidecar(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = card / "DCIM" / "clip.MP4"
    write_sidecars(MEASURED, video, None, card)
    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(
        OutputError, match=r"that was there is untouched\. .* another --sidecars-dir"
    ):
        write_sidecars(PREDICTED, video, None, card)
    assert (card / "DCIM" / "clip.MP4.xmp").read_bytes() == xmp_bytes(MEASURED)


def fields_of(tag: Tag) -> dict[str, str]:
    root = ET.fromstring(xmp_bytes(tag))
    return {
        element.tag.split("}")[1]: element.text.strip()
        for element in root.iter()
        if element.text and element.text.strip()
    }


def test_measured_places_are_places_and_predicted_ones_are_keywords() -> None:
    measured = fields_of(MEASURED)
    assert measured["GPSLatitude"] == "48,08.229240N"
    assert measured["GPSLongitude"] == "11,34.567440W"
    assert (measured["City"], measured["CountryCode"]) == ("Munich", "DE")
    assert measured["li"] == "Places|Europe|Germany|Bavaria|Munich"
    predicted = fields_of(PREDICTED)
    assert set(predicted) == {"CreatorTool", "li"}
    assert predicted["li"] == "geotag|predicted|Europe|Germany"
    assert fields_of(replace(PREDICTED, location_source="drive", drive_lat=1.0)) == predicted


def test_a_measured_point_is_kept_where_its_place_has_no_name() -> None:
    at_sea = Tag(id="1", path="a", location_source="gps", gps_lat=0.0, gps_lon=0.0)
    assert fields_of(at_sea)["GPSLatitude"] == "0,00.000000N"
    assert not {"City", "li"} & set(fields_of(at_sea))
    assert b"LocationCreated" not in xmp_bytes(at_sea)


@pytest.mark.parametrize(
    ("angle_deg", "letters", "text"),
    [
        (0.0, "NS", "0,00.000000N"),
        (-0.9999999999, "EW", "1,00.000000W"),
        (179.9999999999, "EW", "180,00.000000E"),
        (-33.5, "NS", "33,30.000000S"),
        (10.000001, "NS", "10,00.000060N"),
    ],
)
def test_angles_are_degrees_and_minutes(angle_deg: float, letters: str, text: str) -> None:
    assert gps_text(angle_deg, letters) == text


def test_names_cannot_break_out_of_the_xml() -> None:
    nasty = replace(MEASURED, city="</rdf:li>\x00\x1f&\ud800|/", state="<b>")
    found = fields_of(nasty)
    assert found["City"] == "</rdf:li>\ufffd\ufffd&\ufffd|/"
    assert found["li"] == "Places|Europe|Germany|<b>|<-rdf:li>\ufffd\ufffd&\ufffd--"
