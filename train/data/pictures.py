"""Stored pictures of a clip to the pixels that a network takes.

The time of training goes here, so every step was measured (one core of an Intel Xeon with
AVX-512, per picture). A 256-px JPEG of quality 90 decodes in 0.20 to 0.23 ms by `simplejpeg`, 0.28
by OpenCV, 0.42 by Pillow. What did not help: libjpeg's scaled decoding to 7/8, which would spare
the resizing, takes 0.31 ms, because only halves are vectorised; one mosaic of 16 pictures takes as
long as the 16; inexact arithmetic saves a tenth and is no longer what others decode. Going from 256
to 224 px takes 0.08 ms by bilinear interpolation, and comes as near to the pictures of a scan as
averaging over areas, which takes 0.37 ms. `benchmarks/loading.py` measures all of it.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from geotag.footage.pictures import MOST_STRETCH
from train.data.disturbing import draw_disturbance, pixels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engines.bundle import Resize
    from train.data.dataset import View
    from train.data.disturbing import Box

MOST_PIXELS = 100_000_000
"""A picture that claims more is refused before any memory is taken for it: ten times the largest
dashcam."""
_AVERAGED_SHRINK = 1.5
"""Bilinear interpolation looks at two pixels a side: shrunk further, pixels are averaged."""
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class PictureError(ValueError):
    """A picture that cannot be decoded; the text says which of the clip and why."""

    def __init__(self, reason: str, *, number: int | None = None) -> None:
        """Say what is wrong; `number`: with which of the pictures given, where it is one's."""
        super().__init__(reason if number is None else f"frame {number} of the clip {reason}")
        self.reason, self.number = reason, number


def read_pictures(jpegs: Sequence[bytes], view: View, index: int) -> NDArray[np.uint8]:
    """Decode, fit and, where the view asks for it, disturb the frames of one clip.

    Args:
        jpegs: the encoded frames, in order; JPEG, or what else Pillow reads. Grey and CMYK become
            RGB; frames may differ in size.
        view: size, resize rule and augmentation.
        index: of the sample: with the seed of the view it fixes everything random.

    Returns:
        uint8 [T, image_px, image_px, 3], RGB.

    Raises:
        PictureError: a frame is damaged, too large or no picture.
    """
    _keep_to_one_thread()
    side_px = view.image_px
    disturbance = draw_disturbance(view, index)
    clip_THWC = np.empty((len(jpegs), side_px, side_px, 3), np.uint8)
    for number, jpeg in enumerate(jpegs):
        try:
            picture = _decode(jpeg, side_px if disturbance is None else disturbance.need_px)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            raise PictureError(f"cannot be decoded ({exc})", number=number) from exc
        crop = _WHOLE if disturbance is None else disturbance.crop
        _fit(picture, clip_THWC[number], view.resize, crop)
    if disturbance is not None:
        disturbance.paint(clip_THWC)
    return clip_THWC


def disturb(clip_THWC: NDArray[np.uint8], view: View, index: int) -> NDArray[np.uint8]:
    """Disturb a clip that does not come from stored pictures, as `read_pictures` would.

    Args:
        clip_THWC: uint8 [T, H, W, 3], already fitted to the model's size; not changed.
        view: whose augmentation and seed decide.
        index: of the sample.

    Returns:
        uint8 of the same shape; the very same array where nothing is to be disturbed.
    """
    disturbance = draw_disturbance(view, index)
    if disturbance is None:
        return clip_THWC
    _keep_to_one_thread()
    disturbed_THWC = np.empty_like(clip_THWC)
    for frame_HWC, out_HWC in zip(clip_THWC, disturbed_THWC, strict=True):
        _fit(frame_HWC, out_HWC, "squash", disturbance.crop)
    disturbance.paint(disturbed_THWC)
    return disturbed_THWC


def encode_picture(picture_HWC: NDArray[np.uint8], quality: int) -> bytes:
    """A picture as JPEG with halved colour (4:2:0), as cameras write it.  RGB [H, W, 3] -> bytes.

    The same pixels give the same bytes wherever the same simplejpeg is installed.
    """
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(picture_HWC), quality=quality, colorsubsampling="420"
    )
    return encoded


