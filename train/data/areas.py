"""Shapes of any size from one drawing of them, by summed areas, blended into a frame.

The mean of any box of texels is four look-ups, so a far tree costs as little as it covers. Shape
legend: M materials, h/w rows and columns of a region, H/W of a frame.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PRODUCT_COLUMNS = 16384  # below OpenBLAS's threshold for threads, which would fight over the cores


def sum_areas(masks: Floats) -> Floats:
    """Summed areas [M, h + 1, w + 1] of masks [M, h, w]; exact for halves, far below 2**24."""
    sums = np.zeros((masks.shape[0], masks.shape[1] + 1, masks.shape[2] + 1), np.float32)
    sums[:, 1:, 1:] = masks.cumsum(axis=1, dtype=np.float32).cumsum(axis=2, dtype=np.float32)
    return sums


def add_alpha(colours: Floats) -> Floats:
    """Colours of materials [..., M, 3] as weights [..., 4, M] whose last row adds up the cover."""
    weights = np.ones((*colours.shape[:-2], 4, colours.shape[-2]), np.float32)
    weights[..., :3, :] = colours.swapaxes(-1, -2)
    return weights


def paint_box(
    canvas: Floats,
    sums: Floats,
    box_px: tuple[float, float, float, float],
    weights: Floats,
    *,
    hidden: NDArray[np.bool_] | None = None,
) -> None:
    """Fills a box of a frame [3, H, W] with a shape, in place.

    Args:
        canvas: The frame.
        sums: Summed areas [M, h + 1, w + 1] of the shape.
        box_px: Left, right, top and bottom edges, which may lie outside the frame.
        weights: Colour and opacity [4, M] of its materials.
        hidden: Columns [W] of the frame in which something stands before it.
    """
    left, right, top, bottom = box_px
    x_first, x_last = max(int(left), 0), min(int(right) + 1, canvas.shape[2])
    y_first, y_last = max(int(top), 0), min(int(bottom) + 1, canvas.shape[1])
    if x_first >= x_last or y_first >= y_last:
        return
    x_scale, y_scale = (sums.shape[2] - 1) / (right - left), (sums.shape[1] - 1) / (bottom - top)
    x_edge = np.arange(x_first, x_last + 1) * x_scale - left * x_scale
    y_edge = np.arange(y_first, y_last + 1) * y_scale - top * y_scale
    masks = mean_boxes(sums, x_edge, y_edge)
    if hidden is not None:
        masks[:, :, : x_last - x_first] *= ~hidden[x_first:x_last]
    blend(canvas[:, y_first:y_last, x_first:x_last], masks, weights)


def blend(region: Floats, masks: Floats, weights: Floats) -> None:
    """Blends masks [M, h, w or more] by weights [4, M] over a region [3, h, w], in place."""
    flat = masks.reshape(len(masks), -1)
    product = np.empty((4, flat.shape[1]), np.float32)
    for first in range(0, flat.shape[1], PRODUCT_COLUMNS):
        part = slice(first, first + PRODUCT_COLUMNS)
        np.matmul(weights, flat[:, part], out=product[:, part])
    paint = product.reshape(4, *masks.shape[1:])[:, :, : region.shape[2]]
    region *= np.float32(1.0) - paint[3]
    region += paint[:3]


def mean_boxes(sums: Floats, x_edge: NDArray[np.float64], y_edge: NDArray[np.float64]) -> Floats:
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


def _enlarged_means(
    corners: Floats, stride: int, x_place: NDArray[np.intp], y_place: NDArray[np.intp]
) -> Floats:
    """`mean_boxes` where a texel is larger than a cell: each cell sees at least one texel."""
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


def _texels_at(edge: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    place = np.floor(edge)
    np.maximum(place, 0.0, out=place)
    np.minimum(place, count - 1.0, out=place)
    return place.astype(np.intp)
