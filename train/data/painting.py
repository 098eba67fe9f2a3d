"""Paints one frame of the rendered world with numpy: sky, facades, road, things beside it, lens.

Every edge is anti-aliased by the share of the pixel it covers, so that a small frame looks like a
large one averaged down. Colours are linear steps of [0, 1]; slopes are metres per metre of depth,
x to the right and y down, so that a pixel is a direction and not a place on a screen.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.world import CityLook, Drive

Floats = NDArray[np.float32]

HALF_WIDTH_SLOPE = 0.727  # tan(36 deg): 72 deg across, usual for a dashcam
HALF_HEIGHT_SLOPE = HALF_WIDTH_SLOPE * 9.0 / 16.0
EYE_M = 1.35
WALL_M = 9.0  # facades stand this far from the middle of the road
FENCE_M = 6.2
STEP_M = 0.25  # resolution of everything tabulated along the road
BIN_M = 0.04  # resolution of the road's cross-section
HALF_SECTION_M = 12.0
DASH_M = 5.0  # period of dashes and of kerb paint
FAR_M = 240.0
SEEN_M = 60.0  # things beside the road fade out here

PANORAMA_BINS = 1024  # around the whole horizon
PANORAMA_ROWS = 64
PANORAMA_LOW_RAD = -0.02
PANORAMA_HIGH_RAD = 0.32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """Directions of the pixels of one frame size; the view is 16:9 whatever the size."""

    height_px: int
    width_px: int
    x_slope: Floats
    y_slope: Floats
    x_step: float
    y_step: float
    vignette: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where the camera is and looks at one moment."""

    time_s: float
    along_m: float
    lateral_m: float
    heading_rad: float
    bend_per_m: float
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Things:
    """Upright flat things along the road, one row each."""

    along_m: Floats
    """Place at time 0."""
    speed_m_s: Floats
    """Pace against the drive: 0 for what stands, positive for what comes towards the camera."""
    lateral_m: Floats
    width_m: Floats
    height_m: Floats
    sprite: NDArray[np.intp]
    colours: Floats
    """[N, 3, 3]: the RGB of each sprite's three materials."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenery:
    """What stands along one drive, tabulated every STEP_M as running sums for exact averages."""

    walls: NDArray[np.float64]
    """[13, 2 * (M + 1)]: sums of the WALL_ROWS along the left, then the right side."""
    fences: NDArray[np.float64]
    """[6, 2 * (M + 1)]: sums of colour, lower edge, upper edge and opacity."""
    section: Floats
    """[kinds * (B + 1), 8]: sums across the road of the colour on and off a dash, and two spare
    columns that make a row 32 bytes, which numpy fetches twice as fast."""
    section_kind: NDArray[np.intp]
    """[M]: which cross-section the road has."""
    haze_m: Floats
    """[M]: how far one sees."""
    things: Things
    bridges_m: Floats
    """Where bridges cross the road."""
    panorama: Floats
    """[3, rows + 1, bins + 1]: summed areas of hills, skyline and its lights, once round and on
    for another quarter, so that no view wraps."""


@lru_cache(maxsize=8)
def aim_camera(height_px: int, width_px: int) -> Camera:
    """The camera that sees a 16:9 field of view in frames of this size."""
    x_unit = (np.arange(width_px, dtype=np.float32) + 0.5) / width_px * 2.0 - 1.0
    y_unit = (np.arange(height_px, dtype=np.float32) + 0.5) / height_px * 2.0 - 1.0
    return Camera(
        height_px=height_px,
        width_px=width_px,
        x_slope=x_unit * np.float32(HALF_WIDTH_SLOPE),
        y_slope=y_unit * np.float32(HALF_HEIGHT_SLOPE),
        x_step=2.0 * HALF_WIDTH_SLOPE / width_px,
        y_step=2.0 * HALF_HEIGHT_SLOPE / height_px,
        vignette=(1.0 - 0.16 * (y_unit[:, None] ** 2 + x_unit[None, :] ** 2)).astype(np.float32),
    )


def paint_frame(
    drive: Drive, look: CityLook, scenery: Scenery, along_m: Floats, pose: Pose, camera: Camera
) -> Floats:
    """The world seen from one pose, [3, H, W] in about [0, 1]; no lens effects yet.

    Args:
        drive: Gives the weather.
        look: The city's own look.
        scenery: What stands along the drive.
        along_m: Where each of `scenery.things` is at this moment.
        pose: The camera's place and direction.
        camera: The directions of its pixels.
    """
    weather = drive.weather
    horizon = np.float32(-pose.pitch) + np.float32(pose.roll) * camera.x_slope
    down = camera.y_slope[:, None] - horizon[None, :]
    air = _Air(
        np.asarray(weather.ambient, np.float32),
        np.float32(weather.headlight),
        np.asarray(weather.haze, np.float32),
        float(scenery.haze_m[_cell(pose.along_m, scenery)]),
    )
    canvas = _paint_sky(drive, pose, camera)
    _paint_panorama(canvas, look, scenery, pose, camera, air)
    _paint_ground(canvas, drive, scenery, pose, camera, down, air)
    wall_depth_m = _paint_walls(canvas, drive, scenery, pose, camera, down, air)
    _paint_fences(canvas, scenery, pose, camera, down, air)
    _paint_things(canvas, scenery.things, along_m, pose, camera, wall_depth_m, air)
    _paint_bridges(canvas, scenery, pose, camera)
    return canvas


@dataclass(frozen=True, slots=True)
class _Air:
    """Light at a distance, and the haze over it."""

    ambient: Floats
    headlight: np.float32
    haze: Floats
    visibility_m: float

    def lit(self, colours: Floats, depth_m: Floats) -> Floats:
        """Colours [..., 3] as seen at a depth [...]."""
        beam = self.headlight * np.exp(depth_m * np.float32(-1.0 / 22.0))
        clear = np.exp(depth_m * np.float32(-1.0 / self.visibility_m))[..., None]
        seen: Floats = colours * (self.ambient + beam[..., None]) * clear + self.haze * (
            1.0 - clear
        )
        return seen


def _cell(along_m: float, scenery: Scenery) -> int:
    return min(max(int(along_m / STEP_M), 0), len(scenery.section_kind) - 1)


def _paint_sky(drive: Drive, pose: Pose, camera: Camera) -> Floats:
    weather = drive.weather
    up = np.clip(-(camera.y_slope + np.float32(pose.pitch)) / np.float32(0.4), 0.0, 1.0)
    share = np.sqrt(up)
    haze, zenith = np.asarray(weather.haze), np.asarray(weather.zenith)
    rows = (haze[:, None] + (zenith - haze)[:, None] * share).astype(np.float32)
    canvas = np.empty((3, camera.height_px, camera.width_px), np.float32)
    canvas[:] = rows[:, :, None]
    sky = int(np.count_nonzero(up))
    if weather.cloud > 0.1 and sky > 0:
        row = (up[:sky] * 100.0).astype(np.intp)
        column = ((camera.x_slope + pose.heading_rad) * 160.0 + weather.sun_deg * 3.0).astype(
            np.intp
        )
        veil = _cloud_texture().take(row, axis=0).take(column & 1023, axis=1)
        white = np.float32(0.95 * haze.max()) - rows[:, :sky, None]
        canvas[:, :sky] += (np.float32(0.45 * weather.cloud) * white) * veil
    return canvas


@lru_cache(maxsize=1)
def _cloud_texture() -> Floats:
    """[128, 1024] soft patches in [0, 1], the same in every sky; the weather slides them."""
    rng = np.random.default_rng(7)
    spectrum = np.fft.rfft2(rng.standard_normal((128, 1024)))
    tall, wide = np.fft.fftfreq(128)[:, None] * 0.5, np.fft.rfftfreq(1024)[None, :]
    field = np.fft.irfft2(spectrum * np.exp(-((tall**2 + wide**2) * 3500.0)), s=(128, 1024))
    return np.clip(field / field.std() * 0.5, 0.0, 1.0).astype(np.float32)


def _box_means(sums: Floats, x_edge: NDArray[np.float64], y_edge: NDArray[np.float64]) -> Floats:
    """Mean of each material [M, h, w or w + 1] in the cells between edges, from summed areas.

    Edges are in texels; those outside the picture meet its clear margin. A spare column of zeros
    at the right may remain: with it, differences run over flat memory, several times as fast.
    """
    x_place, y_place = _texels_at(x_edge, sums.shape[2]), _texels_at(y_edge, sums.shape[1])
    corners, stride = sums.reshape(len(sums), -1), sums.shape[2]
    if x_edge[1] - x_edge[0] < 1.0 or y_edge[1] - y_edge[0] < 1.0:
        return _enlarged_means(corners, stride, x_place, y_place)
    at_corner = corners.take((y_place * stride)[:, None] + x_place, axis=1)
    rows = at_corner[:, 1:] - at_corner[:, :-1]
    cells = np.empty_like(rows)
    flat = rows.reshape(-1)
    np.subtract(flat[1:], flat[:-1], out=cells.reshape(-1)[:-1])
    cells[-1, -1, -1] = 0.0
    per_column = np.zeros(len(x_place), np.float32)
    per_column[:-1] = 1.0 / np.maximum(x_place[1:] - x_place[:-1], 1)
    per_row = (1.0 / np.maximum(y_place[1:] - y_place[:-1], 1)).astype(np.float32)
    cells *= per_row[:, None] * per_column
    return cells


def _texels_at(edge: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    place = np.floor(edge)
    np.maximum(place, 0.0, out=place)
    np.minimum(place, count - 1.0, out=place)
    return place.astype(np.intp)


def _enlarged_means(
    corners: Floats, stride: int, x_place: NDArray[np.intp], y_place: NDArray[np.intp]
) -> Floats:
    """`_box_means` where a texel is larger than a cell: each cell sees at least one texel."""
    x_low = np.minimum(x_place[:-1], stride - 2)
    y_low = np.minimum(y_place[:-1], corners.shape[1] // stride - 2)
    x_high, y_high = np.maximum(x_place[1:], x_low + 1), np.maximum(y_place[1:], y_low + 1)
    upper, lower = (y_low * stride)[:, None], (y_high * stride)[:, None]
    cells: Floats = corners.take(lower + x_high, axis=1) - corners.take(lower + x_low, axis=1)
    cells -= corners.take(upper + x_high, axis=1)
    cells += corners.take(upper + x_low, axis=1)
    cells *= (1.0 / (y_high - y_low)).astype(np.float32)[:, None]
    cells *= (1.0 / (x_high - x_low)).astype(np.float32)
    return cells


def _paint_panorama(
    canvas: Floats, look: CityLook, scenery: Scenery, pose: Pose, camera: Camera, air: _Air
) -> None:
    per_rad = PANORAMA_ROWS / (PANORAMA_HIGH_RAD - PANORAMA_LOW_RAD)
    y_edge = _COUNT[: camera.height_px + 1] * camera.y_step - HALF_HEIGHT_SLOPE + pose.pitch
    y_texel = (y_edge + PANORAMA_HIGH_RAD) * per_rad  # row 0 of the panorama is its top
    first = int(np.searchsorted(y_texel, 0.0))
    last = int(np.searchsorted(y_texel, PANORAMA_ROWS, side="right")) - 1
    if last <= first + 1:
        return
    per_turn = PANORAMA_BINS / (2.0 * np.pi)
    x_edge = _COUNT[: camera.width_px + 1] * camera.x_step - HALF_WIDTH_SLOPE + pose.yaw
    x_texel = (x_edge + pose.heading_rad) * per_turn % PANORAMA_BINS
    x_texel = x_texel[0] + np.arange(camera.width_px + 1) * (camera.x_step * per_turn)
    masks = _box_means(scenery.panorama, x_texel, y_texel[first : last + 1])
    clear = np.float32(np.exp(-90.0 / air.visibility_m))
    paints = np.stack(
        [np.asarray(c, np.float32) for c in (look.terrain_colour, look.skyline_colour)]
    )
    seen = paints * air.ambient * clear + air.haze * (1.0 - clear)
    lamp = np.array([1.0, 0.85, 0.5], np.float32) * clear if air.headlight > 0.2 else seen[1] * 0.8
    _lay(canvas[:, first:last], masks, _with_alpha(np.stack([seen[0], seen[1], lamp])))


def _with_alpha(colours: Floats) -> Floats:
    """Colours of materials [..., M, 3] as weights [..., 4, M] whose last row adds up the cover."""
    weights = np.ones((*colours.shape[:-2], 4, colours.shape[-2]), np.float32)
    weights[..., :3, :] = colours.swapaxes(-1, -2)
    return weights


def _lay(region: Floats, masks: Floats, weights: Floats) -> None:
    """Blends masks [M, h, w or more] by weights [4, M] over a region [3, h, w], in place."""
    paint = (weights @ masks.reshape(len(masks), -1)).reshape(4, *masks.shape[1:])
    paint = paint[:, :, : region.shape[2]]
    region *= np.float32(1.0) - paint[3]
    region += paint[:3]


def _paint_ground(
    canvas: Floats,
    drive: Drive,
    scenery: Scenery,
    pose: Pose,
    camera: Camera,
    down: Floats,
    air: _Air,
) -> None:
    top = max(int(np.searchsorted(down.max(axis=1), 0.25 * camera.y_step)), 0)
    down = down[top:]
    if down.size == 0:
        return
    depth_m = np.minimum(np.float32(EYE_M) / np.maximum(down, np.float32(0.003)), np.float32(FAR_M))
    bent = camera.x_slope + np.float32(pose.yaw) - np.float32(0.5 * pose.bend_per_m) * depth_m
    across_m = bent * depth_m + np.float32(pose.lateral_m)
    along_m = depth_m + np.float32(pose.along_m)
    foot_m = depth_m * depth_m * np.float32(camera.y_step / EYE_M / DASH_M)
    dash = _share_on(along_m * np.float32(1.0 / DASH_M), foot_m)
    colours = _section_colours(scenery, across_m, along_m, depth_m * np.float32(camera.x_step))
    ground = colours[:3] - colours[3:]
    ground *= dash
    ground += colours[3:]
    haze = air.haze[:, None, None]
    rain = np.float32(drive.weather.rain)
    if rain > 0.0:  # a wet road mirrors the sky, more so far away
        mirror = np.float32(0.45) * rain * np.clip(depth_m * np.float32(0.025), 0.0, 1.0)
        ground += (haze - ground) * (mirror + np.float32(0.08))
    ground *= air.ambient[:, None, None]
    if air.headlight > 0.0:
        beam = np.exp(depth_m * np.float32(-1.0 / 22.0)) * (air.headlight / air.ambient.mean())
        ground *= np.float32(1.0) + beam
    ground -= haze
    ground *= np.exp(depth_m * np.float32(-1.0 / air.visibility_m))
    ground += haze
    mixed = int(np.searchsorted(down.min(axis=1), camera.y_step))  # rows the horizon runs through
    cover = np.clip(down[:mixed] / np.float32(camera.y_step) + np.float32(0.5), 0.0, 1.0)
    region = canvas[:, top : top + mixed]
    region += (ground[:, :mixed] - region) * cover
    canvas[:, top + mixed :] = ground[:, mixed:]


def _share_on(phase: Floats, foot: Floats) -> Floats:
    """Share of a footprint that lies on a dash: a square wave of period 1, half on, averaged."""
    away = np.abs(phase - np.floor(phase) - np.float32(0.5))
    sharp = np.clip((np.float32(0.25) - away) / foot + np.float32(0.5), 0.0, 1.0)
    fade = np.clip(np.float32(1.4) - foot, 0.0, 1.0)
    mean = np.float32(0.5)
    return mean + (sharp - mean) * fade


def _section_colours(scenery: Scenery, across_m: Floats, along_m: Floats, foot_m: Floats) -> Floats:
    """Mean colours on and off a dash, [6, h, w], over each pixel's width of road."""
    bins = int(2.0 * HALF_SECTION_M / BIN_M)
    centre = (across_m + np.float32(HALF_SECTION_M)) * np.float32(1.0 / BIN_M)
    half = foot_m * np.float32(0.5 / BIN_M)
    low = np.clip(centre - half, 0.0, np.float32(bins - 1)).astype(np.intp)
    high = np.clip(centre + half + 0.5, 1.0, np.float32(bins)).astype(np.intp)
    np.maximum(high, low + 1, out=high)
    cell = np.minimum(
        (along_m * np.float32(1.0 / STEP_M)).astype(np.intp), len(scenery.section_kind) - 1
    )
    start = scenery.section_kind.take(cell) * (bins + 1)
    total = scenery.section.take(start + high, axis=0) - scenery.section.take(start + low, axis=0)
    colours = np.ascontiguousarray(total.transpose(2, 0, 1)[:6])
    colours *= np.float32(1.0) / (high - low).astype(np.float32)
    return colours


