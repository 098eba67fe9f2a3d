import itertools
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from train.data import looks, rendered, route, scenery, view, world
from train.data.rendered import render_clip, render_frames, sample_times
from train.data.world import draw_drive, places

ROOT = Path(__file__).parents[3]
DRIVES_PER_SPLIT = 500


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_places_cover_the_world_and_are_sorted() -> None:
    known = places()
    assert len(known) >= 24
    assert len({place.country_code for place in known}) >= 16
    assert {place.continent_code for place in known} == {"AF", "AS", "EU", "NA", "SA", "OC"}
    assert [place.city for place in known] == sorted(place.city for place in known)
    assert len({place.geonameid for place in known}) == len(known)


@pytest.mark.parametrize("place", places(), ids=lambda place: place.city)
def test_place_has_a_state_of_its_country_and_a_position(place: world.RenderedPlace) -> None:
    assert place.state_code.split("-")[0] == place.country_code
    assert place.state
    assert -90.0 <= place.lat_deg <= 90.0
    assert -180.0 <= place.lon_deg <= 180.0


def test_one_state_can_hold_two_cities_so_that_levels_differ() -> None:
    states = [place.state_code for place in places()]
    assert len(set(states)) < len(states)


def test_same_drive_gives_the_same_bytes_whatever_was_rendered_before() -> None:
    times_s = np.array([1.0, 17.3, 42.0])
    first = render_frames(draw_drive("train", 5), times_s)
    render_frames(draw_drive("test", 9), times_s)
    route.plan_route.cache_clear()
    scenery.lay_scenery.cache_clear()
    again = render_frames(draw_drive("train", 5), times_s[::-1])[::-1]
    assert first.tobytes() == again.tobytes()


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib, numpy as np;"
        "from train.data.rendered import render_frames; from train.data.world import draw_drive;"
        "pixels = render_frames(draw_drive('val', 7), np.array([3.0, 31.5]));"
        "print(hashlib.sha256(pixels.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    digests = {
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_import_and_rendering_work_without_torch() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import numpy as np\n"
        "from train.data.rendered import render_frames\n"
        "from train.data.world import draw_drive\n"
        "assert render_frames(draw_drive('train', 0), np.array([1.0])).any()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("height", "width"), [(112, 112), (90, 160), (64, 48)])
