"""What comes between the scene and the file: glare, rain, wiper, bonnet, sensor, burnt-in line."""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats, add_alpha, paint_box, sum_areas
from train.data.view import Camera, View, share_covered


def pass_lens(canvas: Floats, view: View, seed: int) -> None:
    """Adds to a frame, in place, what lies between the scene and the sensor."""
    phase, colour = _lens_draws(seed)
    if view.weather.sky in ("clear", "dusk"):
        _add_glare(canvas, view, phase)
    if view.weather.rain > 0.0:
        _add_rain(canvas, view, seed)
        _add_wiper(canvas, view, phase)
    _add_bonnet(canvas, view, colour, phase)


def burn_line(canvas: Floats, text: str) -> None:
    """Burns a line of text into the lower left corner of a frame [3, H, W] in place."""
    sums = _draw_text(text)
    height_px, width_px = canvas.shape[1:]
    bottom, tall = 0.985 * height_px, 0.05 * height_px
    wide = tall * (sums.shape[2] - 1) / (sums.shape[1] - 1) * (width_px * 9.0) / (height_px * 16.0)
    left = 0.015 * width_px
    weights = add_alpha(np.array([(0.95, 0.95, 0.9), (0.0, 0.0, 0.0)], np.float32))
    paint_box(canvas, sums, (left, left + wide, bottom - tall, bottom), weights)


def develop(canvas: Floats, view: View, seed: int, out_HWC: NDArray[np.uint8]) -> None:
    """Exposure, vignette, sensor noise and the blocks of a camera's own compression, to 8 bits."""
    weather, camera, time_s = view.weather, view.camera, view.pose.time_s
    drift = 1.0 + 0.05 * np.sin(time_s * 0.8 + seed % 7) + 0.03 * np.sin(time_s * 2.1)
    canvas *= camera.vignette * np.float32(255.0 * weather.exposure * drift)
    moment = seed + int(time_s * 1000.0)
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


@lru_cache(maxsize=16)
def _lens_draws(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eight phases and the colour of the bonnet."""
    rng = np.random.default_rng([seed, 5])
    shade = rng.uniform(0.06, 0.75)
    return rng.uniform(0.0, 2.0 * np.pi, 8), np.clip(shade + rng.normal(0.0, 0.08, 3), 0.03, 0.85)


def _add_glare(canvas: Floats, view: View, phase: NDArray[np.float64]) -> None:
    """The low sun in the lens for a second or two now and then."""
    time_s, camera = view.pose.time_s, view.camera
    strength = np.sin(time_s * 0.9 + phase[0]) + np.sin(time_s * 0.37 + phase[1]) - 1.1
    if strength <= 0.0:
        return
    x = (camera.x_slope - 0.4 * np.cos(phase[2])) / 0.55
    y = (camera.y_slope + 0.12) / 0.4
    glow = np.exp(-(y**2))[:, None] * np.exp(-(x**2))[None, :]
    glow *= np.float32(min(strength * 1.6, 0.95))
    canvas += (np.array([1.0, 0.96, 0.85], np.float32)[:, None, None] - canvas) * glow


def _add_rain(canvas: Floats, view: View, seed: int) -> None:
    """Streaks on a coarse grid of the view, so that they are the same at every frame size."""
    draws = _coarse(seed + int(view.pose.time_s * 30.0), 20, 160)
    streaks = (draws > np.float32(2.6 - view.weather.rain)) * np.float32(0.2)
    veil = _enlarge(streaks, view.camera)
    canvas += (np.float32(0.9 * max(view.weather.haze)) - canvas) * veil


def _add_wiper(canvas: Floats, view: View, phase: NDArray[np.float64]) -> None:
    """A blade that sweeps the view once in two seconds."""
    camera = view.camera
    slant = np.float32(2.2 * np.sin(view.pose.time_s * np.pi + phase[3]))
    away = camera.x_slope[None, :] - slant * (np.float32(0.55) - camera.y_slope[:, None])
    cover = share_covered((np.float32(0.035) - np.abs(away)) / np.float32(camera.x_step))
    canvas += (np.float32(0.05) - canvas) * cover


def _add_bonnet(
    canvas: Floats, view: View, colour: NDArray[np.float64], phase: NDArray[np.float64]
) -> None:
    """The front of the own car at the lower edge; grey-blue to red, whatever the city."""
    camera = view.camera
    centre = 0.08 * np.cos(phase[5])
    edge = 0.335 + 0.04 * np.sin(phase[6]) + 0.18 * (camera.x_slope - centre) ** 2
    first = int(0.78 * camera.height_px)
    below = (camera.y_slope[first:, None] - edge[None, :].astype(np.float32)) / camera.y_step
    cover = share_covered(below).astype(np.float32)
    ambient = np.asarray(view.weather.ambient)
    gleam = np.clip(1.15 - 4.0 * (camera.y_slope[first:, None] - edge[None, :]), 0.55, 1.15)
    paint = ((colour * ambient)[:, None, None] * gleam).astype(np.float32)
    region = canvas[:, first:]
    region += (paint - region) * cover


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


@lru_cache(maxsize=64)
def _draw_text(text: str) -> Floats:
    """Summed areas [2, 10, 6 n + 4] of the letters and of the half-clear box behind them."""
    ink = np.zeros((9, 6 * len(text) + 3), np.float32)
    glyphs = _glyphs()
    for position, letter in enumerate(text):
        if letter in glyphs:
            ink[1:8, 2 + 6 * position : 7 + 6 * position] = glyphs[letter]
    return sum_areas(np.stack([ink, (1.0 - ink) * np.float32(0.5)]))


@cache
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
