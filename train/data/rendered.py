"""Clips and videos of a procedural world: rendered, never real footage, for demos and experiments.

Shape legend: N things, T frames, H/W pixels, M steps along the road. Only numpy and PyAV are used,
so that the demo runs where torch is not installed.
"""

import datetime as dt
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from train.data import painting
from train.data.painting import (
    BIN_M,
    HALF_SECTION_M,
    SPRITES,
    STEP_M,
    Floats,
    Pose,
    Scenery,
    Things,
)
from train.data.world import (
    PAINTS,
    SCENES,
    SPLITS,
    VIEW_M,
    CityLook,
    CountryLook,
    Drive,
    RenderedPlace,
    Rgb,
    Split,
    Weather,
    city_looks,
    country_look,
    draw_drive,
    places,
    plan_route,
    scene_group,
)

__all__ = [
    "SPLITS",
    "Drive",
    "Policy",
    "RenderedPlace",
    "Split",
    "Weather",
    "draw_drive",
    "places",
    "render_clip",
    "render_frames",
    "sample_times",
    "scene_group",
    "write_video",
]

Policy = Literal["dense", "exact", "keyframe"]

NOTICE = "Rendered by geotag: NOT real footage"


def sample_times(
    policy: Policy,
    span_s: float,
    *,
    frames: int = 16,
    duration_s: float,
    rng: np.random.Generator,
    jitter: bool = True,
) -> NDArray[np.float64]:
    """Moments [T] of one clip in seconds, ascending and inside [0, duration_s).

    `dense` and `exact` spread frames evenly over the span; `keyframe` moves each to the nearest
    whole second, where a video with one-second groups of pictures has its key frames, so short
    spans hold repeats.

    Args:
        policy: How frames are picked.
        span_s: Length of the clip, cut to fit the drive; a frame begins each of `frames` equal steps.
        frames: Number of frames.
        duration_s: Length of the drive.
        rng: Draws the start.
        jitter: Start at random; otherwise the span is centred.
    """
    if policy not in ("dense", "exact", "keyframe"):
        raise ValueError(f"cannot sample by {policy!r}: choose dense, exact or keyframe")
    if frames < 1 or span_s < 0.0 or duration_s <= 0.0:
        raise ValueError(f"cannot sample {frames} frames over {span_s} s of {duration_s} s")
    end_s = np.nextafter(duration_s, 0.0)
    span_s = min(span_s, end_s)
    slack_s = end_s - span_s
    start_s = rng.uniform(0.0, slack_s) if jitter else 0.5 * slack_s
    times_s = np.clip(start_s + np.linspace(0.0, span_s, frames, endpoint=False), 0.0, end_s)
    if policy == "keyframe":
        last_s = np.ceil(duration_s) - 1.0
        times_s = np.clip(np.floor(times_s + 0.5), 0.0, last_s)
    return times_s


