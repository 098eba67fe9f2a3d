"""From a decoded frame to the small upright RGB picture that the model takes."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from geotag.footage import container
from geotag.types import FootageError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from engines.bundle import Resize

_HD_HEIGHT_PX = 720
"""Unmarked video of at least this height is BT.709, below it BT.601, as players assume."""

# ffmpeg's AVColorSpace (ITU-T H.273 table 4) -> what swscale calls the same matrix.
_MATRICES = {
    1: int(Colorspace.ITU709),
    4: int(Colorspace.FCC),
    5: int(Colorspace.ITU601),
    6: int(Colorspace.ITU601),
    7: int(Colorspace.SMPTE240M),
    9: 9,  # BT.2020; its name is missing before PyAV 15
    10: 9,
}
_FULL_RANGE_FORMATS = ("yuvj", "rgb", "bgr", "gbr", "argb", "abgr", "pal8", "0rgb", "0bgr")

# Area averaging: every source pixel counts, so nothing aliases. The other flags make swscale
# interpolate colour fully and round the same way on every processor, for 0.3 ms a frame.
# Numbers, because PyAV names them only from version 17 on.
_AREA, _FULL_COLOUR, _ACCURATE_ROUNDING, _BIT_EXACT = 0x20, 0x2000, 0x40000, 0x80000
_SCALING = _AREA | _FULL_COLOUR | _ACCURATE_ROUNDING | _BIT_EXACT


MOST_STRETCH = 8


class PictureMaker:
    """Turns frames into pictures of one size; holds the tables of one swscale context."""

    def __init__(self) -> None:
        """Start without tables: the first frame makes them."""
        self._scaler = VideoReformatter()

    def make(
        self, frame: VideoFrame, height_px: int, width_px: int, resize: Resize = "squash"
    ) -> NDArray[np.uint8]:
        """Convert one frame.  -> [height_px, width_px, 3], RGB, full range, upright.

        One swscale call goes from the decoder's planes to the small picture; turned and cropped is
        the small one.

        Raises:
            FootageError: decode_error; swscale does not take the frame.
        """
        turns = _rotation_deg(frame) // 90
        across_px, down_px = (width_px, height_px) if turns % 2 == 0 else (height_px, width_px)
        wanted = (down_px, across_px)
        if resize == "crop":
            across_px, down_px = _covering(frame.width, frame.height, across_px, down_px)
        matrix = _matrix(frame)
        options: dict[str, Any] = {
            "width": across_px,
            "height": down_px,
            "format": "rgb24",
            "src_colorspace": matrix,
            # RGB has no matrix, but before PyAV 17 equal ones mean that nothing is converted.
            "dst_colorspace": int(Colorspace.ITU601 if matrix != 5 else Colorspace.ITU709),
            "src_color_range": _color_range(frame),
            "dst_color_range": int(ColorRange.JPEG),
            "interpolation": _SCALING,
            **_one_thread(),
        }
        try:
            small = self._scaler.reformat(frame, **options)
        except container.DECODING_ERRORS as exc:
            raise FootageError(
                "decode", "decode_error", f"a frame cannot be turned into a picture: {exc}"
            ) from exc
        picture: NDArray[np.uint8] = small.to_ndarray().astype(np.uint8, copy=False)
        if frame.format.name.startswith("gray") and _color_range(frame) != int(ColorRange.JPEG):
            picture = _expand(picture)
        return np.ascontiguousarray(np.rot90(_centre(picture, *wanted), -turns))


def _covering(
    frame_width: int, frame_height: int, width_px: int, height_px: int
) -> tuple[int, int]:
    """The smallest size of a frame's shape that covers what is wanted; its longer side cut down.

    As in CLIP's preprocessing, the side that is not fitted is rounded down. A frame that is more
    than MOST_STRETCH times longer than wide is squeezed to that, lest its picture fill the memory.
    """
    scale = max(width_px / frame_width, height_px / frame_height)
    across_px = min(max(width_px, int(frame_width * scale + 1e-9)), MOST_STRETCH * width_px)
    down_px = min(max(height_px, int(frame_height * scale + 1e-9)), MOST_STRETCH * height_px)
    return across_px, down_px


def _centre(picture: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """The middle of a picture; of an odd rest the larger half is cut at the end."""
    top = (picture.shape[0] - height_px) // 2
    left = (picture.shape[1] - width_px) // 2
    return picture[top : top + height_px, left : left + width_px]


def _rotation_deg(frame: VideoFrame) -> int:
    """Clockwise turn that brings a frame upright; ffmpeg gives it counterclockwise."""
    return round(-frame.rotation / 90) * 90 % 360


def _matrix(frame: VideoFrame) -> int:
    fallback = Colorspace.ITU709 if frame.height >= _HD_HEIGHT_PX else Colorspace.ITU601
    return _MATRICES.get(int(frame.colorspace), int(fallback))


def _color_range(frame: VideoFrame) -> int:
    """Full or limited; unmarked is limited, but for the formats that are full by definition."""
    if int(frame.color_range) in (int(ColorRange.MPEG), int(ColorRange.JPEG)):
        return int(frame.color_range)
    is_full = frame.format.name.startswith(_FULL_RANGE_FORMATS)
    return int(ColorRange.JPEG if is_full else ColorRange.MPEG)


def _expand(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Limited to full range, which swscale does not do for grey pictures."""
    levels = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
    return np.take(levels, picture)


@functools.cache
def _one_thread() -> dict[str, int]:
    """Keep swscale (PyAV 17 and later) from starting a thread per core for a tiny picture."""
    documentation = inspect.getdoc(VideoReformatter.reformat) or ""
    return {"threads": 1} if ":param int threads" in documentation else {}
