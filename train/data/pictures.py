"""Stored pictures of a clip to the pixels that a network takes.

Shape suffixes: T frames, H and W pixels.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from train.data.dataset import View


class PictureError(ValueError):
    """A picture that cannot be decoded; the text says which of the clip and why."""


def read_pictures(jpegs: Sequence[bytes], view: View, index: int) -> NDArray[np.uint8]:
    """Decode, fit and, where the view asks for it, disturb the frames of one clip.

    Args:
        jpegs: the encoded frames, in order.
        view: size, resize rule and augmentation.
        index: of the sample: with the seed of the view it fixes everything random.

    Returns:
        uint8 [T, image_px, image_px, 3], RGB.

    Raises:
        PictureError: a frame is damaged or no picture.
    """
    side = view.image_px
    clip_THWC = np.empty((len(jpegs), side, side, 3), np.uint8)
    for number, jpeg in enumerate(jpegs):
        try:
            picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        except (OSError, ValueError) as exc:
            raise PictureError(f"frame {number} of the clip cannot be decoded ({exc})") from exc
        clip_THWC[number] = picture.resize((side, side), Image.Resampling.BILINEAR)
    return clip_THWC
