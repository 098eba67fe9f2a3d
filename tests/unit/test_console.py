import logging
import sys
from collections.abc import Callable

import pytest

from geotag.console import (
    Console,
    Tally,
    describe_progress,
    describe_summary,
    describe_time,
    log_handler,
    printable,
)
from geotag.errors import OutputError
from geotag.types import Tag


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def be_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


def tags() -> list[Tag]:
    return [
        Tag(id="1", path="a.mp4", level="city", duration_s=60.0, clips=2),
        Tag(id="2", path="b.mp4", level="country", duration_s=60.0, clips=3),
        Tag(id="3", path="c.mp4", level="none", duration_s=60.0, clips=3),
        Tag(id="4", path="d.mp4", level="city", status="partial", error="damaged: x", clips=1),
        Tag(id="5", path="e\n[red].mp4", status="failed", error="empty: zero bytes"),
    ]


def tally(clock: Callable[[], float]) -> Tally:
    found = Tally(total=6, started_s=clock())
    for tag in tags():
        found.add(tag)
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straße 東京 🚗.mp4", "Straße 東京 🚗.mp4"),
        ("👩\u200d🚒", "👩\u200d🚒"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("[red]bold[/red]", "[red]bold[/red]"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udc80", r"\udc80"),
    ],
)
def test_names_are_shown_without_power_over_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_summary_has_six_lines_whose_numbers_add_up(clock: Clock) -> None:
    found = tally(clock)
    text = describe_summary(found, clock.now_s + 60, ran_with="fake; b@1", written="tags.geojson")
    assert text.splitlines() == [
        "videos   5 = 3 tagged + 1 tagged in part + 1 failed",
        "places   4 = 2 city + 1 country + 1 not sure enough",
        "located  4 not placed",
        "footage  3 min in 60 s, 3 h per hour; 9 clips",
        "ran      fake; b@1",
        "wrote    tags.geojson",
    ]


def test_the_counts_of_a_run_add_up(clock: Clock) -> None:
    assert tally(clock).counts() == {
        "videos": 6,
        "tagged": 3,
        "partial": 1,
        "failed": 1,
        "no_model": 0,
        "located_by_gps": 0,
        "located_by_pictures": 0,
        "located_by_drive": 0,
        "not_reached": 1,
        "clips": 9,
    }


def test_a_scan_without_places_has_a_summary_too(clock: Clock) -> None:
    text = describe_summary(Tally(total=0, started_s=clock()), clock(), ran_with="x", written="y")
    assert "places   0 = 0" in text


def test_progress_tells_failures_speed_and_what_is_left(clock: Clock) -> None:
    text = describe_progress(tally(clock), clock.now_s + 10)
    assert text == "5/6 videos, 1 failed, 18 h of footage per hour, 2.0 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.0 s"), (42.0, "42 s"), (240.0, "4 min"), (11520.0, "3.2 h")]
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert describe_time(seconds) == text


def test_a_terminal_gets_one_line_that_is_taken_away(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    be_terminal(monkeypatch)
    console = Console(clock=clock)
    found = tally(clock)
    console.progress(found)
    console.progress(found)  # too soon to draw again
    clock.now_s += 1
    console.progress(found)
    console.warn("look out")
    console.clear()
    text = capsys.readouterr().err
    assert text.count("5/6 videos") == 2
    assert text.endswith("\r\x1b[Kwarning: look out\n")
    assert text.count("\n") == 1


def test_without_a_terminal_a_line_a_minute(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(clock=clock)
    found = tally(clock)
    for _ in range(150):
        console.progress(found)
        clock.now_s += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "\x1b" not in "".join(lines)


def test_quiet_and_verbose_draw_no_line(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    be_terminal(monkeypatch)
    Console("quiet", clock=clock).progress(tally(clock))
    Console("verbose", clock=clock).progress(tally(clock))
    assert capsys.readouterr().err == ""


def test_every_problem_is_listed_with_its_reason(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    Console(clock=clock).problems(tally(clock))
    assert capsys.readouterr().err.splitlines() == [
        "partial: d.mp4: damaged: x",
        r"failed: e\n[red].mp4: empty: zero bytes",
    ]


def test_quiet_counts_problems_only(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("quiet", clock=clock)
    console.problems(tally(clock))
    console.problems(Tally(total=1, started_s=0.0))
    console.say("never mind")
    assert capsys.readouterr().err == "1 of 6 videos failed\n"


def test_a_table_shows_brackets_and_controls_as_text(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    Console(clock=clock).table(("file", "city"), [("[red]a\x1b.mp4", "Paris")])
    text = capsys.readouterr().out
    assert r"[red]a\x1b.mp4" in text
    assert "\x1b" not in text


def test_log_lines_are_escaped_and_tracebacks_keep_their_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = log_handler("verbose")
    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.LogRecord(
            "geotag.scan", logging.DEBUG, "x", 1, "a\nb", None, sys.exc_info()
        )
    handler.emit(record)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == r"DEBUG geotag.scan: a\nb"
    assert lines[-1] == "ValueError: inside"
    assert log_handler("quiet").level == logging.ERROR


class Closed:
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_result_that_nobody_reads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OutputError, match="writing to standard output: Broken pipe"):
        Console().result("text")


def test_a_person_who_has_left_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed())
    Console().warn("text")


def test_before_the_first_video_there_is_no_speed(clock: Clock) -> None:
    assert describe_progress(Tally(total=7, started_s=clock()), clock.now_s) == "0/7 videos"
