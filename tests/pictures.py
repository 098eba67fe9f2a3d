"""Small JPEGs that say which frame they are."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image


@cache
def grey_jpeg(value: int, width: int = 16, height: int = 12) -> bytes:
    """A picture of one grey, 0 to 255."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(stream, "JPEG", quality=95)
    return stream.getvalue()