def test_frames_have_the_size_asked_for(height: int, width: int) -> None:
    frames = render_frames(
        draw_drive("train", 1), np.array([0.0, 60.0]), height=height, width=width
    )
    assert frames.shape == (2, height, width, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 10.0


def test_clip_comes_with_the_scene_of_each_frame(rng: np.random.Generator) -> None:
    clip, scenes = render_clip(draw_drive("train", 2), "dense", 2.5, rng=rng, frames=4, size=56)
    assert clip.shape == (4, 56, 56, 3)
    assert scenes.shape == (4,)
    assert set(scenes.tolist()) <= set(range(16))


def test_time_outside_the_drive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 60"):
        render_frames(draw_drive("train", 0), np.array([61.0]))


def test_splits_share_no_seed_no_route_and_no_weather() -> None:
    drives = [
        draw_drive(split, index) for split in world.SPLITS for index in range(DRIVES_PER_SPLIT)
    ]
    total = DRIVES_PER_SPLIT * len(world.SPLITS)
    assert len({drive.seed for drive in drives}) == total
    assert len({drive.route_id for drive in drives}) == total
    assert len({drive.weather for drive in drives}) == total


def test_seeds_of_splits_come_from_separate_ranges() -> None:
    ranges = []
    for split in world.SPLITS:
        seeds = [draw_drive(split, index).seed for index in range(200)]
        ranges.append((min(seeds), max(seeds)))
    ranges.sort()
    assert all(low[1] < high[0] for low, high in itertools.pairwise(ranges))


@pytest.mark.parametrize("block", [0, 7])
def test_every_block_of_indices_holds_each_city_once(block: int) -> None:
    count = len(places())
    cities = [draw_drive("val", block * count + number).city_id for number in range(count)]
    assert sorted(cities) == list(range(count))
    assert cities != sorted(cities)


def test_scenes_change_along_a_drive() -> None:
    seen = []
    for index in range(20):
        drive = draw_drive("train", index)
        groups = {world.scene_group(drive, float(time_s)) for time_s in range(60)}
        assert groups <= set(range(16))
        seen.append(len(groups))
    assert np.mean(seen) >= 3.0
    assert len(world.SCENE_GROUPS) == 16


def test_car_moves_at_road_speeds_and_never_waits_long() -> None:
    for index in range(30):
        drive = draw_drive("train", index)
        plan = route.plan_route(drive.route_id, drive.duration_s)
        speed_m_s = np.diff(plan.distances_m) / np.diff(plan.times_s)
        assert speed_m_s.min() >= 0.0
        assert speed_m_s.max() <= 25.001
        windows_m = plan.distances_m[25:] - plan.distances_m[:-25]  # 2.5 s
        assert windows_m.min() > 0.5


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
@pytest.mark.parametrize("span_s", [0.0, 2.5, 25.0, 100.0])
def test_sampled_times_are_sorted_and_inside(
    policy: rendered.Policy, span_s: float, rng: np.random.Generator
) -> None:
    for _ in range(50):
        times_s = sample_times(policy, span_s, duration_s=60.0, rng=rng)
        assert times_s.shape == (16,)
        assert (np.diff(times_s) >= 0.0).all()
        assert times_s[0] >= 0.0
        assert times_s[-1] < 60.0


def test_keyframe_times_are_whole_seconds_and_repeat_in_short_spans(
    rng: np.random.Generator,
) -> None:
    times_s = sample_times("keyframe", 3.0, duration_s=60.0, rng=rng)
    assert (times_s == np.rint(times_s)).all()
    assert len(set(times_s.tolist())) < 16


def test_even_times_span_what_was_asked_and_are_centred_without_jitter(
    rng: np.random.Generator,
) -> None:
    times_s = sample_times("exact", 10.0, duration_s=60.0, rng=rng, jitter=False)
    assert times_s[0] == pytest.approx(25.0)
    # 16 equal steps of 10 s: the last frame begins the last step, as in a scan.
    assert np.ptp(times_s) == pytest.approx(10.0 * 15 / 16)


def test_unknown_policy_is_refused_by_name(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="randomly"):
        sample_times("randomly", 1.0, duration_s=60.0, rng=rng)  # type: ignore[arg-type]


def test_left_hand_traffic_keeps_to_the_other_half_of_the_road() -> None:
    right, left = (
        next(
            drive
            for drive in (draw_drive("train", index) for index in range(48))
            if places()[drive.city_id].country_code == code
        )
        for code in ("US", "GB")
    )
    assert view.pose_at(right, 5.0).lateral_m > 0.5
    assert view.pose_at(left, 5.0).lateral_m < -0.5


def test_cities_of_one_country_share_its_road_and_differ_in_look() -> None:
    names = [place.city for place in places()]
    london, edinburgh = names.index("London"), names.index("Edinburgh")
    assert looks.country_look(london) == looks.country_look(edinburgh)
    assert looks.city_looks()[london] != looks.city_looks()[edinburgh]


def test_burnt_in_clock_says_nothing_of_the_city() -> None:
    first, second = (
        [draw_drive("train", index) for index in range(24 * block, 24 * block + 24)]
        for block in (0, 1)
    )
    clocks = [{drive.city_id: drive.clock_s for drive in drives} for drives in (first, second)]
    assert all(clocks[0][city] != clocks[1][city] for city in clocks[0])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    rendered.write_video(_clear_drive(), path, start_s=8.0, duration_s=3.0)
    return path


def _clear_drive() -> world.Drive:
    drives = (draw_drive("train", index) for index in range(100))
    return next(drive for drive in drives if drive.weather.sky == "clear")


def test_video_is_h264_at_720p_with_a_key_frame_each_second(video: Path) -> None:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.width, context.height) == ("h264", 1280, 720)
        assert context.pix_fmt == "yuv420p"
        keys_s = [packet.pts * packet.time_base for packet in container.demux(stream)
                  if packet.is_keyframe and packet.pts is not None]  # fmt: skip
    assert [float(key_s) for key_s in keys_s] == [0.0, 1.0, 2.0]


def test_video_says_that_it_is_rendered(video: Path) -> None:
    with av.open(str(video)) as container:
        assert "NOT real footage" in container.metadata["title"]
        assert "geotag" in container.metadata["comment"]


def test_small_frames_match_the_video_scaled_down(video: Path) -> None:
    with av.open(str(video)) as container:
        decoded = [
            frame.reformat(width=112, height=112, format="rgb24", interpolation="AREA").to_ndarray()
            for frame in container.decode(video=0)
        ]
    straight = render_frames(_clear_drive(), 8.0 + np.arange(len(decoded)) / 10.0)
    difference = np.abs(np.stack(decoded).astype(float) - straight.astype(float)).mean()
    assert difference < 5.0


def test_video_names_no_place(video: Path) -> None:
    with av.open(str(video)) as container:
        written = str([container.metadata, *(stream.metadata for stream in container.streams)])
    names = {name for place in places() for name in (place.city, place.state, place.country)}
    assert not [name for name in names if name in written]


def test_video_beyond_the_drive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="drive lasts"):
        rendered.write_video(
            draw_drive("train", 0), tmp_path / "a.mp4", start_s=59.0, duration_s=5.0
        )
