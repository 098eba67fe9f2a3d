import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from engines.bundle import Bundle
from geotag.cli import main
from geotag.ledger import LEDGER_FILE
from geotag.writers import files
from tests.fakes import COLOURS, FakeEngine, open_fake_engine, write_colour_video
from tests.rfc7946 import check_collection, check_feature, parse

BERLIN = COLOURS["Berlin"]
BERLIN_GPX = (
    '<gpx version="1.1" creator="test" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
    + "".join(
        f'<trkpt lat="{52.5200 + second * 1e-4:.4f}" lon="13.4050"><ele>34</ele>'
        f"<time>2026-03-14T07:15:{second:02}Z</time></trkpt>"
        for second in range(8)
    )
    + "</trkseg></trk></gpx>"
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory card: two videos of one name, and a file that is none."""
    folder = tmp_path_factory.mktemp("card")
    write_colour_video(folder / "Normal" / "a.mp4")
    write_colour_video(folder / "Event" / "a.mp4", BERLIN)
    (folder / "notes.mp4").write_text("not a video", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def good_card(card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(card / "Normal", folder / "Normal")
    shutil.copytree(card / "Event", folder / "Event")
    return folder


def everything_here() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def names_here() -> list[str]:
    """All but what the scan remembers for the next one."""
    return [name for name in everything_here() if name != LEDGER_FILE]


def scan(*arguments: object) -> int:
    return main(["scan", *map(str, arguments)], open_engine=open_fake_engine)


def test_a_folder_becomes_tags_and_run_facts(good_card: Path, bundle: Bundle) -> None:
    assert scan(good_card, "-b", bundle.path) == 0
    event, normal = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    assert (event["properties"]["path"], event["properties"]["city"]) == ("Event/a.mp4", "Berlin")
    assert (normal["properties"]["path"], normal["properties"]["city"]) == ("Normal/a.mp4", "Paris")
    facts = json.loads(Path("run.json").read_text(encoding="utf-8"))
    assert facts["command"][:2] == ["geotag", "scan"]
    assert facts["outcome"] == "finished"
    assert facts["counts"]["videos"] == facts["counts"]["tagged"] == 2
    assert facts["bundle"] == bundle.label
    assert facts["config"]["clips"] is None
    assert names_here() == ["run.json", "tags.geojson"]


def test_some_failed_is_exit_3_and_each_is_listed(
    card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(card, "-b", bundle.path, "-o", "a.csv", "-o", "a.geojson") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "failed: notes.mp4: not_video: " in captured.err
    assert "videos   3 = 2 tagged + 0 tagged in part + 1 failed" in captured.err
    assert "wrote    a.csv, a.geojson" in captured.err
    assert len(check_collection(Path("a.geojson").read_text(encoding="utf-8"))) == 3
    assert len(Path("a.csv").read_text(encoding="utf-8").splitlines()) == 4


def test_a_dash_is_lines_on_standard_output_and_nothing_else(
    card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(card, "-b", bundle.path, "-o", "-") == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        check_feature(parse(line))
    assert everything_here() == []


def test_a_single_video_is_scanned(good_card: Path, bundle: Bundle) -> None:
    assert scan(good_card / "Event" / "a.mp4", "-b", bundle.path) == 0
    (feature,) = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    assert feature["properties"]["path"] == "a.mp4"


def test_the_second_run_gives_the_same_bytes(card: Path, bundle: Bundle) -> None:
    for name in ("a", "b"):
        scan(card, "-b", bundle.path, "-o", f"{name}.geojson", "-o", f"{name}.csv")
    assert Path("a.geojson").read_bytes() == Path("b.geojson").read_bytes()
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    for text in (Path("a.geojson").read_text("utf-8"), Path("a.csv").read_text("utf-8")):
        assert str(card) not in text


def test_a_rendered_bundle_warns_even_when_quiet(
    good_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.fakes import make_bundle

    rendered = make_bundle(tmp_path / "rendered", domain="rendered")
    assert scan(good_card, "-b", rendered.path, "-q") == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: the bundle fake@")
    assert "its answers for real footage mean nothing" in error
    assert error.count("\n") == 1
    assert scan(good_card, "-b", rendered.path) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("beware   fake@")


def test_a_real_bundle_needs_no_warning(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(good_card, "-b", bundle.path) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "wrote    tags.geojson"


def test_the_summary_names_tracks_and_counts_sidecars(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["-b", bundle.path, "--tracks", "ways.geojson", "--sidecars-dir", "beside"]
    for _ in range(2):  # those that are there already count as well
        assert scan(good_card, *asked) == 0
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "wrote    tags.geojson, ways.geojson, 4 sidecars below beside"
    assert len(list(Path("beside").rglob("a.mp4.*"))) == 4
    Path("beside/Event/a.mp4.xmp").write_text("of somebody else", encoding="utf-8")
    assert scan(good_card, *asked) == 0
    assert "3 sidecars below beside" in capsys.readouterr().err


GPX = """<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
<trkpt lat="48.1" lon="11.5"><time>2021-03-06T10:36:00Z</time></trkpt>
<trkpt lat="48.2" lon="11.6"><time>2021-03-06T10:50:00Z</time></trkpt>
</trkseg></trk></gpx>"""


def test_a_track_that_fits_no_video_is_told(
    good_card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("drive.gpx", "a.gpx"):  # the second belongs to the videos of its name
        Path(name).write_text(GPX, encoding="utf-8")
    scan(good_card, "--gpx", "drive.gpx", "--gpx", "a.gpx", "-q")
    error = capsys.readouterr().err
    assert (
        "warning: --gpx drive.gpx: 2 positions, 2021-03-06 10:36 to 10:50 UTC, matched none of 2 "
        "videos (2 of them have no time)\n" in error
    )
    assert "a.gpx" not in error


def test_a_folder_that_cannot_be_listed_is_not_taken_for_a_video(
    good_card: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.scandir

    def refuse(path):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        if Path(path).name == "Event":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    scan(good_card)
    assert (
        "warning: 1 of the 2 counted as videos is a folder that cannot be listed; the videos in "
        "it are not in this result\n" in capsys.readouterr().err
    )


def test_without_a_model_quiet_needs_one_line(
    good_card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(good_card, "-q") == 3
    assert capsys.readouterr().err == (
        "warning: no model is installed or named with --bundle; files are tagged by the GPS they "
        "carry\n"
    )


def test_verbose_shows_the_log(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(good_card, "-b", bundle.path, "-v") == 0
    assert "DEBUG geotag.scan: Event/a.mp4: Clip(" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([""], 2, "scanning '': FOLDER is empty"),
        (["nope"], 2, "looking for videos in nope: No such file or directory"),
        ([".", "--clips", "no"], 2, "--clips: 'no' is not"),
        ([".", "--config", "nope.toml"], 2, "nope.toml: cannot be read"),
        (["."], 4, "no videos. Looked in it and in every folder below"),
    ],
)
def test_what_cannot_be_used_is_told(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(*arguments) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--out", "tags.txt"], 2, "--out tags.txt: the suffix '.txt' names no format"),
        (["--out", "no/tags.csv"], 5, "writing no/tags.csv: the folder no does not exist"),
        (["--bundle", "nope"], 6, "opening the bundle 'nope': there is no such folder here"),
        (["--gpx", "nope.gpx"], 2, "nope.gpx"),
        (["--gpx", ".."], 2, "reading positions from ..: it is a folder; give a file. Give a GPX"),
        (["--tracks", "ways.kml"], 2, "--tracks ways.kml: tracks are GeoJSON"),
        (["--sidecars", "pdf"], 2, "--sidecars: 'pdf' is not one or more of json, xmp"),
    ],
)
def test_what_cannot_work_is_told_before_the_scan(
    good_card: Path, arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(good_card, *arguments) == code
    assert text in capsys.readouterr().err
    assert everything_here() == []


def test_without_a_model_files_are_marked_and_nothing_is_guessed(
    good_card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(good_card) == 3
    error = capsys.readouterr().err
    assert "no model is installed, and none was named with --bundle" in error
    assert "2 = 0 tagged + 0 tagged in part + 0 failed + 2 without GPS or a model" in error
    for feature in check_collection(Path("tags.geojson").read_text(encoding="utf-8")):
        assert feature["geometry"] is None
        assert feature["properties"]["status"] == "no_model"
        assert feature["properties"]["error"].startswith("no_model: ")


def test_without_a_model_a_file_that_carries_gps_is_tagged(
    good_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = shutil.copytree(good_card, tmp_path / "gps")
    (card / "Event" / "a.gpx").write_text(BERLIN_GPX, encoding="utf-8")
    assert scan(card, "--tracks", "ways.geojson") == 3
    event, normal = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    tag = event["properties"]
    assert (tag["status"], tag["location_source"], tag["city"]) == ("ok", "gps", "Berlin")
    assert (tag["country_code"], tag["state_code"], tag["time_zone"]) == (
        "DE",
        "DE-BE",
        "Europe/Berlin",
    )
    assert (tag["confidence_city"], tag["visual_city"], tag["agreement"]) == (None, None, "none")
    assert tag["start_utc"] == "2026-03-14T07:15:00Z"
    assert event["geometry"]["coordinates"] == [tag["gps_lon"], tag["gps_lat"]]
    assert normal["properties"]["status"] == "no_model"
    (way,) = json.loads(Path("ways.geojson").read_text(encoding="utf-8"))["features"]
    assert way["geometry"]["type"] == "LineString"
    assert way["properties"]["drive_id"] == tag["drive_id"]


def test_pictures_are_held_against_gps(good_card: Path, tmp_path: Path, bundle: Bundle) -> None:
    card = shutil.copytree(good_card, tmp_path / "gps")
    for folder in ("Event", "Normal"):  # the pictures say Berlin here and Paris there
        (card / folder / "a.gpx").write_text(BERLIN_GPX, encoding="utf-8")
    assert scan(card, "-b", bundle.path) == 0
    event, normal = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    assert event["properties"]["agreement"] == "match"
    assert event["properties"]["agreement_km"] < 5
    tag = normal["properties"]
    assert (tag["city"], tag["visual_city"], tag["agreement"]) == ("Berlin", "Paris", "conflict")
    assert tag["agreement_km"] == pytest.approx(878, abs=5)


def test_a_second_scan_opens_nothing(
    card: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geotag.footage.isolation import DecodeProcess
    from geotag.telemetry.readers import SurveyReader

    assert scan(card, "-b", bundle.path) == 3
    first = Path("tags.geojson").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file that has not changed was read again")

    monkeypatch.setattr(DecodeProcess, "open_video", refuse)
    monkeypatch.setattr(SurveyReader, "survey", refuse)
    assert scan(card, "-b", bundle.path) == 3
    assert Path("tags.geojson").read_bytes() == first
    assert scan(card, "-b", bundle.path, "--fresh") == 3
    assert b"internal" in Path("tags.geojson").read_bytes()


def test_a_second_scan_knows_each_file_by_its_size_and_times(
    good_card: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geotag.footage import discover

    # These files were made just now; a real card's have long settled.
    monkeypatch.setattr("geotag.ledger._UNSETTLED_NS", 0)
    assert scan(good_card, "-b", bundle.path) == 0
    first = Path("tags.geojson").read_bytes()

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(discover, "content_id", refuse)
    assert scan(good_card, "-b", bundle.path) == 0
    assert Path("tags.geojson").read_bytes() == first


def test_two_scans_into_one_output_are_refused(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    from geotag.locks import OutputLock

    with OutputLock(["tags.geojson"]):
        assert scan(good_card, "-b", bundle.path) == 5
    assert "tags.geojson" in capsys.readouterr().err
    assert scan(good_card, "-b", bundle.path) == 0


def test_explain_says_how_each_file_is_understood_and_scans_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colour_video(tmp_path / "card/Event/Front/EV20260314-081500-000001F.MP4")
    assert scan(tmp_path / "card", "--explain") == 0
    text = capsys.readouterr().out
    assert "70mai" in text
    assert "front" in text
    assert "event" in text
    assert "2026-03-14 08:15:00" in text
    assert everything_here() == []


def test_sidecars_are_written_where_they_are_wanted(good_card: Path, bundle: Bundle) -> None:
    assert scan(good_card, "-b", bundle.path, "--sidecars-dir", "beside") == 0
    tag = json.loads(Path("beside/Event/a.mp4.geotag.json").read_text(encoding="utf-8"))
    assert tag["city"] == "Berlin"
    xmp = Path("beside/Event/a.mp4.xmp").read_text(encoding="utf-8")
    assert "GPSLatitude" not in xmp  # nothing was measured
    assert "Berlin" in xmp


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["48.8566,2.3522"], "Paris, Île-de-France, France"),
        (["-33.9", "18.4"], "Cape Town, Western Cape, South Africa"),
        (["-33.9,18.4"], "Cape Town, Western Cape, South Africa"),
    ],
)
def test_where_names_a_position(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["where", *arguments]) == 0
    assert capsys.readouterr().out.startswith(text)


def test_where_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where", "--json", "47.5596,7.5886"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["country_code"], found["city_geonameid"]) == ("CH", 2661604)


def test_where_refuses_what_is_no_position(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where", "91,0"]) == 2
    assert "latitude 91" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "was changed or damaged"),
        (lambda folder: (folder / "places.csv").unlink(), "places.csv is missing"),
        (
            lambda folder: (folder / "bundle.json").write_text('{"schema": 99}'),
            "its schema is 99, this version of geotag reads schema 1",
        ),
    ],
)
def test_a_harmed_bundle_is_refused(
    good_card: Path,
    bundle: Bundle,
    tmp_path: Path,
    harm,  # noqa: ANN001
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    harm(tmp_path / "b")
    assert scan(good_card, "-b", tmp_path / "b") == 6
    assert text in capsys.readouterr().err
    assert everything_here() == []


def test_the_settings_of_the_folder_are_used(good_card: Path, bundle: Bundle) -> None:
    Path("geotag.toml").write_text(
        f'[scan]\nbundle = "{bundle.path}"\nout = "x.csv"\nclips = 1\n', encoding="utf-8"
    )
    assert scan(good_card) == 0
    assert Path("x.csv").exists()
    assert json.loads(Path("run.json").read_text("utf-8"))["config"]["clips"] == 1


def test_a_full_disk_keeps_the_old_result(
    good_card: Path,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("tags.geojson").write_text("old", encoding="utf-8")
    monkeypatch.setattr(files.os, "replace", full_disk)
    assert scan(good_card, "-b", bundle.path) == 5
    assert (
        "No space left on device. The file that was there is untouched" in capsys.readouterr().err
    )
    assert names_here() == ["tags.geojson"]
    assert Path("tags.geojson").read_text(encoding="utf-8") == "old"


def test_an_engine_that_breaks_keeps_what_was_finished(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_engine(*_: object, **__: object) -> tuple[FakeEngine, object]:
        return FakeEngine(fail_after=2), open_fake_engine(bundle)[1]

    code = main(["scan", str(good_card), "-b", str(bundle.path)], open_engine=open_engine)
    assert code == 6
    error = capsys.readouterr().err
    assert "1 of 2 videos are done, written to tags.geojson." in error
    assert "error: running the fake: it broke." in error
    assert len(check_collection(Path("tags.geojson").read_text(encoding="utf-8"))) == 1
    assert json.loads(Path("run.json").read_text("utf-8"))["counts"]["not_reached"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_finished(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    class Interrupted(FakeEngine):
        def infer(self, clips_NTHWC):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            if self.calls == 2:
                signal.raise_signal(number)
            return super().infer(clips_NTHWC)

    def open_engine(*_: object, **__: object) -> tuple[FakeEngine, object]:
        return Interrupted(), open_fake_engine(bundle)[1]

    before = signal.getsignal(number)
    code = main(["scan", str(good_card), "-b", str(bundle.path)], open_engine=open_engine)
    assert code == 130
    error = capsys.readouterr().err
    assert error.endswith(
        "error: interrupted: 1 of 2 videos are done, written to tags.geojson. "
        "Run the same command again to go on.\n"
    )
    assert len(check_collection(Path("tags.geojson").read_text(encoding="utf-8"))) == 1
    assert signal.getsignal(number) is before


def test_an_interrupt_before_the_first_video_leaves_the_old_result(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_engine(*_: object, **__: object) -> tuple[FakeEngine, object]:
        raise KeyboardInterrupt

    Path("tags.geojson").write_text("old", encoding="utf-8")
    code = main(["scan", str(good_card), "-b", str(bundle.path)], open_engine=open_engine)
    assert code == 130
    assert capsys.readouterr().err == "error: interrupted before anything was written.\n"
    assert names_here() == ["tags.geojson"]


def test_fail_fast_ends_at_the_first_failure(
    card: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(card, tmp_path / "card")
    (tmp_path / "card" / "notes.mp4").rename(tmp_path / "card" / "Event" / "0.mp4")
    assert scan(tmp_path / "card", "-b", bundle.path, "--fail-fast") == 3
    assert "(--fail-fast): 1 of 3 videos are done" in capsys.readouterr().err
    (feature,) = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    assert feature["properties"]["status"] == "failed"


def test_a_bug_of_ours_is_shown_whole(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_engine(*_: object, **__: object) -> tuple[FakeEngine, object]:
        raise ZeroDivisionError("oops")

    code = main(["scan", str(good_card), "-b", str(bundle.path)], open_engine=open_engine)
    assert code == 1
    error = capsys.readouterr().err
    assert "a bug in geotag. Please report this text" in error
    assert "ZeroDivisionError: oops" in error


def test_the_flags_of_scan_are_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--help"]) == 0
    text = capsys.readouterr().out
    flags = {word.strip(",") for word in text.split() if word.startswith("--")}
    assert flags == {
        "--out",
        "--bundle",
        "--engine",
        "--precision",
        "--clips",
        "--sampling",
        "--gpx",
        "--tracks",
        "--sidecars",
        "--sidecars-dir",
        "--proxies",
        "--fresh",
        "--explain",
        "--config",
        "--fail-fast",
        "--verbose",
        "--quiet",
        "--help",
    }


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    for command in ("scan", "export", "demo", "doctor"):
        assert main([command, "--help"]) == 0
        assert "Usage: geotag " + command in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from geotag import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"geotag {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["scan"], "Missing argument"),
        (["scan", ".", "--nope"], "No such option"),
        (["nope"], "No such command"),
        (["scan", ".", "-v", "-q"], "--verbose and --quiet exclude each other."),
        (["export", "--out", "x"], "--checkpoint"),
    ],
)
def test_wrong_usage_is_exit_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_export_without_torch_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Block:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] in ("torch", "onnx", "onnxruntime"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "onnx", "train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Block(), *sys.meta_path])
    assert main(["export", "--checkpoint", "run", "--out", "bundle"]) == 2
    assert "pip install '.[cpu,models]' in geotag's source folder" in capsys.readouterr().err


FOREIGN = '{"schema": 1, "command": "train"}'


def test_a_run_file_of_somebody_else_stays_as_it_is(
    good_card: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.json").write_text(FOREIGN, encoding="utf-8")
    for _ in range(2):  # the second replaces the facts of the first
        assert scan(good_card, "-b", bundle.path) == 0
        error = capsys.readouterr().err
        assert "run.json in . is not geotag's and stays as it is; the facts of this run" in error
    assert Path("run.json").read_text(encoding="utf-8") == FOREIGN
    assert json.loads(Path("geotag-run.json").read_text("utf-8"))["outcome"] == "finished"
    assert names_here() == ["geotag-run.json", "run.json", "tags.geojson"]


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff")]
)
def test_two_run_files_of_somebody_else_are_a_warning(
    good_card: Path,
    bundle: Bundle,
    make,  # noqa: ANN001
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("run.json").write_text("[" * 100_000, encoding="utf-8")
    make(Path("geotag-run.json"))
    assert scan(good_card, "-b", bundle.path, "-q") == 0
    assert capsys.readouterr().err == (
        "warning: run.json and geotag-run.json in . are not geotag's and stay as they are; "
        "the facts of this run are not recorded.\n"
    )
    assert len(check_collection(Path("tags.geojson").read_text(encoding="utf-8"))) == 2


def test_our_own_run_file_is_replaced(good_card: Path, bundle: Bundle) -> None:
    for name in ("a.csv", "b.csv"):
        assert scan(good_card, "-b", bundle.path, "-o", name) == 0
    assert names_here() == ["a.csv", "b.csv", "run.json"]
    assert json.loads(Path("run.json").read_text("utf-8"))["config"]["out"] == ["b.csv"]


def test_run_facts_that_cannot_be_written_are_a_warning(
    good_card: Path,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full_disk(part: Path, target: Path) -> None:
        if target.name == "run.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(part, target)

    real = os.replace
    monkeypatch.setattr(files.os, "replace", full_disk)
    assert scan(good_card, "-b", bundle.path) == 0
    assert "warning: the tags are written, the facts of this run are not: writing run.json: No" in (
        capsys.readouterr().err
    )
    assert names_here() == ["tags.geojson"]


def test_many_interrupts_while_the_files_end_lose_nothing(
    good_card: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(descriptor: int) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(files.os, "fsync", slow)
    assert scan(good_card, "-b", bundle.path, "-o", "a.geojson", "-o", "b.csv") == 0
    assert len(check_collection(Path("a.geojson").read_text(encoding="utf-8"))) == 2
    assert len(Path("b.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert names_here() == ["a.geojson", "b.csv", "run.json"]
