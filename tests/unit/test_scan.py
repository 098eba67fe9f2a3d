import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.base import EngineChoice, EngineError
from engines.bundle import Bundle, PolicyAccuracy
from geotag.config import ScanConfig
from geotag.errors import ConfigError
from geotag.footage.clips import wanted_times
from geotag.footage.discover import content_id
from geotag.ledger import Ledger
from geotag.memory import Memory
from geotag.model import Model
from geotag.places.gazetteer import read_gazetteer
from geotag.places.hierarchy import read_hierarchy
from geotag.sampling import choose_sampling, count_clips
from geotag.scan import READY_CLIPS, Scan, scan
from geotag.telemetry.track import Survey
from geotag.types import Discovery, Drive, Moment, Origin, Tag
from tests.fakes import COLOURS, FakeEngine, FakeFootage, FakeVideo, alone, broken, make_bundle

PARIS, BERLIN, SUVA = COLOURS["Paris"], COLOURS["Berlin"], COLOURS["Suva"]
GREY = (120, 120, 120)
MEASURED = Survey(
    source="GPX a.gpx", points=9, quality="good", median_deg=(52.52, 13.405), start_utc_s=1.7e9
)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if "geotag" in thread.name]


def run(
    footage: FakeFootage,
    bundle: Bundle,
    config: ScanConfig | None = None,
    engine: FakeEngine | None = None,
    *,
    discovery: Discovery | None = None,
    memory: Memory | None = None,
) -> Iterator[Tag]:
    config = config or ScanConfig()
    return scan(
        discovery or footage.discovery(),
        model=model_of(bundle, engine or FakeEngine(), config),
        gazetteer=read_gazetteer(),
        config=config,
        make_station=footage.make_station,
        memory=memory,
    )


def model_of(bundle: Bundle, engine: FakeEngine, config: ScanConfig) -> Model:
    hierarchy = read_hierarchy(bundle.file("places.csv"))
    return Model(bundle, hierarchy, engine, EngineChoice(name="fake-cpu", threads=1), config)


def test_tags_come_in_the_order_of_the_videos(bundle: Bundle) -> None:
    cities = [*COLOURS] * 5
    footage = FakeFootage(
        {f"{i}.mp4": FakeVideo(colours=[COLOURS[city]]) for i, city in enumerate(cities)}
    )
    tags = list(run(footage, bundle))
    assert [tag.city for tag in tags] == cities
    assert [tag.path for tag in tags] == [f"{i}.mp4" for i in range(len(cities))]


def test_no_videos_give_no_tags(bundle: Bundle) -> None:
    assert list(run(FakeFootage({}), bundle)) == []


def test_a_bad_video_is_a_failed_tag_and_stops_nothing(bundle: Bundle) -> None:
    footage = FakeFootage(
        {
            "a.mp4": FakeVideo(error=broken("not_video", "This is text.")),
            "b.mp4": FakeVideo(),
            "c.mp4": FakeVideo(colours=[broken()]),
        }
    )
    bad, good, worse = run(footage, bundle)
    assert (bad.status, bad.error, bad.clips) == ("failed", "not_video: This is text.", 0)
    assert good.status == "ok"
    assert (worse.status, worse.error) == ("failed", "decode_error: No frame decodes.")


def test_a_bad_clip_makes_a_partial_tag(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(colours=[broken(), PARIS])})
    (tag,) = run(footage, bundle)
    assert (tag.status, tag.city, tag.clips) == ("partial", "Paris", 2)
    assert tag.error == "decode_error: 1 of 3 clips unreadable: No frame decodes."


def test_a_bug_inside_one_video_stays_there(bundle: Bundle) -> None:
    footage = FakeFootage(
        {"a.mp4": FakeVideo(error=ZeroDivisionError("oops")), "b.mp4": FakeVideo()}
    )
    bad, good = run(footage, bundle)
    assert bad.error == (
        "internal: a bug in geotag (ZeroDivisionError: oops); --verbose shows where. "
        "Please report it."
    )
    assert good.status == "ok"


def test_fail_fast_raises_a_bug_and_ends_at_a_failure(bundle: Bundle) -> None:
    config = ScanConfig(fail_fast=True)
    bug = FakeFootage({"a.mp4": FakeVideo(error=ZeroDivisionError("oops"))})
    with pytest.raises(ZeroDivisionError):
        list(run(bug, bundle, config))
    failure = FakeFootage(
        {"a.mp4": FakeVideo(), "b.mp4": FakeVideo(error=broken()), "c.mp4": FakeVideo()}
    )
    assert [tag.status for tag in run(failure, bundle, config)] == ["ok", "failed"]


def test_an_engine_that_breaks_stops_the_scan(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo() for i in range(5)})
    tags = run(footage, bundle, engine=FakeEngine(fail_after=3))
    assert next(tags).status == "ok"
    with pytest.raises(EngineError, match="it broke"):
        list(tags)


