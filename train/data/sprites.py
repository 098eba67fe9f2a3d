"""The flat shapes that stand along the road: plants, posts, signs and vehicles.

Each is three masks, drawn once in a box that the shape fills, x from -1 to 1 and y up from 0 to 1.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats, sum_areas

Mask = NDArray[np.bool_]
Grid = NDArray[np.float64]


SPRITES: tuple[str, ...] = (
    "round", "palm", "conifer", "cypress", "umbrella", "agave", "fern", "bush",
    "lamp", "banner", "diamond", "triangle", "disc", "board", "gantry",
    "car back", "car front", "truck back", "truck front", "bus front",
)  # fmt: skip
"""Names of the flat shapes; a thing refers to one by its index."""


_TEXELS = 128
_TREES = SPRITES[:8]


@cache
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
