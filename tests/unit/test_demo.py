import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engines.base import BundleError
from engines.bundle import Bundle
from geotag import bundles, demo
from geotag.console import Console
from geotag.demo import DemoVideo, plan_videos, run_demo
from geotag.errors import OutputError
from geotag.ledger import LEDGER_FILE
from tests.fakes import COLOURS, open_fake_engine, write_colour_video
from tests.rfc7946 import check_collection

NOWHERE: dict[str, Any] = {"city": "", "lat_deg": 0.0, "lon_deg": 0.0, "has_gps": False}


def render_paris(video: DemoVideo, path: Path) -> None:
    write_colour_video(path, COLOURS["Paris"])


def run(folder: Path, count: int, bundle: Bundle) -> int:
    return run_demo(
        folder,
        count,
        console=Console(),
        open_engine=open_fake_engine,
        bundle=str(bundle.path),
        render=render_paris,
    )


@pytest.fixture(autouse=True)
def _known_cities(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second video is Paris, which is the only place that the footage here shows."""
    real = plan_videos

    def plan(count: int) -> tuple[DemoVideo, ...]:
        from dataclasses import replace

        return tuple(
            replace(video, city="Paris" if number == 1 else "Oslo")
            for number, video in enumerate(real(count))
        )

    monkeypatch.setattr(demo, "plan_videos", plan)


def test_the_demo_scans_what_it_rendered_and_counts_what_is_right(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "demo", 3, bundle) == 0
    text = capsys.readouterr().out
    assert "1 of 3 cities right, 2 wrong, 0 left open.\nThis is a rendered world" in text
    assert "Normal/NO20260315-081800-000002F.MP4" in text
    assert "San Francisco (gps)" in text  # the track beside the first one says where it is
    assert "Paris (visual)" in text
    features = check_collection((tmp_path / "demo" / "tags.geojson").read_text("utf-8"))
    assert len(features) == 3
    assert {path.name for path in (tmp_path / "demo").iterdir()} - {LEDGER_FILE} == {
        "dashcam",
        "run.json",
        "tags.csv",
        "tags.geojson",
        "tracks.geojson",
        "truth.csv",
    }
    with (tmp_path / "demo" / "truth.csv").open(encoding="utf-8", newline="") as stream:
        truth = list(csv.DictReader(stream))
    assert [row["city"] for row in truth] == ["Oslo", "Paris", "Oslo"]


def test_a_second_demo_into_the_same_folder_works(tmp_path: Path, bundle: Bundle) -> None:
    assert run(tmp_path, 3, bundle) == 0
    assert run(tmp_path, 2, bundle) == 0
    assert len(check_collection((tmp_path / "tags.geojson").read_text("utf-8"))) == 2


def test_names_tell_no_place() -> None:
    videos = plan_videos(12)
    assert len({video.name for video in videos}) == 12
    assert {video.name.split("/")[0] for video in videos} == {"Normal", "Event"}
    for video in videos:
        assert video.city.lower() not in video.name.lower()
        assert 12 <= video.duration_s <= 25


def test_without_a_bundle_nothing_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "demo_folder", lambda: tmp_path / "no-demo")
    with pytest.raises(BundleError, match="this copy of geotag holds none"):
        run_demo(tmp_path / "d", 1, console=Console(), open_engine=open_fake_engine)
    assert not (tmp_path / "d").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "demo").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="making the demo folder"):
        run(tmp_path / "demo", 1, bundle)


def test_a_disk_that_fills_while_rendering_is_told(tmp_path: Path, bundle: Bundle) -> None:
    def full_disk(video: DemoVideo, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"writing the demo footage .* No space left"):
        run_demo(
            tmp_path,
            1,
            console=Console(),
            open_engine=open_fake_engine,
            bundle=str(bundle.path),
            render=full_disk,
        )


def test_a_real_video_is_rendered_whole_or_not_at_all(tmp_path: Path) -> None:
    video = DemoVideo(name="a.MP4", index=0, **NOWHERE, duration_s=0.5)
    demo._render(video, tmp_path / "a.MP4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.MP4"]


def test_videos_are_rendered_in_other_processes(tmp_path: Path) -> None:
    plan = [
        DemoVideo(name=f"{number}.MP4", index=number, **NOWHERE, duration_s=0.25)
        for number in range(2)
    ]
    demo._render_all(plan, tmp_path, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.MP4", "1.MP4"]


def test_the_time_is_that_since_the_scan_began(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 0.0

    def slow_open_engine(*arguments: object, **options: object) -> object:
        nonlocal now_s
        now_s += 1000.0  # compiling is not the first video's time
        return open_fake_engine(*arguments, **options)

    def clock() -> float:
        nonlocal now_s
        now_s += 0.25
        return now_s

    run_demo(
        tmp_path,
        3,
        console=Console("quiet", clock=clock),
        open_engine=slow_open_engine,  # type: ignore[arg-type]
        bundle=str(bundle.path),
        render=render_paris,
    )
    head, _, *rows = capsys.readouterr().out.splitlines()[:5]
    assert head.rstrip().endswith("done after")
    times_s = [float(row.removesuffix(" s").split()[-1]) for row in map(str.rstrip, rows)]
    assert times_s == sorted(times_s)
    assert times_s[0] > 0
    assert times_s[-1] < 10


def be_killed(video: DemoVideo, path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_renderer_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_render", be_killed)
    plan = [DemoVideo(name="a.MP4", index=0, **NOWHERE, duration_s=0.25)]
    with pytest.raises(
        OutputError, match=r"was killed, most likely because memory ran out\. Close"
    ):
        demo._render_all(plan, tmp_path, None)