def test_two_clips_that_agree_are_enough(bundle: Bundle) -> None:
    engine = FakeEngine()
    footage = FakeFootage({"a.mp4": FakeVideo(colours=[PARIS])})
    (tag,) = run(footage, bundle, engine=engine)
    assert (tag.clips, engine.calls) == (2, 2)


def test_clips_that_disagree_are_all_looked_at(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(colours=[PARIS, BERLIN, SUVA])})
    (tag,) = run(footage, bundle)
    assert tag.clips == 3


def test_a_number_of_clips_is_taken_at_its_word(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(duration_s=60.0)})
    (tag,) = run(footage, bundle, ScanConfig(clips=5))
    assert tag.clips == 5


def test_a_short_video_gets_the_clips_that_fit(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(duration_s=3.0), "b.mp4": FakeVideo(duration_s=None)})
    assert [tag.clips for tag in run(footage, bundle, ScanConfig(clips=5))] == [1, 1]


def test_a_single_frame_is_taken_from_the_moment_that_the_bundle_names(bundle: Bundle) -> None:
    one = replace(bundle.manifest.input, frames=1, moment=0.5)
    other = replace(bundle, manifest=replace(bundle.manifest, input=one))
    footage = FakeFootage({"a.mp4": FakeVideo(duration_s=30.0)})
    (video,) = footage.list()
    with footage.open_video(video, decode_threads=1) as reader:
        whole, rest = (
            model_of(each, FakeEngine(), ScanConfig(clips=3)).windows(video, reader.facts)
            for each in (bundle, other)
        )
    assert len(whole) == 3
    for window, later in zip(whole, rest, strict=True):
        (wanted_s,) = wanted_times(later, 1)
        assert wanted_s == pytest.approx((window.start_s + window.end_s) / 2)
        assert later.end_s == window.end_s


def test_a_long_video_may_get_more_clips() -> None:
    counts = [count_clips(duration_s, None, 3) for duration_s in (None, 1.0, 300.0, 301.0, 1500.0)]
    assert counts == [3, 3, 3, 4, 7]
    assert count_clips(9000.0, 2, 3) == 2


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_answer_does_not_depend_on_timing(bundle: Bundle, workers: int) -> None:
    mixed = [GREY, PARIS, broken(), BERLIN]
    videos = {f"{i:02}.mp4": FakeVideo(colours=[*mixed[i % 4 :], SUVA]) for i in range(12)}
    config = ScanConfig(decode_workers=workers)
    expected = list(run(FakeFootage(videos), bundle, ScanConfig(decode_workers=1)))

    class SlowEngine(FakeEngine):
        def infer(self, clips_NTHWC):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            time.sleep(0.002 * (self.calls % 3))
            return super().infer(clips_NTHWC)

    assert list(run(FakeFootage(videos), bundle, config, SlowEngine())) == expected


def test_what_waits_is_bounded_however_many_the_videos_are(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo(duration_s=3600.0) for i in range(50)})
    workers = 3
    tags = run(footage, bundle, ScanConfig(decode_workers=workers, clips=40))
    next(tags)
    wait_until_quiet(footage)
    ahead = footage.decoded - 40
    assert ahead <= workers * READY_CLIPS
    assert footage.most_open <= workers
    tags.close()  # type: ignore[attr-defined]


def test_short_videos_wait_in_bounds_too(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo(duration_s=1.0) for i in range(50)})
    tags = run(footage, bundle, ScanConfig(decode_workers=2))
    next(tags)
    wait_until_quiet(footage)
    assert footage.decoded <= 4
    assert len(list(tags)) == 49


def test_a_consumer_that_stops_leaves_no_thread(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo() for i in range(50)})
    tags = run(footage, bundle)
    next(tags)
    tags.close()  # type: ignore[attr-defined]
    assert footage.open_now == 0
    assert footage.decoded < 20


def test_an_interrupt_while_waiting_leaves_no_thread(bundle: Bundle) -> None:
    class Interrupted(FakeEngine):
        def infer(self, clips_NTHWC):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            raise KeyboardInterrupt

    footage = FakeFootage({f"{i}.mp4": FakeVideo() for i in range(9)})
    with pytest.raises(KeyboardInterrupt):
        list(run(footage, bundle, engine=Interrupted()))
    assert footage.open_now == 0


def test_the_next_clip_and_the_next_video_decode_while_the_engine_runs(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo() for i in range(4)})
    seen: list[int] = []

    class Watching(FakeEngine):
        def infer(self, clips_NTHWC):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            if not self.calls:
                wait_until_quiet(footage)
                seen.append(footage.decoded)
            return super().infer(clips_NTHWC)

    list(run(footage, bundle, ScanConfig(decode_workers=2), Watching()))
    assert seen == [2 * READY_CLIPS]