def _plane_depths(offset_m: float, pose: Pose, camera: Camera) -> tuple[Floats, NDArray[np.bool_]]:
    """Depth of the nearer of two planes beside a bent road per column, and whether it is the right.

    Where x = (D - x0) / Z + bend * Z / 2, the depth is a root of a quadratic.
    """
    x_slope = camera.x_slope + np.float32(pose.yaw)
    depths = []
    for sign in (-1.0, 1.0):
        gap_m = max(offset_m - sign * pose.lateral_m, 0.5)
        outward, bend = x_slope * sign, pose.bend_per_m * sign
        inside = outward * outward - np.float32(2.0 * bend * gap_m)
        root = np.sqrt(np.maximum(inside, 0.0)) + outward
        hit = (inside >= 0.0) & (root > 2.0 * gap_m / FAR_M)
        depths.append(np.where(hit, 2.0 * gap_m / np.maximum(root, 1e-4), FAR_M).astype(np.float32))
    right = depths[1] < depths[0]
    return np.where(right, depths[1], depths[0]), right


def _side_means(
    sums: NDArray[np.float64], pose: Pose, depth_m: Floats, right: NDArray[np.bool_], camera: Camera
) -> Floats:
    """Mean of each tabulated row [R, W] over the stretch of roadside that each column sees."""
    count = sums.shape[1] // 2
    half_m = 0.5 * depth_m * depth_m * np.float32(camera.x_step / WALL_M)
    low = np.clip((pose.along_m + depth_m - half_m) / STEP_M, 0, count - 2).astype(np.intp)
    high = np.clip((pose.along_m + depth_m + half_m) / STEP_M + 0.5, 1, count - 1).astype(np.intp)
    np.maximum(high, low + 1, out=high)
    side = right * count
    total = sums.take(high + side, axis=1) - sums.take(low + side, axis=1)
    return (total / (high - low)).astype(np.float32)