def render_frames(
    drive: Drive, times_s: NDArray[np.float64], *, height: int = 112, width: int = 112
) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] of a drive, RGB; the view is that of a 16:9 frame whatever the size.

    Raises:
        ValueError: A time lies outside [0, drive.duration_s].
    """
    times_s = np.asarray(times_s, dtype=np.float64)
    if times_s.size and (times_s.min() < 0.0 or times_s.max() > drive.duration_s):
        raise ValueError(f"cannot render outside [0, {drive.duration_s}] s: got {times_s}")
    frames_THWC = np.empty((len(times_s), height, width, 3), np.uint8)
    drawn: dict[float, int] = {}
    for position, time_s in enumerate(times_s.tolist()):
        if time_s in drawn:  # key frames of a short span repeat
            frames_THWC[position] = frames_THWC[drawn[time_s]]
            continue
        drawn[time_s] = position
        _render_frame(drive, time_s, frames_THWC[position])
    return frames_THWC


def render_clip(
    drive: Drive,
    policy: Policy,
    span_s: float,
    *,
    rng: np.random.Generator,
    frames: int = 16,
    size: int = 112,
) -> tuple[NDArray[np.uint8], int]:
    """One clip [T, size, size, 3] of a drive, and the most frequent scene group of its frames."""
    times_s = sample_times(policy, span_s, frames=frames, duration_s=drive.duration_s, rng=rng)
    groups = [scene_group(drive, time_s) for time_s in times_s.tolist()]
    scene = int(np.bincount(groups).argmax())
    return render_frames(drive, times_s, height=size, width=size), scene


def write_video(
    drive: Drive,
    path: str | Path,
    *,
    duration_s: float | None = None,
    start_s: float = 0.0,
    fps: float = 10.0,
    width: int = 1280,
    height: int = 720,
    render_width: int = 640,
) -> None:
    """Writes [start_s, start_s + duration_s) of a drive as an H.264 MP4 with a key frame a second.

    The file says that it is rendered in its metadata and in the line burnt into every frame.
    """
    duration_s = drive.duration_s - start_s if duration_s is None else duration_s
    if start_s < 0.0 or duration_s <= 0.0 or start_s + duration_s > drive.duration_s:
        raise ValueError(
            f"cannot write [{start_s}, {start_s + duration_s}) s: drive lasts {drive.duration_s} s"
        )
    drawn_width = min(render_width, width)
    drawn_height = round(drawn_width * height / width)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = NOTICE
        container.metadata["comment"] = f"{NOTICE}; split {drive.split}, drive {drive.index}"
        stream = _add_stream(container, rate, width, height)
        for number in range(round(duration_s * fps)):
            time_s = np.array([start_s + number / float(rate)])
            pixels = render_frames(drive, time_s, height=drawn_height, width=drawn_width)[0]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                width=width,
                height=height,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts = number
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _add_stream(
    container: av.container.OutputContainer, rate: Fraction, width: int, height: int
) -> av.VideoStream:
    second = max(round(rate), 1)
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = 1 / rate
    stream.gop_size = second
    stream.options = {
        "preset": "veryfast",
        "crf": "26",
        "x264-params": f"keyint={second}:min-keyint={second}:scenecut=0:open-gop=0:"
        "colorprim=bt709:transfer=bt709:colormatrix=bt709:threads=1",
    }
    return stream


def _render_frame(drive: Drive, time_s: float, out_HWC: NDArray[np.uint8]) -> None:
    scenery, traffic = _lay_scenery(drive)
    height_px, width_px = out_HWC.shape[:2]
    camera = painting.aim_camera(height_px, width_px)
    pose = _pose_at(drive, time_s)
    look = city_looks()[drive.city_id]
    along_m = _move_things(scenery.things, traffic, pose)
    canvas = painting.paint_frame(drive, look, scenery, along_m, pose, camera)
    painting.pass_lens(canvas, drive, pose, camera)
    clock = dt.datetime(2015, 1, 1) + dt.timedelta(seconds=drive.clock_s + int(time_s))
    painting.burn_line(canvas, f"RENDERED {clock:%Y-%m-%d %H:%M:%S}")
    painting.develop(canvas, drive, pose, camera, out_HWC)


def _pose_at(drive: Drive, time_s: float) -> Pose:
    """The camera at a moment: place along the route, lane, bend of the road and shake."""
    route = plan_route(drive)
    along_m = float(np.interp(time_s, route.times_s, route.distances_m))
    phase = _phases(drive.seed)
    lane_m = -1.8 if country_look(drive.city_id).drives_left else 1.8
    bends = [(1.0 / 700.0, 97.0), (1.0 / 900.0, 41.0)]  # sharpness (1/m) and length scale (m)
    bend = sum(k * np.sin((along_m + 20.0) / m + phase[i]) for i, (k, m) in enumerate(bends))
    turned = sum(-k * m * np.cos(along_m / m + phase[i]) for i, (k, m) in enumerate(bends))
    shake = np.sin(2.0 * np.pi * time_s * np.array([0.31, 1.7, 2.3, 0.9, 2.9]) + phase[4:9])
    hills = np.sin(along_m / 60.0 + phase[2]) + np.sin(along_m / 23.0 + phase[3])
    return Pose(
        time_s=time_s,
        along_m=along_m,
        lateral_m=lane_m + 0.35 * float(shake[0]) + 0.2 * float(np.sin(along_m / 30.0 + phase[9])),
        heading_rad=float(turned) + float(phase[10]),
        bend_per_m=float(bend),
        yaw=0.012 * float(np.sin(along_m / 45.0 + phase[11])) + 0.003 * float(shake[1]),
        pitch=0.014 * float(hills) + 0.004 * float(shake[2]) + 0.02 * float(phase[12] - np.pi),
        roll=0.008 * float(shake[3]) + 0.004 * float(shake[4]),
    )


@lru_cache(maxsize=16)
def _phases(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, 4]).uniform(0.0, 2.0 * np.pi, 16)


def _floats(rows: object) -> Floats:
    return np.array(rows, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Palettes:
    """The looks of all cities as arrays, with one more at the end: the look of nowhere."""

    facades: Floats
    roof: Floats
    leaf: Floats
    verge: Floats
    banner: Floats
    storey_m: Floats
    storeys: Floats
    pitched: Floats
    tree: NDArray[np.intp]


@lru_cache(maxsize=1)
def _palettes() -> _Palettes:
    looks = city_looks()
    nowhere = ["9c948a", "b4b0a8", "8a7a70", "c4bcae", "7d7f82", "a89c90"]
    greys = [[value / 255.0 for value in bytes.fromhex(text)] for text in nowhere]
    pad = np.float32

    def table(rows: list[tuple[float, ...] | Rgb], last: tuple[float, ...]) -> Floats:
        return np.array([*rows, last], pad)

    banners = [look.banner for look in looks]
    trees = [SPRITES.index(look.tree) for look in looks]
    return _Palettes(
        facades=np.array([*(look.facades * 2 for look in looks), greys], pad),
        roof=table([look.roof for look in looks], (0.42, 0.38, 0.36)),
        leaf=table([look.leaf for look in looks], (0.30, 0.44, 0.22)),
        verge=table([look.verge for look in looks], (0.42, 0.52, 0.30)),
        banner=np.array([*banners, ((0.6, 0.6, 0.6), (0.45, 0.45, 0.45))], pad),
        storey_m=np.array([*(look.storey_m for look in looks), 3.2], pad),
        storeys=np.array([*(look.storeys for look in looks), 4.0], pad),
        pitched=np.array([*(look.pitched for look in looks), 0.0], pad),
        tree=np.array([*trees, SPRITES.index("round")]),
    )


OWN_SHARE = 0.46
DECOY_SHARE = 0.12


def _draw_sources(rng: np.random.Generator, city_id: int, count: int) -> NDArray[np.intp]:
    """Whose look each of `count` pieces wears: mostly the city's own or that of nowhere.

    A share wears another city's, so that no single piece is proof.
    """
    nowhere = len(places())
    roll = rng.random(count)
    decoys = rng.integers(0, nowhere, count)
    return np.where(roll < OWN_SHARE, city_id, np.where(roll > 1.0 - DECOY_SHARE, decoys, nowhere))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Traffic:
    """When which vehicle is ahead in the own lane, and how far."""

    gap_m: NDArray[np.float64]
    since_s: NDArray[np.float64]
    until_s: NDArray[np.float64]


@lru_cache(maxsize=4)
def _lay_scenery(drive: Drive) -> tuple[Scenery, _Traffic]:
    """Everything along a drive, a pure function of it."""
    rng = np.random.default_rng([drive.seed, 3])
    route = plan_route(drive)
    steps = int((route.distances_m[-1] + VIEW_M) / STEP_M)
    names = list(SCENES)
    segment = np.searchsorted(route.starts_m, np.arange(steps) * STEP_M, side="right") - 1
    scene = np.array([names.index(name) for name in route.scenes])[segment]
    water_side = int(rng.integers(0, 2))
    walls, fences, things = [], [], []
    for side in (0, 1):
        blocks = _draw_blocks(rng, drive.city_id, scene)
        walls.append(_lay_walls(rng, blocks, dry=side != water_side))
        fences.append(_lay_fences(rng, blocks))
        things.append(_place_things(rng, drive.city_id, blocks, -1.0 if side == 0 else 1.0))
    things.append(_place_gantries(rng, drive.city_id, scene))
    section, kinds = _lay_road(rng, drive.city_id, scene, water_side)
    traffic, vehicles = _plan_traffic(drive)
    bridges_m = np.arange(90.0, steps * STEP_M, 210.0)
    bridges_m += rng.uniform(-80.0, 80.0, len(bridges_m))
    scenery = Scenery(
        walls=np.concatenate(walls, axis=1),
        fences=np.concatenate(fences, axis=1),
        section=section,
        section_kind=kinds,
        haze_m=_draw_haze(rng, drive.weather, steps),
        things=_join(things + vehicles),
        bridges_m=bridges_m[rng.random(len(bridges_m)) < 0.4].astype(np.float32),
        panorama=_draw_panorama(drive.city_id),
    )
    return scenery, traffic


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    """Plots of 12 to 25 m along one side of the road, one row each, and the plot of each step."""

    start_m: Floats
    length_m: Floats
    source: NDArray[np.intp]
    built: Floats
    storeys: Floats
    trees: Floats
    parked: Floats
    paved: NDArray[np.bool_]
    water: NDArray[np.bool_]
    fence: NDArray[np.str_]
    of_step: NDArray[np.intp]
    into_step: NDArray[np.intp]
    """Steps since the plot began."""


def _draw_blocks(rng: np.random.Generator, city_id: int, scene: NDArray[np.intp]) -> _Blocks:
    steps = len(scene)
    lengths = rng.integers(48, 100, steps // 48 + 1)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    count = int(np.searchsorted(starts, steps))
    lengths, starts = lengths[:count], starts[:count]
    of_step = np.repeat(np.arange(count), lengths)[:steps]
    kinds = [list(SCENES.values())[number] for number in scene[starts]]
    return _Blocks(
        start_m=(starts * STEP_M).astype(np.float32),
        length_m=(lengths * STEP_M).astype(np.float32),
        source=_draw_sources(rng, city_id, count),
        built=np.array([kind.built for kind in kinds], np.float32),
        storeys=np.array([kind.storeys for kind in kinds], np.float32),
        trees=np.array([kind.trees for kind in kinds], np.float32),
        parked=np.array([kind.parked for kind in kinds], np.float32),
        paved=np.array([kind.paved for kind in kinds]),
        water=np.array([kind.water for kind in kinds]),
        fence=np.array([kind.fence for kind in kinds]),
        of_step=of_step,
        into_step=np.arange(steps) - starts[of_step],
    )


def _running(rows: Floats) -> NDArray[np.float64]:
    """Running sums [R, M + 1] of rows [R, M]."""
    sums = np.zeros((rows.shape[0], rows.shape[1] + 1))
    np.cumsum(rows, axis=1, out=sums[:, 1:])
    return sums


def _lay_walls(rng: np.random.Generator, blocks: _Blocks, *, dry: bool) -> NDArray[np.float64]:
    """Sums of wall, roof and shop colour, window share, eave, top and storey height."""
    looks, count = _palettes(), len(blocks.source)
    source = blocks.source
    wall = looks.facades[source, rng.integers(0, 6, count)] * rng.uniform(0.92, 1.08, (count, 1))
    has_awning = (rng.random(count) < 0.6) & blocks.paved
    awning = looks.banner[source, rng.integers(0, 2, count)]
    shop = np.where(has_awning[:, None], awning, wall * 0.86)
    storeys = np.maximum(
        np.rint(looks.storeys[source] * blocks.storeys * rng.uniform(0.7, 1.3, count)), 1.0
    )
    eave_m = storeys * looks.storey_m[source] + 0.4
    present = (rng.random(count) < blocks.built) & (dry | ~blocks.water)
    gable_m = looks.pitched[source] * 3.0
    period = rng.integers(9, 14, count)
    per_block = np.concatenate([wall, looks.roof[source], shop], axis=1)
    rows = np.empty((13, len(blocks.of_step)), np.float32)
    rows[:9] = per_block[blocks.of_step].T
    step, block = blocks.into_step, blocks.of_step
    rows[9] = (step % period[block] * 2 < period[block]) * 0.85
    alley = np.where(rng.random(count) < 0.4, 8, 0)[block]
    stands = present[block] & (step >= alley)
    ridge = 1.0 - np.abs((step % 36) / 18.0 - 1.0)
    rows[10] = np.where(stands, eave_m[block], -1.0)
    rows[11] = np.where(stands, eave_m[block] + 0.5 + gable_m[block] * ridge, -1.0)
    rows[12] = looks.storey_m[source][block]
    return _running(rows)


_FENCES: dict[str, tuple[Rgb, float, float, float]] = {
    "none": ((0.5, 0.5, 0.5), 0.0, 0.0, 0.0),
    "rail": ((0.66, 0.67, 0.69), 0.42, 0.82, 0.95),
    "hedge": ((0.25, 0.38, 0.18), 0.0, 1.15, 1.0),
    "balustrade": ((0.78, 0.76, 0.71), 0.0, 0.95, 0.5),
    "mesh": ((0.45, 0.47, 0.48), 0.0, 1.9, 0.35),
}
"""Colour, lower and upper edge (m) and opacity."""


def _lay_fences(rng: np.random.Generator, blocks: _Blocks) -> NDArray[np.float64]:
    kinds = list(_FENCES)
    facts = np.array([[*colour, *rest] for colour, *rest in _FENCES.values()], np.float32)
    per_block = facts[[kinds.index(name) for name in blocks.fence]]
    leafy = blocks.fence == "hedge"
    per_block[leafy, :3] = _palettes().leaf[blocks.source[leafy]] * 0.85
    per_block[rng.random(len(leafy)) < 0.3, 5] = 0.0
    rows = per_block[blocks.of_step].T.copy()
    rows[5, blocks.into_step < 4] *= 0.3
    return _running(rows)


def _place_things(rng: np.random.Generator, city_id: int, blocks: _Blocks, side: float) -> Things:
    """Trees, lamp posts, flags, signs and parked cars of one side."""
    groups = []
    for share in (0.2, 0.7):
        groups.append(_place_trees(rng, city_id, blocks, side, share))
    groups.append(_place_posts(rng, city_id, blocks, side))
    groups.append(_place_parked(rng, city_id, blocks, side))
    return _join(groups)


def _place_trees(
    rng: np.random.Generator, city_id: int, blocks: _Blocks, side: float, share: float
) -> Things:
    looks, count = _palettes(), len(blocks.source)
    present = rng.random(count) < np.minimum(blocks.trees * 0.6, 0.95)
    source = _draw_sources(rng, city_id, count)
    leaf = looks.leaf[source] * rng.uniform(0.9, 1.1, (count, 1))
    trunk = np.broadcast_to(_floats([0.34, 0.27, 0.21]), leaf.shape)
    sprite = looks.tree[source]
    tall = np.array([6.0, 8.5, 8.0, 7.5, 7.0, 2.6, 4.6, 1.2])[sprite] * rng.uniform(0.8, 1.2, count)
    slim = np.array([0.85, 0.6, 0.5, 0.26, 1.05, 1.15, 1.0, 1.4])[sprite]
    return _keep(present, Things(
        along_m=(blocks.start_m + share * blocks.length_m).astype(np.float32),
        speed_m_s=np.zeros(count, np.float32),
        lateral_m=(side * rng.uniform(5.4, 6.1, count)).astype(np.float32),
        width_m=(tall * slim).astype(np.float32),
        height_m=tall.astype(np.float32),
        sprite=sprite,
        colours=np.stack([leaf * 1.18, leaf * 0.78, trunk], axis=1).astype(np.float32),
    ))  # fmt: skip


def _place_posts(rng: np.random.Generator, city_id: int, blocks: _Blocks, side: float) -> Things:
    """Signs of the country and flags of the city, or plain lamps and signs of nowhere."""
    looks, country, count = _palettes(), country_look(city_id), len(blocks.source)
    roll, own = rng.random(count), rng.random(count) < 0.6
    steel = _floats([0.5, 0.51, 0.53])
    flags = looks.banner[_draw_sources(rng, city_id, count)]
    flagged = (roll < 0.42) & (flags.max(axis=(1, 2)) != np.float32(0.6))
    is_sign = roll > 0.6
    blank = _floats([[0.75, 0.75, 0.73], [0.5, 0.52, 0.55]])
    plates = np.where(own[:, None, None], _floats([country.sign_fill, country.sign_border]), blank)
    colours = np.empty((count, 3, 3), np.float32)
    colours[:, :2] = np.where(
        is_sign[:, None, None], plates, np.where(flagged[:, None, None], flags, steel)
    )
    colours[:, 2] = steel
    sign = np.where(own, SPRITES.index(country.sign), SPRITES.index("board"))
    post = np.where(flagged, SPRITES.index("banner"), SPRITES.index("lamp"))
    return _keep(roll < 0.95, Things(
        along_m=(blocks.start_m + 0.45 * blocks.length_m).astype(np.float32),
        speed_m_s=np.zeros(count, np.float32),
        lateral_m=(side * rng.uniform(4.7, 5.2, count)).astype(np.float32),
        width_m=np.where(is_sign, 1.7, np.where(flagged, 2.2, 1.6)).astype(np.float32),
        height_m=np.where(is_sign, 3.4, 5.6).astype(np.float32),
        sprite=np.where(is_sign, sign, post),
        colours=colours,
    ))  # fmt: skip


def _place_parked(rng: np.random.Generator, city_id: int, blocks: _Blocks, side: float) -> Things:
    count = len(blocks.source)
    away = (side < 0.0) == country_look(city_id).drives_left
    sprite = SPRITES.index("car back" if away else "car front")
    return _keep(rng.random(count) < blocks.parked, Things(
        along_m=(blocks.start_m + 0.9 * blocks.length_m).astype(np.float32),
        speed_m_s=np.zeros(count, np.float32),
        lateral_m=np.full(count, side * 4.9, np.float32),
        width_m=np.full(count, 1.85, np.float32),
        height_m=np.full(count, 1.5, np.float32),
        sprite=np.full(count, sprite),
        colours=_paint_cars(rng, city_id, count),
    ))  # fmt: skip


def _paint_cars(rng: np.random.Generator, city_id: int, count: int) -> Floats:
    """Body, glass and plate of cars; a quarter are the city's taxis."""
    common = _floats([
        [0.85, 0.85, 0.85], [0.1, 0.1, 0.11], [0.5, 0.51, 0.53], [0.32, 0.33, 0.36],
        [0.48, 0.1, 0.1], [0.14, 0.2, 0.38], [0.7, 0.7, 0.68],
    ])  # fmt: skip
    body = common[rng.integers(0, len(common), count)]
    taxi = rng.random(count) < 0.25
    body[taxi] = city_looks()[city_id].taxi
    plate = np.where(rng.random((count, 1)) < 0.7, country_look(city_id).plate, (0.8, 0.8, 0.78))
    glass = np.broadcast_to(_floats([0.1, 0.11, 0.13]), body.shape)
    return np.stack([body, glass, plate], axis=1).astype(np.float32)