def test_a_video_that_is_likely_settled_does_not_decode_in_vain(bundle: Bundle) -> None:
    footage = FakeFootage({f"{i}.mp4": FakeVideo(duration_s=200.0) for i in range(8)})
    tags = list(run(footage, bundle))
    assert footage.decoded == sum(tag.clips for tag in tags) == 16


def test_damage_and_fallbacks_reach_the_tag(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(damaged=True, fallback="key frames 9 s apart")})
    (tag,) = run(footage, bundle)
    assert tag.status == "partial"
    assert tag.sampling == "keyframe 4 s; 2 of 2 clips keyframe: key frames 9 s apart"


def test_of_the_channels_of_a_moment_the_front_is_looked_at(bundle: Bundle) -> None:
    footage = FakeFootage({"F.mp4": FakeVideo(), "R.mp4": FakeVideo(colours=[BERLIN])})
    front, rear = run(footage, bundle, discovery=one_moment(footage))
    assert (front.city, rear.city) == ("Paris", "Paris")
    assert (front.location_from, rear.location_from) == (None, "F.mp4")
    assert footage.decoded == front.clips == 2
    assert footage.opened == 2  # the rear file was opened all the same: it might be broken


def test_a_broken_front_file_lets_the_rear_one_speak(bundle: Bundle) -> None:
    footage = FakeFootage({"F.mp4": FakeVideo(error=broken()), "R.mp4": FakeVideo()})
    front, rear = run(footage, bundle, discovery=one_moment(footage))
    assert (front.status, rear.status, rear.city) == ("failed", "ok", "Paris")


def test_a_camera_that_looks_inside_is_not_asked(bundle: Bundle) -> None:
    footage = FakeFootage({"I.mp4": FakeVideo()})
    (tag,) = run(footage, bundle, discovery=one_moment(footage, channel="interior"))
    assert (tag.status, tag.location_source, footage.decoded) == ("ok", "none", 0)


def test_a_parked_car_is_looked_at_once(bundle: Bundle) -> None:
    footage = FakeFootage({"P.mp4": FakeVideo()})
    (tag,) = run(footage, bundle, discovery=one_moment(footage, mode="parking"))
    assert tag.clips == 1


def test_a_model_that_needs_one_clip_still_gets_more_of_a_long_video(tmp_path: Path) -> None:
    one = make_bundle(tmp_path / "one", clips=1)
    footage = FakeFootage({"a.mp4": FakeVideo(colours=[PARIS, BERLIN, SUVA], duration_s=901.0)})
    (tag,) = run(footage, one)
    assert tag.clips == 4


def test_with_gps_the_pictures_may_be_left_alone(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(survey=MEASURED), "b.mp4": FakeVideo()})
    measured, seen = run(footage, bundle, ScanConfig(pictures="without_gps"))
    assert (measured.location_source, measured.city, measured.clips) == ("gps", "Berlin", 0)
    assert (seen.location_source, seen.city) == ("visual", "Paris")


def test_tags_keep_the_order_of_the_paths_whatever_the_drives_are(bundle: Bundle) -> None:
    footage = FakeFootage({f"{name}.mp4": FakeVideo() for name in "abcd"})
    a, b, c, d = footage.list()
    drives = tuple(
        Drive(drive_id=name, moments=tuple(Moment(videos=(video,)) for video in videos))
        for name, videos in (("one", (a, d)), ("two", (b, c)))
    )
    discovery = Discovery(videos=(a, b, c, d), drives=drives)
    tags = list(run(footage, bundle, discovery=discovery))
    assert [tag.path for tag in tags] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert [tag.drive_id for tag in tags] == ["one", "two", "two", "one"]


def test_after_a_stop_what_was_read_of_a_drive_is_tagged(bundle: Bundle) -> None:
    footage = FakeFootage({f"{name}.mp4": FakeVideo() for name in "abc"})
    videos = footage.list()
    moments = tuple(Moment(videos=(video,)) for video in videos)
    discovery = Discovery(videos=tuple(videos), drives=(Drive(drive_id="one", moments=moments),))

    class Interrupted(FakeEngine):
        def infer(self, clips_NTHWC):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().infer(clips_NTHWC)

    scanning = Scan(
        discovery,
        model=model_of(bundle, Interrupted(), ScanConfig()),
        gazetteer=read_gazetteer(),
        config=ScanConfig(),
        make_station=footage.make_station,
    )
    with pytest.raises(KeyboardInterrupt):
        list(scanning.tags())
    assert [(tag.path, tag.city) for tag in scanning.unfinished()] == [("a.mp4", "Paris")]