def _paint_walls(
    canvas: Floats,
    drive: Drive,
    scenery: Scenery,
    pose: Pose,
    camera: Camera,
    down: Floats,
    air: _Air,
) -> Floats:
    depth_m, right = _plane_depths(WALL_M, pose, camera)
    rows = _side_means(scenery.walls, pose, depth_m, right, camera)
    window, eave_m, top_m, storey_m = rows[9], rows[10], rows[11], np.maximum(rows[12], 2.0)
    solid_m: Floats = np.where(top_m > 2.0, depth_m, np.float32(FAR_M))
    built = np.flatnonzero(top_m > 0.0)
    if len(built) == 0:
        return solid_m
    columns = slice(int(built[0]), int(built[-1]) + 1)
    first, last = _rows_between(down, float(((EYE_M - top_m) / depth_m).min()), EYE_M / 6.0)
    depth_m, rows = depth_m[columns], rows[:, columns]
    window, eave_m, top_m, storey_m = (
        window[columns],
        eave_m[columns],
        top_m[columns],
        storey_m[columns],
    )
    height_m = np.float32(EYE_M) - down[first:last, columns] * depth_m
    per_m = 1.0 / (np.float32(camera.y_step) * depth_m)
    cover = np.clip((top_m - height_m) * per_m + 0.5, 0.0, 1.0)
    cover *= np.clip(height_m * per_m + 0.5, 0.0, 1.0) * (depth_m < FAR_M * 0.98)
    roof = np.clip((height_m - eave_m) * per_m + 0.5, 0.0, 1.0)
    shop = np.clip((np.float32(3.0) - height_m) * per_m + 0.5, 0.0, 1.0)
    pane = _share_on(height_m / storey_m + np.float32(0.05), 1.0 / (per_m * storey_m))
    pane *= window * (1.0 - roof) * (1.0 - shop)
    lit = air.lit(rows[:9].reshape(3, 3, -1).transpose(0, 2, 1), depth_m)
    lit = np.ascontiguousarray(lit.transpose(0, 2, 1))
    glass = _glass(drive, depth_m, air)
    wall, roofs, shops = lit[:, :, None, :]
    paint = (roofs - wall) * roof
    paint += (shops - wall) * shop
    paint += (glass[:, None, :] - wall) * pane
    paint += wall
    region = canvas[:, first:last, columns]
    paint -= region
    paint *= cover
    region += paint
    return solid_m