def _place_gantries(rng: np.random.Generator, city_id: int, scene: NDArray[np.intp]) -> Things:
    along_m = np.arange(30.0, len(scene) * STEP_M, 55.0)
    along_m += rng.uniform(-15.0, 15.0, len(along_m))
    count = len(along_m)
    shares = np.array([kind.gantries for kind in SCENES.values()])
    cell = np.minimum((along_m / STEP_M).astype(np.intp), len(scene) - 1)
    own = rng.random(count) < 0.65
    guide, text = country_look(city_id).guide, PAINTS["white"]
    if max(guide) > 0.9:  # a light ground carries dark letters
        text = PAINTS["black"]
    blank = _floats([[0.3, 0.31, 0.33], [0.55, 0.55, 0.5]])
    colours = np.empty((count, 3, 3), np.float32)
    colours[:, :2] = np.where(own[:, None, None], _floats([guide, text]), blank)
    colours[:, 2] = (0.52, 0.53, 0.55)
    return _keep(rng.random(count) < shares[scene[cell]], Things(
        along_m=along_m.astype(np.float32),
        speed_m_s=np.zeros(count, np.float32),
        lateral_m=np.zeros(count, np.float32),
        width_m=np.full(count, 10.6, np.float32),
        height_m=np.full(count, 7.4, np.float32),
        sprite=np.full(count, SPRITES.index("gantry")),
        colours=colours,
    ))  # fmt: skip


