"""Random disturbances of training clips: drawn once for a clip, applied to all of its frames.

There is no flip: it would turn round the driving side, writing and number plates, which tell
places apart. What is painted over is where recorders and channels burn in what tells them apart:
strips along the edges, boxes in the corners.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.data.dataset import Augmentation, View

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) as shares of the width and height, [0, 1]."""

PURPOSE = 2
"""Which of a sample's random numbers these are: `View.generator`."""
_MOST_ASPECT = 1.15
"""A crop is at most this much wider or taller than the picture: stretched further, signs and
number plates no longer look like those of their country."""
_MOST_STRIP = 0.15
"""Of the height or width: as much as a recorder's line of text or a bonnet's edge takes."""
_MOST_BOX = (0.35, 0.2)
"""Of width and height: a channel's logo, or a clock."""
_LUMA_RGB = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
_BARS_RGB = np.array(
    [
        [191, 191, 191],
        [191, 191, 0],
        [0, 191, 191],
        [0, 191, 0],
        [191, 0, 191],
        [191, 0, 0],
        [0, 0, 191],
    ],
    np.uint8,
)
"""Colour bars of three quarters (SMPTE ECR 1-1978)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """A painted-over part of the picture."""

    box: Box
    texture_HWC: NDArray[np.uint8]
    """Stretched over the box without smoothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Disturbance:
    """Everything random about one clip."""

    crop: Box
    need_px: int
    """Least side of the whole picture for which the crop need not be enlarged."""
    brightness: float
    contrast: float
    saturation: float
    """Factors; 1 leaves things as they are."""
    patches: tuple[Patch, ...]

    def paint(self, clip_THWC: NDArray[np.uint8]) -> None:
        """Change colours, then paint over; in place.  uint8 [T, H, W, 3], contiguous."""
        if (self.brightness, self.contrast, self.saturation) != (1.0, 1.0, 1.0):
            flat = clip_THWC.reshape(-1, clip_THWC.shape[2], 3)
            cv2.transform(flat, self._matrix(clip_THWC), dst=flat)
        for patch in self.patches:
            rows, columns = pixels_of(patch.box, *clip_THWC.shape[1:3])
            part_THWC = clip_THWC[:, rows, columns]
            if part_THWC.size:
                part_THWC[...] = _enlarge(patch.texture_HWC, *part_THWC.shape[1:3])

    def _matrix(self, clip_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """All three changes as one affine map of RGB.  -> [3, 4].

        Saturation mixes with the grey of the pixel, contrast with the clip's mean grey, and
        brightness multiplies, as torchvision's ColorJitter does for single pictures.
        """
        luma = np.array(_LUMA_RGB)
        mean_grey = float(clip_THWC[:, ::8, ::8].reshape(-1, 3).mean(axis=0) @ luma)
        saturated = self.saturation * np.eye(3) + (1 - self.saturation) * luma[np.newaxis]
        scale = self.brightness * self.contrast
        offset = self.brightness * (1 - self.contrast) * mean_grey
        return np.column_stack([scale * saturated, np.full(3, offset)]).astype(np.float32)


def pixels_of(box: Box, height_px: int, width_px: int) -> tuple[slice, slice]:
    """Rows and columns of a picture that a box holds."""
    left, top, right, bottom = box
    return (
        slice(round(top * height_px), round(bottom * height_px)),
        slice(round(left * width_px), round(right * width_px)),
    )


def draw_disturbance(view: View, index: int) -> Disturbance | None:
    """Draw what happens to one clip.

    Returns:
        None where the view asks for no augmentation, or for nothing random.
    """
    wanted = view.augmentation
    rng = view.generator(index, PURPOSE)
    if wanted is None or rng is None:
        return None
    crop = _draw_crop(rng, wanted.least_crop)
    brightness, contrast, saturation = (
        1.0 + wanted.colour_jitter * rng.uniform(-1.0, 1.0, 3)
    ).tolist()
    return Disturbance(
        crop=crop,
        need_px=math.ceil(view.image_px / max(1e-3, min(crop[2] - crop[0], crop[3] - crop[1]))),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        patches=_draw_patches(rng, wanted),
    )


def _draw_crop(rng: np.random.Generator, least_share: float) -> Box:
    """A part that keeps at least so much of the area, of about the picture's own shape."""
    area = rng.uniform(min(1.0, max(0.01, least_share)), 1.0)
    aspect = math.exp(math.log(_MOST_ASPECT) * rng.uniform(-1.0, 1.0))
    width = min(1.0, math.sqrt(area * aspect))
    height = min(1.0, area / width)
    width = min(1.0, area / height)
    left, top = rng.uniform(0.0, 1.0 - width), rng.uniform(0.0, 1.0 - height)
    return left, top, left + width, top + height


def _draw_patches(rng: np.random.Generator, wanted: Augmentation) -> tuple[Patch, ...]:
    """With the probability asked for: strips along some edges, boxes in some corners, or both."""
    if rng.random() >= wanted.mask_prob:
        return ()
    boxes: list[Box] = []
    while not boxes:
        for edge in range(4):
            depth, is_wanted = rng.uniform(0.03, _MOST_STRIP), rng.random() < 0.25
            if is_wanted:
                boxes.append(_strip(edge, depth))
        for corner in range(4):
            width, height = rng.uniform(0.05, _MOST_BOX[0]), rng.uniform(0.04, _MOST_BOX[1])
            is_wanted = rng.random() < 0.25
            if is_wanted:
                boxes.append(_corner(corner, width, height))
    return tuple(Patch(box=box, texture_HWC=_draw_texture(rng)) for box in boxes)


def _strip(edge: int, depth: float) -> Box:
    return (
        (0.0, 0.0, 1.0, depth),
        (0.0, 1.0 - depth, 1.0, 1.0),
        (0.0, 0.0, depth, 1.0),
        (1.0 - depth, 0.0, 1.0, 1.0),
    )[edge]


def _corner(corner: int, width: float, height: float) -> Box:
    left = 0.0 if corner % 2 == 0 else 1.0 - width
    top = 0.0 if corner < 2 else 1.0 - height
    return left, top, left + width, top + height


def _draw_texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey, noise, or colour bars."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.full((1, 1, 3), rng.integers(256), np.uint8)
    if kind == 1:
        return rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return _BARS_RGB[np.newaxis]


def _enlarge(texture_HWC: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    rows = np.arange(height_px) * texture_HWC.shape[0] // height_px
    columns = np.arange(width_px) * texture_HWC.shape[1] // width_px
    return texture_HWC[rows][:, columns]