def _rows_between(down: Floats, upper: float, lower: float) -> tuple[int, int]:
    """Half-open range of rows that hold any pixel between two slopes below the horizon."""
    first = int(np.searchsorted(down[:, 0] + np.abs(down[0, 0] - down[0, -1]), upper - 0.02))
    last = int(np.searchsorted(down[:, 0] - np.abs(down[0, 0] - down[0, -1]), lower + 0.02)) + 1
    return min(max(first, 0), len(down) - 1), min(last, len(down))


def _glass(drive: Drive, depth_m: Floats, air: _Air) -> Floats:
    """Colour of windows [3, W]: dark by day, lit at night."""
    night = drive.weather.sky in ("night", "dusk")
    colour = np.array([1.0, 0.8, 0.42] if night else [0.20, 0.25, 0.31], np.float32)
    if not night:
        day = air.lit(np.broadcast_to(colour, (len(depth_m), 3)), depth_m)
        return np.ascontiguousarray(day.T)
    clear = np.exp(depth_m * np.float32(-1.0 / air.visibility_m))[:, None]
    return np.ascontiguousarray((colour * np.float32(0.85) * clear + air.haze * (1.0 - clear)).T)


def _paint_fences(
    canvas: Floats, scenery: Scenery, pose: Pose, camera: Camera, down: Floats, air: _Air
) -> None:
    depth_m, right = _plane_depths(FENCE_M, pose, camera)
    rows = _side_means(scenery.fences, pose, depth_m, right, camera)
    low_m, high_m, opacity = rows[3:]
    shown = np.flatnonzero(opacity)
    if len(shown) == 0:
        return
    columns = slice(int(shown[0]), int(shown[-1]) + 1)
    depth_m, rows = depth_m[columns], rows[:, columns]
    low_m, high_m, opacity = rows[3:]
    first, last = _rows_between(down, float(((EYE_M - high_m) / depth_m).min()), EYE_M / 4.0)
    height_m = np.float32(EYE_M) - down[first:last, columns] * depth_m
    per_m = 1.0 / (np.float32(camera.y_step) * depth_m)
    cover = np.clip((high_m - height_m) * per_m + 0.5, 0.0, 1.0)
    cover *= np.clip((height_m - low_m) * per_m + 0.5, 0.0, 1.0)
    cover *= opacity * (depth_m < FAR_M * 0.98)
    colour = np.ascontiguousarray(air.lit(rows[:3].T, depth_m).T)[:, None, :]
    region = canvas[:, first:last, columns]
    region += (colour - region) * cover