def _decode(encoded: bytes, least_px: int) -> NDArray[np.uint8]:
    """RGB pixels of one picture, which may be halved as long as no side gets below least_px."""
    if not encoded.startswith(b"\xff\xd8"):
        return _decode_rare(encoded)
    height_px, width_px, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    _check_size(width_px, height_px)
    if colours not in ("YCbCr", "RGB", "Gray"):
        return _decode_rare(encoded)
    halvings = 0
    while halvings < 3 and min(height_px, width_px) >> (halvings + 1) >= least_px:
        halvings += 1
    if not halvings:
        whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded)
        return whole
    smaller: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        encoded,
        min_height=-(-height_px >> halvings),
        min_width=-(-width_px >> halvings),
        min_factor=2,
    )
    return smaller


def _decode_rare(encoded: bytes) -> NDArray[np.uint8]:
    """What is no JPEG, or one for print; transparent parts are left as they are stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
        try:
            picture = Image.open(io.BytesIO(encoded))
        except UnidentifiedImageError as exc:  # its text names an object in memory
            raise ValueError("it is no picture, or of a kind that is not known") from exc
    _check_size(*picture.size)
    return np.asarray(picture.convert("RGB"))


def _check_size(width_px: int, height_px: int) -> None:
    if width_px < 1 or height_px < 1 or width_px * height_px > MOST_PIXELS:
        raise ValueError(
            f"it claims {width_px}x{height_px} pixels; 1 to {MOST_PIXELS:,} in all are allowed"
        )


def _fit(picture: NDArray[np.uint8], out_HWC: NDArray[np.uint8], resize: Resize, crop: Box) -> None:
    """Bring a part of a picture to the size of `out_HWC`, by the rules of a scan.

    squash: everything, stretched; crop: the shorter side fitted and the middle kept. `crop` is
    the part that is used of what the rule would use.
    """
    if resize == "crop":
        picture = _cover(picture, out_HWC.shape[0], out_HWC.shape[1], crop)
    rows, columns = pixels_of(crop, *picture.shape[:2])
    part = picture[rows, columns]
    _resize(part if part.size else picture, out_HWC)  # of a picture a few pixels wide: all


def _cover(
    picture: NDArray[np.uint8], height_px: int, width_px: int, crop: Box
) -> NDArray[np.uint8]:
    """The middle of a picture, in the shape of what is wanted.

    Where nothing more is cut it has the wanted size too, and the rounding of
    `geotag.footage.pictures`; otherwise it keeps its pixels, for they are resized once only.
    """
    rows_px, columns_px = picture.shape[:2]
    scale = max(width_px / columns_px, height_px / rows_px)
    if crop == _WHOLE:
        across_px = min(max(width_px, int(columns_px * scale + 1e-9)), MOST_STRETCH * width_px)
        down_px = min(max(height_px, int(rows_px * scale + 1e-9)), MOST_STRETCH * height_px)
        covering = np.empty((down_px, across_px, 3), np.uint8)
        _resize(picture, covering)
        return _middle(covering, height_px, width_px)
    return _middle(
        picture,
        min(rows_px, max(1, round(height_px / scale))),
        min(columns_px, max(1, round(width_px / scale))),
    )


def _middle(picture: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    top = (picture.shape[0] - height_px) // 2
    left = (picture.shape[1] - width_px) // 2
    return picture[top : top + height_px, left : left + width_px]


def _resize(picture: NDArray[np.uint8], out_HWC: NDArray[np.uint8]) -> None:
    height_px, width_px = out_HWC.shape[:2]
    if picture.shape[:2] == (height_px, width_px):
        out_HWC[...] = picture
        return
    shrink = max(picture.shape[0] / height_px, picture.shape[1] / width_px)
    how = cv2.INTER_AREA if shrink > _AVERAGED_SHRINK else cv2.INTER_LINEAR
    cv2.resize(picture, (width_px, height_px), dst=out_HWC, interpolation=how)


@lru_cache(maxsize=1)
def _keep_to_one_thread() -> None:
    """Loaders read in one process a core: threads of OpenCV would only wait for each other.

    Their pool does not survive a fork either, which a loader may be made by.
    """
    cv2.setNumThreads(1)