def test_without_a_model_only_positions_are_read(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(survey=MEASURED), "b.mp4": FakeVideo()})
    tags = scan(
        footage.discovery(),
        model=None,
        gazetteer=read_gazetteer(),
        config=ScanConfig(),
        make_station=footage.make_station,
    )
    assert [(tag.status, tag.city) for tag in tags] == [("ok", "Berlin"), ("no_model", None)]
    assert footage.decoded == 0


def test_a_bug_in_a_reader_of_positions_costs_no_video(bundle: Bundle) -> None:
    footage = FakeFootage({"a.mp4": FakeVideo(survey=ZeroDivisionError("oops"))})
    (tag,) = run(footage, bundle)
    assert (tag.status, tag.city) == ("ok", "Paris")


def test_what_a_memory_holds_is_not_read_again(bundle: Bundle, tmp_path: Path) -> None:
    videos = {
        "a.mp4": FakeVideo(survey=MEASURED),
        "b.mp4": FakeVideo(error=broken("damaged", "No index.")),
        "c.mp4": FakeVideo(colours=[PARIS, BERLIN, SUVA]),
    }
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        memory = Memory(ledger, telemetry=(), pictures=("model",), proxies=False)
        first = list(run(FakeFootage(videos), bundle, memory=memory))
        again = FakeFootage(videos)
        assert list(run(again, bundle, memory=memory)) == first
        # That nothing was found is believed only of a file that is still there: these never were.
        assert (again.surveyed, again.opened, again.decoded) == (2, 1, 0)
        other = Memory(ledger, telemetry=(), pictures=("another",), proxies=False)
        anew = FakeFootage(videos)
        assert list(run(anew, bundle, memory=other)) == first
        assert (anew.surveyed, anew.decoded) == (2, 5)


def test_a_fault_that_may_pass_is_not_remembered(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        memory = Memory(ledger, telemetry=(), pictures=(), proxies=False)
        for code, opened in (("damaged", 1), ("stalled", 2), ("unreadable", 2)):
            footage = FakeFootage({"a.mp4": FakeVideo(error=broken(code))})
            (video,) = footage.list()
            path.write_bytes(code.encode())
            discovery = alone([replace(video, path=path, content_id=content_id(path))])
            for _ in range(2):
                list(run(footage, bundle, memory=memory, discovery=discovery))
            assert footage.opened == opened, code


def one_moment(footage: FakeFootage, **origin: str) -> Discovery:
    """All files of the footage as channels of one moment."""
    videos = tuple(
        replace(video, origin=Origin(**origin))  # type: ignore[arg-type]
        for video in footage.list()
    )
    drive = Drive(drive_id="drive", moments=(Moment(videos=videos),))
    return Discovery(videos=videos, drives=(drive,))


def test_the_cheapest_policy_within_half_a_point_is_chosen(bundle: Bundle) -> None:
    chosen = choose_sampling(bundle)
    assert (chosen.policy, chosen.span_s) == ("keyframe", 4.0)
    assert str(chosen) == (
        "keyframe 4 s (city accuracy 89.6%, within half a point of the best, exact 4 s with "
        "90.0%, and cheaper)"
    )


@pytest.mark.parametrize(
    ("top1", "expected"),
    [(0.895, "keyframe"), (0.894, "exact"), (0.91, "keyframe")],
)
def test_half_a_point_is_the_limit(bundle: Bundle, top1: float, expected: str) -> None:
    dense, exact, keyframe = bundle.manifest.sampling.policies
    changed = with_policies(bundle, dense, exact, replace(keyframe, city_top1=top1))
    assert choose_sampling(changed).policy == expected


def test_of_two_spans_the_more_accurate_is_taken(bundle: Bundle) -> None:
    _, exact, _ = bundle.manifest.sampling.policies
    longer = replace(exact, span_s=20.0, city_top1=0.92)
    chosen = choose_sampling(with_policies(bundle, exact, longer), "exact")
    assert (chosen.span_s, chosen.reason) == (20.0, "asked for; city accuracy 92.0%")


def test_a_policy_that_was_never_measured_is_refused(bundle: Bundle) -> None:
    _, exact, _ = bundle.manifest.sampling.policies
    with pytest.raises(ConfigError, match=r"--sampling dense: .* Allowed .*: auto, exact"):
        choose_sampling(with_policies(bundle, exact), "dense")


def with_policies(bundle: Bundle, *policies: PolicyAccuracy) -> Bundle:
    sampling = replace(bundle.manifest.sampling, policies=policies)
    return replace(bundle, manifest=replace(bundle.manifest, sampling=sampling))


def wait_until_quiet(footage: FakeFootage) -> None:
    """Wait until no clip was decoded for a while: the workers are all blocked, or done."""
    before = -1
    while before != footage.decoded:
        before = footage.decoded
        time.sleep(0.05)