def _paint_things(
    canvas: Floats,
    things: Things,
    along_m: Floats,
    pose: Pose,
    camera: Camera,
    wall_depth_m: Floats,
    air: _Air,
) -> None:
    """Upright things from far to near, hidden where a bend puts a facade before them."""
    ahead_m = along_m - np.float32(pose.along_m)
    pick = np.flatnonzero((ahead_m > 1.3) & (ahead_m < SEEN_M))
    pick = pick[np.argsort(-ahead_m[pick], kind="stable")]
    depth_m = ahead_m[pick]
    seen = air.lit(things.colours[pick], np.repeat(depth_m[:, None], 3, axis=1))
    fade = np.clip((SEEN_M - depth_m) / 20.0, 0.0, 1.0) * np.clip((depth_m - 1.2) / 0.8, 0.0, 1.0)
    per_m = 1.0 / depth_m
    slope = (things.lateral_m[pick] - pose.lateral_m) * per_m + 0.5 * pose.bend_per_m * depth_m
    slope -= np.float32(pose.yaw)
    x_px = (slope + HALF_WIDTH_SLOPE) / camera.x_step
    half_px = 0.5 * things.width_m[pick] * per_m / camera.x_step
    level = -pose.pitch + pose.roll * slope + HALF_HEIGHT_SLOPE
    low_px = (level + EYE_M * per_m) / camera.y_step
    high_px = low_px - things.height_m[pick] * per_m / camera.y_step
    weights = _with_alpha(seen) * fade[:, None, None].astype(np.float32)
    boxes = np.stack([x_px - half_px, x_px + half_px, high_px, low_px], axis=1).tolist()
    sprites, depths = things.sprite[pick].tolist(), depth_m.tolist()
    farthest_m = float(wall_depth_m.min()) if pose.bend_per_m else FAR_M
    for item, box in enumerate(boxes):
        hidden = wall_depth_m < depths[item] if depths[item] > farthest_m else None
        _paint_sprite(canvas, sprites[item], box, weights[item], hidden)


def _paint_sprite(
    canvas: Floats,
    sprite: int,
    box_px: list[float],
    weights: Floats,
    hidden: NDArray[np.bool_] | None,
) -> None:
    left, right, top, bottom = box_px
    x_first, x_last = max(int(left), 0), min(int(right) + 1, canvas.shape[2])
    y_first, y_last = max(int(top), 0), min(int(bottom) + 1, canvas.shape[1])
    if x_first >= x_last or y_first >= y_last:
        return
    sums = sprite_sums(SPRITES[sprite])
    texels = sums.shape[1] - 1
    x_scale, y_scale = texels / (right - left), texels / (bottom - top)
    x_edge = _COUNT[x_first : x_last + 1] * x_scale - left * x_scale
    y_edge = _COUNT[y_first : y_last + 1] * y_scale - top * y_scale
    masks = _box_means(sums, x_edge, y_edge)
    if hidden is not None:
        masks[:, :, : x_last - x_first] *= ~hidden[x_first:x_last]
    _lay(canvas[:, y_first:y_last, x_first:x_last], masks, weights)


_COUNT = np.arange(4097, dtype=np.float64)


def _paint_bridges(canvas: Floats, scenery: Scenery, pose: Pose, camera: Camera) -> None:
    """A bridge over the road: a dark band on the way to it, near darkness beneath it."""
    for bridge_m in scenery.bridges_m.tolist():
        ahead_m = bridge_m - pose.along_m
        if 1.0 < ahead_m < SEEN_M:
            level = HALF_HEIGHT_SLOPE - pose.pitch
            top_px = (level - 6.2 / ahead_m) / camera.y_step
            bottom_px = (level - 3.6 / ahead_m) / camera.y_step
            rows = np.arange(camera.height_px, dtype=np.float32)
            cover = np.clip(bottom_px - rows, 0.0, 1.0) * np.clip(rows + 1.0 - top_px, 0.0, 1.0)
            cover *= min((SEEN_M - ahead_m) / 20.0, 1.0)
            canvas += (np.float32(0.22) - canvas) * cover[:, None].astype(np.float32)
        elif -16.0 < ahead_m <= 1.0:
            depth = min(1.0 - ahead_m, ahead_m + 16.0, 2.0) / 2.0
            canvas *= np.float32(1.0 - 0.86 * depth)


def pass_lens(canvas: Floats, drive: Drive, pose: Pose, camera: Camera) -> None:
    """Adds what lies between the scene and the sensor: glare, rain, wiper and bonnet."""
    phase, colour = _lens_draws(drive.seed)
    if drive.weather.sky in ("clear", "dusk"):
        _add_glare(canvas, pose, camera, phase)
    if drive.weather.rain > 0.0:
        _add_rain(canvas, drive, pose, camera)
        _add_wiper(canvas, pose, camera, phase)
    _add_bonnet(canvas, colour, drive, camera, phase)


