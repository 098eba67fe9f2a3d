"""One clip out of a folder of numbered or listed pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.data.picking import order_frames, pick_frames
from train.data.pictures import PictureError, read_pictures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from train.data.dataset import View


def list_frames(folder: Path) -> list[str]:
    """The frames in a folder, in the order of their numbers.

    Raises:
        PictureError: it cannot be listed, or there are none.
    """
    try:
        names = order_frames(path.name for path in folder.iterdir())
    except OSError as exc:
        raise PictureError(f"{folder}: {exc.strerror or exc}") from exc
    if not names:
        raise PictureError(f"{folder}: no frames; they are called 1.jpg, 2.jpg and so on")
    return names


def read_stored(
    folder: Path, names: Sequence[str], view: View, index: int, *, by_name: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Pick some of the frames of a clip and read them.

    Args:
        folder: where they lie.
        names: of all frames, in the order of recording.
        view: which to pick, and how to show them.
        index: of the sample.
        by_name: whether a listing of the folder sorts the frames as their names say; else as if
            they were called `1.jpg`, `2.jpg` and so on.

    Returns:
        The clip, uint8 [T, H, W, 3], and the positions picked, [T].

    Raises:
        PictureError: one of those picked cannot be read; with the file.
    """
    picked_T = pick_frames(len(names), view, index, names=names if by_name else None)
    files = [folder / names[position] for position in picked_T.tolist()]
    contents: dict[Path, bytes] = {}
    for file in files:
        if file not in contents:
            contents[file] = _read(file)
    try:
        return read_pictures([contents[file] for file in files], view, index), picked_T
    except PictureError as exc:
        if exc.number is None:
            raise
        raise PictureError(f"{files[exc.number]} {exc.reason}") from exc


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise PictureError(f"{file}: {exc.strerror or exc}") from exc
