"""Stored pictures become the pixels that a network takes, and what is no picture is refused."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geotag.footage.pictures import PictureMaker
from train.data.dataset import Augmentation, View
from train.data.disturbing import draw_disturbance
from train.data.pictures import PictureError, disturb, encode_picture, read_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.bundle import Resize

STRONG = Augmentation(least_crop=0.5, colour_jitter=0.4, mask_prob=1.0)


def _landscape(width_px: int, height_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours: what any good resampling agrees on."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _file(picture: NDArray[np.uint8], kind: str, mode: str = "RGB", **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(1280, 720), (640, 480), (301, 457)])
def test_a_picture_is_fitted_as_a_scan_fits_a_frame(resize: Resize, size: tuple[int, int]) -> None:
    picture = _landscape(*size)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    scanned = PictureMaker().make(frame, 224, 224, resize)
    view = View(frames=1, image_px=224, resize=resize)
    (read,) = read_pictures([_file(picture, "PNG")], view, 0)
    assert np.abs(read.astype(int) - scanned).mean() < 1.0
    (jpeg,) = read_pictures([_file(picture, "JPEG", quality=95)], view, 0)
    assert np.abs(jpeg.astype(int) - scanned).mean() < 2.0


def test_a_stored_picture_of_the_right_size_comes_back_as_pillow_decodes_it() -> None:
    encoded = encode_picture(_landscape(96, 96), 90)
    (read,) = read_pictures([encoded], View(frames=1, image_px=96), 0)
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    assert np.abs(read.astype(int) - decoded).max() <= 1  # another build of the same library


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_pictures_become_rgb(mode: str) -> None:
    picture = _landscape(64, 64)
    encoded = _file(picture, "JPEG", mode, quality=95)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    (read,) = read_pictures([encoded], View(frames=1, image_px=64), 0)
    assert np.abs(read.astype(int) - expected).max() <= 2


def test_frames_of_one_clip_may_differ_in_size_and_kind() -> None:
    files = [
        _file(_landscape(320, 180), "PNG"),
        _file(_landscape(1280, 720), "JPEG", quality=95),
        _file(_landscape(64, 64), "PNG", "LA"),
        _file(_landscape(1, 1), "PNG"),
        _file(_landscape(1000, 2), "PNG"),
    ]
    clip_THWC = read_pictures(files, View(frames=5, image_px=112, resize="crop"), 0)
    assert clip_THWC.shape == (5, 112, 112, 3)
    assert np.abs(clip_THWC[0].astype(int) - clip_THWC[1]).mean() < 3


def _jpeg() -> bytes:
    return encode_picture(_landscape(96, 96), 90)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xd8",
        b"no picture at all",
        _jpeg()[: len(_jpeg()) // 2],
        _jpeg()[:-2],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        _file(_landscape(64, 64), "PNG")[:300],
    ],
)
def test_what_is_no_whole_picture_is_refused_with_its_number(damaged: bytes) -> None:
    with pytest.raises(PictureError, match="frame 1 of the clip"):
        read_pictures([_jpeg(), damaged], View(frames=2, image_px=96), 0)


def test_a_picture_that_claims_to_be_huge_is_refused_before_memory_is_taken() -> None:
    jpeg = bytearray(_jpeg())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    png = bytearray(_file(_landscape(64, 64), "PNG"))
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    for file in (bytes(jpeg), bytes(png)):
        with pytest.raises(PictureError):
            read_pictures([file], View(frames=1, image_px=96), 0)


@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([_jpeg(), _file(_landscape(32, 32), "PNG")]))
    file = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(file[: data.draw(st.integers(0, len(file)))])
    view = View(frames=1, image_px=32)
    with suppress(PictureError):
        assert read_pictures([cut], view, 0).shape == (1, 32, 32, 3)


def test_a_clip_is_disturbed_the_same_way_each_time_and_another_differently() -> None:
    jpegs = [encode_picture(_landscape(96, 96), 90)] * 3
    view = View(frames=3, image_px=80, augmentation=STRONG, seed=5)
    clip_THWC = read_pictures(jpegs, view, 7)
    assert np.array_equal(clip_THWC, read_pictures(jpegs, view, 7))
    assert np.array_equal(clip_THWC[0], clip_THWC[2])  # the same for all frames
    assert not np.array_equal(clip_THWC, read_pictures(jpegs, view, 8))
    other = View(frames=3, image_px=80, augmentation=STRONG, seed=6)
    assert not np.array_equal(clip_THWC, read_pictures(jpegs, other, 7))


def test_without_a_seed_nothing_is_disturbed() -> None:
    jpegs = [_jpeg()]
    plain = read_pictures(jpegs, View(frames=1, image_px=80, seed=3), 0)
    calm = read_pictures(jpegs, View(frames=1, image_px=80, augmentation=STRONG), 0)
    assert np.array_equal(plain, calm)
    frames_THWC = np.stack([_landscape(80, 80)])
    assert disturb(frames_THWC, View(frames=1, image_px=80, augmentation=STRONG), 0) is frames_THWC


def test_an_augmentation_that_changes_nothing_leaves_the_clip_as_it_is() -> None:
    frames_THWC = np.stack([_landscape(80, 80)])
    view = View(frames=1, image_px=80, augmentation=Augmentation(), seed=0)
    assert np.array_equal(disturb(frames_THWC, view, 0), frames_THWC)


def test_crops_keep_the_area_they_must_and_about_the_shape() -> None:
    view = View(frames=1, image_px=80, augmentation=Augmentation(least_crop=0.6), seed=0)
    shares = []
    for index in range(300):
        disturbance = draw_disturbance(view, index)
        assert disturbance is not None
        left, top, right, bottom = disturbance.crop
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        shares.append((right - left) * (bottom - top))
        assert 0.85 < (right - left) / (bottom - top) < 1.18
    assert 0.6 - 1e-9 <= min(shares) < 0.65
    assert 0.95 < max(shares) <= 1 + 1e-9


def test_a_picture_is_never_turned_around() -> None:
    ramp = np.tile(np.arange(96, dtype=np.uint8)[:, np.newaxis] * 2, (96, 1, 3))
    augmentation = Augmentation(least_crop=0.5, colour_jitter=0.2)
    for index in range(50):
        view = View(frames=1, image_px=64, augmentation=augmentation, seed=1)
        (frame,) = disturb(np.stack([ramp]), view, index)
        assert frame[:, -8:].mean() > frame[:, :8].mean() + 20


def test_colours_are_changed_as_by_pillow() -> None:
    from PIL import ImageEnhance

    picture = _landscape(64, 64)
    view = View(frames=1, image_px=64, augmentation=Augmentation(colour_jitter=0.3), seed=0)
    disturbance = draw_disturbance(view, 3)
    assert disturbance is not None
    clip_THWC = np.stack([picture])
    disturbance.paint(clip_THWC)
    expected = Image.fromarray(picture)
    expected = ImageEnhance.Color(expected).enhance(disturbance.saturation)
    expected = ImageEnhance.Contrast(expected).enhance(disturbance.contrast)
    expected = ImageEnhance.Brightness(expected).enhance(disturbance.brightness)
    assert np.abs(clip_THWC[0].astype(int) - np.asarray(expected)).mean() < 3


def test_masks_lie_at_the_edges_and_leave_the_middle_alone() -> None:
    frames_THWC = np.full((2, 100, 100, 3), 77, np.uint8)
    view = View(frames=2, image_px=100, augmentation=Augmentation(mask_prob=0.5), seed=0)
    masked = 0
    painted = np.zeros((100, 100), bool)
    for index in range(300):
        clip_THWC = disturb(frames_THWC, view, index)
        changed = (clip_THWC[0] != 77).any(axis=2)
        masked += bool(changed.any())
        painted |= changed
    assert 110 < masked < 190
    assert not painted[25:75, 40:60].any()
    for corner in (painted[:10, :10], painted[:10, -10:], painted[-10:, :10], painted[-10:, -10:]):
        assert corner.all()
