"""What lies beyond the roadside: the sky with its clouds, and the hills and skyline of a city."""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats, add_alpha, blend, mean_boxes, sum_areas
from train.data.looks import CityLook, city_looks
from train.data.view import HALF_HEIGHT_SLOPE, HALF_WIDTH_SLOPE, View

BINS = 1024  # around the whole horizon
ROWS = 64
LOW_RAD = -0.02
HIGH_RAD = 0.32


def paint_sky(view: View) -> Floats:
    """A new frame [3, H, W] that holds nothing but sky."""
    weather, pose, camera = view.weather, view.pose, view.camera
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


def paint_panorama(canvas: Floats, view: View, panorama: Floats, city_id: int) -> None:
    """Paints the hills and the skyline of a city, from `draw_panorama`, into a frame in place."""
    pose, camera, air = view.pose, view.camera, view.air
    per_rad = ROWS / (HIGH_RAD - LOW_RAD)
    y_edge = np.arange(camera.height_px + 1.0) * camera.y_step - HALF_HEIGHT_SLOPE + pose.pitch
    y_texel = (y_edge + HIGH_RAD) * per_rad  # row 0 of the panorama is its top
    first = int(np.searchsorted(y_texel, 0.0))
    last = int(np.searchsorted(y_texel, ROWS, side="right")) - 1
    if last <= first + 1:
        return
    per_turn = BINS / (2.0 * np.pi)
    x_start = (pose.yaw - HALF_WIDTH_SLOPE + pose.heading_rad) * per_turn % BINS
    x_texel = x_start + np.arange(camera.width_px + 1.0) * (camera.x_step * per_turn)
    masks = mean_boxes(panorama, x_texel, y_texel[first : last + 1])
    clear = np.float32(np.exp(-90.0 / air.visibility_m))
    look = city_looks()[city_id]
    paints = np.array([look.terrain_colour, look.skyline_colour], np.float32)
    hills, town = paints * air.ambient * clear + air.haze * (1.0 - clear)
    lamps = np.array([1.0, 0.85, 0.5], np.float32) * clear if air.headlight > 0.2 else town * 0.8
    blend(canvas[:, first:last], masks, add_alpha(np.stack([hills, town, lamps])))


@lru_cache(maxsize=32)
def draw_panorama(city_id: int) -> Floats:
    """Summed areas [3, ROWS + 1, BINS * 5 / 4 + 1] of the hills, skyline and lights of a city.

    They go once round and on for another quarter, so that no view wraps.
    """
    look = city_looks()[city_id]
    rng = np.random.default_rng([city_id, 9])
    turn_deg = np.arange(BINS) * 360.0 / BINS
    up_deg = np.degrees(HIGH_RAD - (np.arange(ROWS) + 0.5) * (HIGH_RAD - LOW_RAD) / ROWS)
    hills = _hills_deg(look, turn_deg, rng)[None, :] > up_deg[:, None]
    town = _skyline_deg(look, turn_deg, rng)[None, :] > up_deg[:, None]
    lights = town & (rng.random((ROWS, BINS)) < 0.3) & (np.arange(ROWS) % 3 > 0)[:, None]
    masks = np.stack([hills & ~town, town & ~lights, lights]).astype(np.float32)
    return sum_areas(np.concatenate([masks, masks[:, :, : BINS // 4]], axis=2))


@cache
def _cloud_texture() -> Floats:
    """[128, 1024] soft patches in [0, 1], the same in every sky; the weather slides them."""
    rng = np.random.default_rng(7)
    spectrum = np.fft.rfft2(rng.standard_normal((128, 1024)))
    tall, wide = np.fft.fftfreq(128)[:, None] * 0.5, np.fft.rfftfreq(1024)[None, :]
    field = np.fft.irfft2(spectrum * np.exp(-((tall**2 + wide**2) * 3500.0)), s=(128, 1024))
    return np.clip(field / field.std() * 0.5, 0.0, 1.0).astype(np.float32)


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