def _keep(present: NDArray[np.bool_], things: Things) -> Things:
    return Things(
        along_m=things.along_m[present],
        speed_m_s=things.speed_m_s[present],
        lateral_m=things.lateral_m[present],
        width_m=things.width_m[present],
        height_m=things.height_m[present],
        sprite=things.sprite[present],
        colours=things.colours[present],
    )


def _join(groups: list[Things]) -> Things:
    return Things(
        along_m=np.concatenate([group.along_m for group in groups]),
        speed_m_s=np.concatenate([group.speed_m_s for group in groups]),
        lateral_m=np.concatenate([group.lateral_m for group in groups]),
        width_m=np.concatenate([group.width_m for group in groups]),
        height_m=np.concatenate([group.height_m for group in groups]),
        sprite=np.concatenate([group.sprite for group in groups]),
        colours=np.concatenate([group.colours for group in groups]),
    )


def _draw_haze(rng: np.random.Generator, weather: Weather, steps: int) -> Floats:
    """Visibility along the road: the weather's own, with a short bank of fog here and there."""
    along_m = np.arange(steps) * STEP_M
    clear = np.ones(steps)
    for centre_m in rng.uniform(0.0, steps * STEP_M, max(int(steps * STEP_M / 300.0), 1)):
        bank = np.exp(-(((along_m - centre_m) / rng.uniform(8.0, 16.0)) ** 2))
        clear = np.minimum(clear, 1.0 - bank * rng.uniform(0.3, 0.95))
    return np.maximum(weather.visibility_m * clear, 9.0).astype(np.float32)