@lru_cache(maxsize=16)
def _lens_draws(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eight phases and the colour of the bonnet."""
    rng = np.random.default_rng([seed, 5])
    shade = rng.uniform(0.06, 0.75)
    return rng.uniform(0.0, 2.0 * np.pi, 8), np.clip(shade + rng.normal(0.0, 0.08, 3), 0.03, 0.85)


def _add_glare(canvas: Floats, pose: Pose, camera: Camera, phase: NDArray[np.float64]) -> None:
    """The low sun in the lens for a second or two now and then."""
    strength = np.sin(pose.time_s * 0.9 + phase[0]) + np.sin(pose.time_s * 0.37 + phase[1]) - 1.1
    if strength <= 0.0:
        return
    x = (camera.x_slope - 0.4 * np.cos(phase[2])) / 0.55
    y = (camera.y_slope + 0.12) / 0.4
    glow = np.exp(-(y**2))[:, None] * np.exp(-(x**2))[None, :]
    glow *= np.float32(min(strength * 1.6, 0.95))
    canvas += (np.array([1.0, 0.96, 0.85], np.float32)[:, None, None] - canvas) * glow


def _add_rain(canvas: Floats, drive: Drive, pose: Pose, camera: Camera) -> None:
    """Streaks on a coarse grid of the view, so that they are the same at every frame size."""
    draws = _coarse(drive.seed + int(pose.time_s * 30.0), 20, 160)
    streaks = (draws > np.float32(2.6 - drive.weather.rain)) * np.float32(0.2)
    veil = _enlarge(streaks, camera)
    canvas += (np.float32(0.9 * max(drive.weather.haze)) - canvas) * veil


def _add_wiper(canvas: Floats, pose: Pose, camera: Camera, phase: NDArray[np.float64]) -> None:
    """A blade that sweeps the view once in two seconds."""
    swing = np.sin(pose.time_s * np.pi + phase[3])
    slant = np.float32(2.2 * swing)
    away = camera.x_slope[None, :] - slant * (np.float32(0.55) - camera.y_slope[:, None])
    cover = np.clip((np.float32(0.035) - np.abs(away)) / np.float32(camera.x_step) + 0.5, 0.0, 1.0)
    canvas += (np.float32(0.05) - canvas) * cover


def _add_bonnet(
    canvas: Floats,
    colour: NDArray[np.float64],
    drive: Drive,
    camera: Camera,
    phase: NDArray[np.float64],
) -> None:
    """The front of the own car at the lower edge; grey-blue to red, whatever the city."""
    centre = 0.08 * np.cos(phase[5])
    edge = 0.335 + 0.04 * np.sin(phase[6]) + 0.18 * (camera.x_slope - centre) ** 2
    first = int(0.78 * camera.height_px)
    below = (camera.y_slope[first:, None] - edge[None, :].astype(np.float32)) / camera.y_step
    cover = np.clip(below + 0.5, 0.0, 1.0).astype(np.float32)
    ambient = np.asarray(drive.weather.ambient)
    gleam = np.clip(1.15 - 4.0 * (camera.y_slope[first:, None] - edge[None, :]), 0.55, 1.15)
    paint = ((colour * ambient)[:, None, None] * gleam).astype(np.float32)
    region = canvas[:, first:]
    region += (paint - region) * cover


def develop(
    canvas: Floats, drive: Drive, pose: Pose, camera: Camera, out_HWC: NDArray[np.uint8]
) -> None:
    """Exposure, vignette, sensor noise and the blocks of a camera's own compression, to 8 bits."""
    weather = drive.weather
    drift = (
        1.0 + 0.05 * np.sin(pose.time_s * 0.8 + drive.seed % 7) + 0.03 * np.sin(pose.time_s * 2.1)
    )
    canvas *= camera.vignette * np.float32(255.0 * weather.exposure * drift)
    moment = drive.seed + int(pose.time_s * 1000.0)
    # A small frame is a large one averaged, and so is its noise: 640 x 360 is the reference.
    size = min((camera.height_px * camera.width_px / (640.0 * 360.0)) ** 0.5, 1.0)
    grain = _grain(camera.height_px, camera.width_px)
    y_start, x_start = moment * 7 % 499, moment * 13 % 509  # any steps that do not soon repeat
    noise = grain[y_start : y_start + camera.height_px, x_start : x_start + camera.width_px]
    noise = noise * np.float32(weather.noise * size)
    noise += _enlarge(_coarse(moment, 45, 80) * np.float32(0.35 * weather.noise), camera)
    noise += np.float32(0.5)
    canvas += noise
    np.clip(canvas, 0.0, 255.0, out=canvas)
    out_HWC[...] = canvas.astype(np.uint8).transpose(1, 2, 0)


@lru_cache(maxsize=4)
def _grain(height_px: int, width_px: int) -> Floats:
    """Normal noise a little larger than a frame, so that each frame can take another part of it."""
    base = np.random.default_rng(11).standard_normal((512, 512), dtype=np.float32)
    return np.tile(base, (height_px // 512 + 2, width_px // 512 + 2))


def _coarse(moment: int, rows: int, columns: int) -> Floats:
    """Normal noise on a coarse grid over the view, another at every moment."""
    y_start, x_start = moment * 5 % 499, moment * 11 % 509
    return _grain(512, 512)[y_start : y_start + rows, x_start : x_start + columns]


def _enlarge(coarse: Floats, camera: Camera) -> Floats:
    """A coarse grid stretched over a frame, the same share of the view at every frame size."""
    rows = np.arange(camera.height_px) * coarse.shape[0] // camera.height_px
    columns = np.arange(camera.width_px) * coarse.shape[1] // camera.width_px
    return coarse.take(rows, axis=0).take(columns, axis=1)


def burn_line(canvas: Floats, text: str) -> None:
    """Burns a line of text into the lower left corner of a frame [3, H, W] in place."""
    sums = draw_text(text)
    height_px, width_px = canvas.shape[1:]
    bottom, tall = 0.985 * height_px, 0.05 * height_px
    wide = tall * (sums.shape[2] - 1) / (sums.shape[1] - 1) * (width_px * 9.0) / (height_px * 16.0)
    top, left = bottom - tall, 0.015 * width_px
    y_first, y_last = int(top), min(int(bottom) + 1, height_px)
    x_first, x_last = int(left), min(int(left + wide) + 1, width_px)
    x_edge = (np.arange(x_first, x_last + 1) - left) * ((sums.shape[2] - 1) / wide)
    y_edge = (np.arange(y_first, y_last + 1) - top) * ((sums.shape[1] - 1) / tall)
    masks = _box_means(sums, x_edge, y_edge)
    weights = _with_alpha(np.array([(0.95, 0.95, 0.9), (0.0, 0.0, 0.0)], np.float32))
    _lay(canvas[:, y_first:y_last, x_first:x_last], masks, weights)


SPRITES: tuple[str, ...] = (
    "round", "palm", "conifer", "cypress", "umbrella", "agave", "fern", "bush",
    "lamp", "banner", "diamond", "triangle", "disc", "board", "gantry",
    "car back", "car front", "truck back", "truck front", "bus front",
)  # fmt: skip
"""Names of the flat shapes; a thing refers to one by its index."""

_TEXELS = 128
_TREES = SPRITES[:8]


@lru_cache(maxsize=len(SPRITES))
def sprite_sums(name: str) -> Floats:
    """Summed areas [3, 129, 129] of the three materials of a shape.

    The materials are light leaf, dark leaf, trunk of plants; fill, border, pole of signs; body,
    glass, plate of vehicles. A clear margin lets the edge of the box be cut anywhere.
    """
    grid = (np.arange(_TEXELS) + 0.5) / _TEXELS
    x, y = np.meshgrid((grid - 0.5) * 2.08, 1.04 * (1.0 - grid) - 0.02)  # y runs up from the ground
    if name in _TREES:
        light, dark, trunk = _draw_plant(name, x, y)
        masks = np.stack([light, dark & ~light, trunk & ~light & ~dark])
    elif name in ("lamp", "banner", "gantry"):
        masks = np.stack(_draw_post(name, x, y))
    elif name in ("diamond", "triangle", "disc", "board"):
        masks = np.stack(_draw_sign(name, x, y))
    else:
        masks = np.stack(_draw_vehicle(name, x, y))
    return sum_areas(masks.astype(np.float32))


def sum_areas(masks: Floats) -> Floats:
    """Summed areas [M, h + 1, w + 1] of masks [M, h, w]; exact for halves, far below 2**24."""
    sums = np.zeros((masks.shape[0], masks.shape[1] + 1, masks.shape[2] + 1), np.float32)
    sums[:, 1:, 1:] = masks.cumsum(axis=1, dtype=np.float32).cumsum(axis=2, dtype=np.float32)
    return sums


Mask = NDArray[np.bool_]
Grid = NDArray[np.float64]


def _draw_plant(name: str, x: Grid, y: Grid) -> tuple[Mask, Mask, Mask]:
    """Masks of the lit leaves, of all leaves and of the trunk."""

    def blob(at_x: float, at_y: float, wide: float, tall: float) -> Mask:
        return ((x - at_x) / wide) ** 2 + ((y - at_y) / tall) ** 2 < 1.0

    trunk = (np.abs(x) < 0.09) & (y > 0.0) & (y < 0.5)
    if name == "round":
        dark = blob(0, 0.68, 0.8, 0.3) | blob(-0.45, 0.55, 0.5, 0.2) | blob(0.45, 0.58, 0.5, 0.22)
        return blob(-0.2, 0.76, 0.5, 0.18) | blob(-0.5, 0.58, 0.3, 0.1), dark, trunk
    if name == "conifer":
        tiers = np.clip(y - 0.12, 0.0, 1.0) / 0.88
        edge = 0.92 * (1.0 - tiers) * (0.72 + 0.28 * (1.0 - (tiers * 4.0) % 1.0))
        dark = (np.abs(x) < edge) & (y > 0.12) & (y < 1.0)
        return dark & (x < -0.1 * edge) & ((tiers * 4.0) % 1.0 > 0.35), dark, trunk
    if name == "cypress":
        dark = blob(0, 0.53, 0.85, 0.46)
        return blob(-0.25, 0.56, 0.4, 0.36), dark, (np.abs(x) < 0.15) & (y > 0.0) & (y < 0.12)
    if name == "umbrella":
        dark = blob(0, 0.8, 0.98, 0.15) | blob(-0.5, 0.74, 0.45, 0.1) | blob(0.5, 0.76, 0.45, 0.1)
        fork = (np.abs(np.abs(x) - np.clip(y - 0.35, 0, 1) * 1.1) < 0.06) & (y > 0.3) & (y < 0.75)
        return blob(-0.1, 0.86, 0.75, 0.07), dark, trunk | fork
    if name == "bush":
        dark = blob(0, 0.35, 0.95, 0.6) & (y > 0.0)
        return blob(-0.25, 0.5, 0.5, 0.3), dark, np.zeros_like(dark)
    return _draw_fronds(name, x, y)


def _draw_fronds(name: str, x: Grid, y: Grid) -> tuple[Mask, Mask, Mask]:
    """Palms, tree ferns and agaves: leaves that spread from one point and droop."""
    root, reach, droop, spread, thick = {
        "palm": (0.78, 0.95, 0.55, 7, 0.055),
        "fern": (0.62, 0.98, 0.9, 9, 0.10),
        "agave": (0.02, 0.95, 0.1, 9, 0.07),
    }[name]
    light, dark = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
    for number, angle in enumerate(np.linspace(0.12, np.pi - 0.12, spread)):
        ahead = x * np.sign(np.cos(angle) + 1e-9)
        bold = max(abs(np.cos(angle)), 0.18)
        along = ahead / (bold * reach)
        ridge = root + 0.36 * np.sin(angle) * along * 1.6 - droop * 0.42 * bold * along**2
        if name == "agave":
            ridge = root + 0.95 * np.sin(angle) * along
        width = thick * np.clip(1.15 - along, 0.0, 1.0) * (1.6 if bold < 0.3 else 1.0)
        leaf = (np.abs(y - ridge) < width / (0.6 + 0.4 * bold)) & (along > -0.05) & (along < 1.0)
        dark |= leaf
        if number % 2 == 0:
            light |= leaf
    slender = {"palm": 0.055, "fern": 0.1, "agave": 0.02}[name]
    return light, dark, (np.abs(x) < slender) & (y > 0.0) & (y < root)


def _draw_post(name: str, x: Grid, y: Grid) -> tuple[Mask, Mask, Mask]:
    if name == "gantry":
        panel = (np.abs(np.abs(x) - 0.36) < 0.31) & (y > 0.66) & (y < 0.98)
        text = panel & (np.abs(np.abs(x) - 0.36) < 0.2) & (np.abs((y - 0.66) % 0.16 - 0.08) < 0.028)
        steel = (np.abs(np.abs(x) - 0.95) < 0.03) & (y > 0.0) & (y < 0.86)
        steel |= (np.abs(x) < 0.97) & (np.abs(y - 0.82) < 0.03)
        return panel & ~text, text, steel & ~panel
    pole = (np.abs(x) < 0.06) & (y > 0.0) & (y < 0.97)
    if name == "lamp":
        arm = (x > -0.8) & (x < 0.06) & (np.abs(y - 0.95) < 0.018)
        head = (x > -0.9) & (x < -0.45) & (np.abs(y - 0.935) < 0.025)
        return head, np.zeros_like(head), (pole | arm) & ~head
    upper = (np.abs(np.abs(x) - 0.52) < 0.42) & (y > 0.66) & (y < 0.93)
    lower = (np.abs(np.abs(x) - 0.52) < 0.42) & (y > 0.39) & (y <= 0.66)
    return upper, lower, pole


def _draw_sign(name: str, x: Grid, y: Grid) -> tuple[Mask, Mask, Mask]:
    """Sign plates take the upper half of their box, which is twice as high as wide."""
    across, up = x, (y - 0.73) * 4.0
    size = {
        "diamond": np.abs(across) + np.abs(up),
        "triangle": np.maximum(-up * 1.15, 0.5 * up + 0.95 * np.abs(across)) * 1.25 + 0.1,
        "disc": np.hypot(across, up),
        "board": np.maximum(np.abs(across) * 1.25, np.abs(up)),
    }[name]
    plate, fill = size < 1.0, size < {"disc": 0.72, "triangle": 0.62}.get(name, 0.84)
    symbol = (np.abs(across) < 0.11) & (np.abs(up) < 0.36) & fill
    pole = (np.abs(x) < 0.07) & (y > 0.0) & (y < 0.6) & ~plate
    return fill & ~symbol, (plate & ~fill) | symbol, pole


def _draw_vehicle(name: str, x: Grid, y: Grid) -> tuple[Mask, Mask, Mask]:
    wheels = (np.abs(np.abs(x) - 0.72) < 0.2) & (y > 0.0) & (y < 0.2)
    if name.startswith("car"):
        cabin_edge = 0.96 - 0.45 * np.clip((y - 0.55) / 0.45, 0.0, 1.0)
        body = (np.abs(x) < cabin_edge) & (y > 0.12) & (y < 1.0)
        glass = (np.abs(x) < cabin_edge - 0.14) & (y > 0.6) & (y < 0.92)
        plate = (np.abs(x) < 0.34) & (y > 0.26) & (y < 0.42)
    else:
        body = (np.abs(x) < 0.97) & (y > 0.1) & (y < 1.0)
        low, high = {"truck back": (0.1, 0.16), "truck front": (0.36, 0.56)}.get(name, (0.4, 0.78))
        glass = (np.abs(x) < 0.86) & (y > low) & (y < high)
        plate = (np.abs(x) < 0.26) & (y > 0.17) & (y < 0.25)
    if name.endswith("front"):
        glass |= (np.abs(x) < 0.4) & (y > 0.44) & (y < 0.5) & (name == "car front")
    return body & ~glass & ~plate, (glass | (wheels & ~body)) & ~plate, plate


@lru_cache(maxsize=64)
def draw_text(text: str) -> Floats:
    """Summed areas [2, 10, 6 n + 4] of the letters and of the half-clear box behind them."""
    ink = np.zeros((9, 6 * len(text) + 3), np.float32)
    glyphs = _glyphs()
    for position, letter in enumerate(text):
        if letter in glyphs:
            ink[1:8, 2 + 6 * position : 7 + 6 * position] = glyphs[letter]
    return sum_areas(np.stack([ink, (1.0 - ink) * np.float32(0.5)]))


@lru_cache(maxsize=1)
def _glyphs() -> dict[str, NDArray[np.uint8]]:
    rows = {letter: np.frombuffer(bytes.fromhex(text), np.uint8) for letter, text in _FONT.items()}
    return {letter: np.unpackbits(bits[:, None], axis=1)[:, 3:] for letter, bits in rows.items()}


_FONT = {
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808",
    "8": "0e11110e11110e", "9": "0e11110f01020c", ":": "000c0c000c0c00", "-": "0000001f000000",
    "R": "1e11111e141211", "E": "1f10101e10101f", "N": "11191513111111", "D": "1e11111111111e",
}  # fmt: skip
"""Seven rows of five pixels a letter, as hexadecimal bytes; letters not here stay blank."""