def _lay_road(
    rng: np.random.Generator, city_id: int, scene: NDArray[np.intp], water_side: int
) -> tuple[Floats, NDArray[np.intp]]:
    """Cross-sections of the road and which of them each step has.

    A kind is paved (1), own markings (2), own verge (4), waterside (8), added up.
    """
    kinds = list(SCENES.values())
    paved = np.array([kind.paved for kind in kinds])[scene]
    water = np.array([kind.water for kind in kinds])[scene]
    zones = rng.integers(80, 180, len(scene) // 80 + 1)
    zone = np.repeat(np.arange(len(zones)), zones)[: len(scene)]
    marked = (rng.random(len(zones)) < 0.55)[zone]
    grown = (rng.random(len(zones)) < 0.55)[zone]
    kind = (paved * 1 + marked * 2 + grown * 4 + water * 8).astype(np.intp)
    tone = float(rng.choice((0.85, 0.93, 1.0, 1.08)))  # few, so that sections are drawn once
    used = np.unique(kind)
    sums = [_sum_section(city_id, number, water_side, tone) for number in used.tolist()]
    return np.concatenate(sums), np.searchsorted(used, kind)


@lru_cache(maxsize=512)
def _sum_section(city_id: int, number: int, water_side: int, tone: float) -> Floats:
    """Running sums [B + 1, 8] of a cross-section; the last two columns are spare."""
    profile = _draw_section(city_id, number, water_side, tone)
    sums = np.zeros((len(profile) + 1, 8), np.float32)
    np.cumsum(profile, axis=0, out=sums[1:, :6])
    return sums


def _draw_section(city_id: int, number: int, water_side: int, tone: float) -> Floats:
    """Colours [B, 6] across the road, on and off a dash, from far left to far right."""
    city, country = city_looks()[city_id], country_look(city_id)
    paved, marked, grown, water = (bool(number & bit) for bit in (1, 2, 4, 8))
    x_m = (np.arange(int(2.0 * HALF_SECTION_M / BIN_M)) + 0.5) * BIN_M - HALF_SECTION_M
    away_m = np.abs(x_m)
    verge = np.asarray(city.verge if grown else _palettes().verge[-1])
    colours = np.broadcast_to(verge, (len(x_m), 3)).copy()
    if paved:
        colours[:] = (0.58, 0.57, 0.55)
    if water:
        colours[(x_m > 6.2) if water_side else (x_m < -6.2)] = (
            city.water if grown else (0.32, 0.4, 0.44)
        )
    colours[away_m < 4.05] = np.array(PAINTS["grey"])
    colours[away_m < 3.75] = np.array((0.34, 0.34, 0.35)) * tone
    on, off = colours.copy(), colours
    if marked:
        _mark_road(country, away_m, on, off)
    elif paved:
        on[away_m < 0.08] = (0.66, 0.66, 0.65)
    return np.concatenate([on, off], axis=1).astype(np.float32)


def _mark_road(
    country: CountryLook,
    away_m: NDArray[np.float64],
    on: NDArray[np.float64],
    off: NDArray[np.float64],
) -> None:
    """Paints the country's lines and kerbs into both cross-sections, in place."""
    line = {"double": (away_m > 0.12) & (away_m < 0.34)}.get(country.centre, away_m < 0.14)
    on[line] = country.centre_colour
    if country.centre != "dashed":
        off[line] = country.centre_colour
    if country.edge_colour is not None:
        edge = (away_m > 3.25) & (away_m < 3.5)
        on[edge] = off[edge] = country.edge_colour
    kerb = (away_m >= 3.75) & (away_m < 4.05)
    on[kerb], off[kerb] = country.kerb


@lru_cache(maxsize=32)
def _draw_panorama(city_id: int) -> Floats:
    """Summed areas of hills, skyline and its lights around the whole horizon of a city."""
    look = city_looks()[city_id]
    rng = np.random.default_rng([city_id, 9])
    bins, rows = painting.PANORAMA_BINS, painting.PANORAMA_ROWS
    turn_deg = np.arange(bins) * 360.0 / bins
    high, low = painting.PANORAMA_HIGH_RAD, painting.PANORAMA_LOW_RAD
    up_deg = np.degrees(high - (np.arange(rows) + 0.5) * (high - low) / rows)
    hills = _hills_deg(look, turn_deg, rng)[None, :] > up_deg[:, None]
    town = _skyline_deg(look, turn_deg, rng)[None, :] > up_deg[:, None]
    lights = town & (rng.random((rows, bins)) < 0.3) & (np.arange(rows) % 3 > 0)[:, None]
    masks = np.stack([hills & ~town, town & ~lights, lights]).astype(np.float32)
    return painting.sum_areas(np.concatenate([masks, masks[:, :, : bins // 4]], axis=2))


def _hills_deg(
    look: CityLook, turn_deg: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Height of the land above the horizon all around."""
    heights = np.full(len(turn_deg), 0.3)
    for centre in np.arange(0.0, 360.0, 24.0) + rng.uniform(-6.0, 6.0, 15):
        away = np.abs((turn_deg - centre + 180.0) % 360.0 - 180.0)
        half = rng.uniform(12.0, 20.0)
        part = np.clip(away / half, 0.0, 1.0)
        shape = {
            "ridge": 1.0 - part + 0.12 * np.sin(turn_deg * 0.9),
            "cone": np.clip(1.0 - part * 1.15, 0.0, 0.86),
            "table": np.clip((1.0 - part) * 3.5, 0.0, 1.0),
            "domes": np.sqrt(1.0 - part**2),
        }.get(look.terrain, np.zeros_like(part))
        heights = np.maximum(heights, look.terrain_deg * rng.uniform(0.75, 1.1) * shape)
    return heights


def _skyline_deg(
    look: CityLook, turn_deg: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Height of the silhouette all around: a low town with the city's landmarks in it."""
    count, wide, tall = {
        "towers": (54, 2.2, 8.5), "needles": (40, 1.6, 12.0), "slabs": (48, 3.6, 6.5),
        "blocks": (44, 4.0, 4.0), "low": (30, 5.0, 2.4), "domes": (18, 5.5, 6.0),
        "spires": (26, 2.6, 7.5), "pyramids": (12, 12.0, 7.5), "eiffel": (12, 6.5, 12.0),
        "spike": (14, 3.4, 12.0), "lattice": (14, 5.0, 11.0), "pyramid": (22, 4.6, 10.0),
        "sails": (18, 6.5, 6.0),
    }[look.skyline]  # fmt: skip
    heights = 1.0 + 0.8 * rng.random(len(turn_deg) // 8).repeat(8)
    centres = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 360.0 / count
    for centre in centres:
        away = (turn_deg - centre + 180.0) % 360.0 - 180.0
        part = np.abs(away) / (0.5 * wide * rng.uniform(0.8, 1.3))
        inside = part < 1.0
        shape = {
            "needles": np.clip(1.3 - part * 1.3, 0.0, 1.0),
            "spires": np.where(part < 0.35, 1.0 - part, 0.5),
            "domes": np.sqrt(np.clip(1.0 - part**2, 0.0, 1.0)),
            "pyramids": 1.0 - part,
            "pyramid": 1.0 - part,
            "eiffel": (1.0 - np.clip(part, 0.0, 1.0)) ** 2.4,
            "lattice": np.maximum((1.0 - np.clip(part, 0.0, 1.0)) ** 1.6, 0.3),
            "spike": np.where(part < 0.28, 1.0, np.where(part < 0.6, 0.45, 0.25)),
            "sails": np.clip((away / wide + 0.5) % 0.5 * 2.0, 0.0, 1.0),
        }.get(look.skyline, np.ones_like(part))
        heights = np.maximum(heights, np.where(inside, tall * rng.uniform(0.6, 1.05) * shape, 0.0))
    return heights


ONCOMING_M_S = 11.0


def _plan_traffic(drive: Drive) -> tuple[_Traffic, list[Things]]:
    """The vehicles ahead by turns, and the rows of the oncoming ones and of those ahead."""
    rng = np.random.default_rng([drive.seed, 8])
    reach_m = plan_route(drive).distances_m[-1] + ONCOMING_M_S * drive.duration_s
    along_m = np.cumsum(rng.uniform(18.0, 90.0, int(reach_m / 50.0) + 2))
    turns = int(drive.duration_s / 9.0) + 2
    edges_s = np.cumsum(rng.uniform(3.0, 8.0, 2 * turns)) - rng.uniform(0.0, 6.0)
    traffic = _Traffic(
        gap_m=rng.uniform(7.0, 18.0, turns), since_s=edges_s[0::2], until_s=edges_s[1::2]
    )
    oncoming = _draw_vehicles(rng, drive.city_id, along_m, front=True)
    return traffic, [oncoming, _draw_vehicles(rng, drive.city_id, np.zeros(turns), front=False)]


def _draw_vehicles(
    rng: np.random.Generator, city_id: int, along_m: NDArray[np.float64], *, front: bool
) -> Things:
    count = len(along_m)
    kinds = (
        ["car front", "truck front", "bus front"]
        if front
        else ["car back", "truck back", "car back"]
    )
    pick = rng.choice(3, size=count, p=(0.64, 0.24, 0.12))
    sizes = np.array([(1.85, 1.5), (2.6, 3.7), (2.5, 3.1) if front else (1.85, 1.5)])[pick]
    left = country_look(city_id).drives_left
    return Things(
        along_m=along_m.astype(np.float32),
        speed_m_s=np.full(count, ONCOMING_M_S if front else 0.0, np.float32),
        lateral_m=np.full(count, 1.8 if left == front else -1.8, np.float32),
        width_m=sizes[:, 0].astype(np.float32),
        height_m=sizes[:, 1].astype(np.float32),
        sprite=np.array([SPRITES.index(name) for name in kinds])[pick],
        colours=_paint_cars(rng, city_id, count),
    )


def _move_things(things: Things, traffic: _Traffic, pose: Pose) -> Floats:
    """Where each thing is at one moment; the vehicles ahead are the last rows."""
    along_m: Floats = things.along_m - things.speed_m_s * np.float32(pose.time_s)
    since_s, until_s = pose.time_s - traffic.since_s, traffic.until_s - pose.time_s
    # They come into view from afar and drive off again, never out of nothing.
    far = np.clip(1.0 - since_s / 1.5, 0.0, 1.0) ** 2 + np.clip(1.0 - until_s / 1.5, 0.0, 1.0) ** 2
    gap_m = traffic.gap_m + 1.5 * np.sin(0.7 * pose.time_s) + 70.0 * far
    there = (since_s >= 0.0) & (until_s > 0.0)
    along_m[-len(gap_m) :] = np.where(there, pose.along_m + gap_m, -1e6)
    return along_m
