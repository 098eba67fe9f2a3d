"""Colours are checked against the formula of ITU-T H.273, not against another decoder."""

from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame
from PIL import Image

from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import open_video
from geotag.footage.discover import find_videos
from geotag.footage.pictures import PictureMaker
from tests.media import bars, solid, write_video

KR_KB = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593)}
H273 = {"709": 1, "601": 6, "2020": 9, "unmarked": 2}
LIMITED, FULL, UNMARKED = 1, 2, 0
COLOURS = [(81, 90, 240), (145, 54, 34), (41, 240, 110), (128, 128, 128), (200, 100, 150)]
SAMPLING = Sampling(
    policy="exact", span_s=1.0, frames=2, height_px=24, width_px=32, max_keyframe_gap_s=2.0
)


def expected(yuv: tuple[int, int, int], matrix: str, *, full: bool) -> tuple[float, ...]:
    kr, kb = KR_KB[matrix]
    luma = yuv[0] / 255 if full else (yuv[0] - 16) / 219
    blue, red = ((value - 128) / (255 if full else 224) for value in yuv[1:])
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return tuple(255 * min(1.0, max(0.0, value)) for value in (r, g, b))


def mean_colour(picture: np.ndarray) -> np.ndarray:
    assert picture.dtype == np.uint8
    assert np.ptp(picture.astype(int), axis=(0, 1)).max() <= 1
    return picture.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("yuv", COLOURS)
@pytest.mark.parametrize("matrix", ["709", "601", "2020"])
@pytest.mark.parametrize("full", [False, True])
def test_range_and_matrix_of_a_frame_are_respected(
    yuv: tuple[int, int, int], matrix: str, full: bool
) -> None:
    frame = solid(*yuv)
    frame.colorspace, frame.color_range = H273[matrix], FULL if full else LIMITED
    picture = PictureMaker().make(frame, 24, 32)
    assert picture.shape == (24, 32, 3)
    assert mean_colour(picture) == pytest.approx(expected(yuv, matrix, full=full), abs=2.0)


@pytest.mark.parametrize(("height_px", "matrix"), [(64, "601"), (576, "601"), (720, "709")])
def test_unmarked_video_is_601_or_709_by_its_height(height_px: int, matrix: str) -> None:
    yuv = COLOURS[0]
    frame = solid(*yuv, size=(64, height_px))
    frame.colorspace, frame.color_range = H273["unmarked"], UNMARKED
    picture = PictureMaker().make(frame, 24, 32)
    assert mean_colour(picture) == pytest.approx(expected(yuv, matrix, full=False), abs=2.0)


def test_the_yuvj_formats_of_dashcams_are_full_range_even_unmarked() -> None:
    yuv = COLOURS[0]
    frame = solid(*yuv, pix_fmt="yuvj420p")
    frame.color_range = UNMARKED
    picture = PictureMaker().make(frame, 24, 32)
    assert mean_colour(picture) == pytest.approx(expected(yuv, "601", full=True), abs=2.0)


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
)
def test_every_depth_and_subsampling_gives_the_same_colour(pix_fmt: str) -> None:
    yuv = COLOURS[1]
    scale = 4 if "10le" in pix_fmt else 1
    frame = solid(*(value * scale for value in yuv), pix_fmt=pix_fmt, size=(63, 65))
    picture = PictureMaker().make(frame, 24, 32)
    assert mean_colour(picture) == pytest.approx(expected(yuv, "601", full=False), abs=2.0)


@pytest.mark.parametrize(("pix_fmt", "level"), [("gray", 126), ("rgb24", 90), ("gbrp", 90)])
def test_grey_and_rgb_frames_are_taken(pix_fmt: str, level: int) -> None:
    frame = solid(level, level, level, pix_fmt=pix_fmt)
    picture = PictureMaker().make(frame, 24, 32)
    want = (126 - 16) * 255 / 219 if pix_fmt == "gray" else 90
    assert mean_colour(picture) == pytest.approx([want] * 3, abs=2.0)


@pytest.mark.parametrize(("color_range", "full"), [(FULL, True), (LIMITED, False)])
@pytest.mark.parametrize("matrix", ["709", "601"])
def test_the_marks_of_a_file_reach_the_pictures(
    tmp_path: Path, color_range: int, full: bool, matrix: str
) -> None:
    yuv = COLOURS[0]
    path = write_video(
        tmp_path / "clip.mp4",
        frames=3,
        size=(64, 64),
        draw=lambda _: solid(*yuv),
        options={"qp": "0", "preset": "ultrafast"},
        color_range=color_range,
        colorspace=H273[matrix],
    )
    with open_video(find_videos(path)[0]) as reader:
        clip = reader.read_clip(Window(start_s=0.0, end_s=0.1), SAMPLING)
    for picture in clip.frames_THWC:
        assert mean_colour(picture) == pytest.approx(expected(yuv, matrix, full=full), abs=2.0)


def test_fine_texture_is_averaged_and_not_sampled() -> None:
    frame = solid(16, 128, 128, size=(1024, 512))
    columns = np.where(np.arange(1024) % 2 == 0, 16, 235).astype(np.uint8)
    plane = np.frombuffer(frame.planes[0], np.uint8).reshape(512, -1)
    plane[:, :1024] = columns
    picture = PictureMaker().make(frame, 24, 32)
    assert picture.mean() == pytest.approx(127.5, abs=3)
    assert picture.std() < 3


def test_a_picture_is_squashed_to_the_size_whatever_its_shape() -> None:
    frame = solid(16, 128, 128, size=(256, 64))
    plane = np.frombuffer(frame.planes[0], np.uint8).reshape(64, -1)
    plane[:, :256] = bars(5, 256, 64) // 255 * 219 + 16
    picture = PictureMaker().make(frame, 48, 48)
    want = bars(5, 48, 48)
    assert np.abs(picture[:, :, 1].astype(int) - want).mean() < 12


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (360, 640), (101, 97), (32, 32)])
def test_a_picture_is_cropped_as_clip_was_trained(size: tuple[int, int]) -> None:
    """Against Pillow: the shorter side to 32 px, then the middle."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    whole = coarse.resize(size, Image.Resampling.BICUBIC)
    found = PictureMaker().make(VideoFrame.from_image(whole), 32, 32, "crop")
    short = min(size)
    fitted = whole.resize((size[0] * 32 // short, size[1] * 32 // short), Image.Resampling.BOX)
    left, top = (fitted.width - 32) // 2, (fitted.height - 32) // 2
    wanted = np.asarray(fitted.crop((left, top, left + 32, top + 32)), dtype=int)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 2


def test_a_turned_picture_is_cropped_after_it_is_turned(tmp_path: Path) -> None:
    sizes = {"size": (96, 48), "gop": 1}
    flat = write_video(tmp_path / "flat.mp4", frames=1, **sizes)
    turned = write_video(tmp_path / "turned.mp4", frames=1, rotation_deg=90, **sizes)
    found = []
    for path in (flat, turned):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            found.append(PictureMaker().make(frame, 48, 32, "crop"))
    assert found[0].shape == found[1].shape == (48, 32, 3)


def test_a_picture_of_an_absurd_shape_takes_no_absurd_memory() -> None:
    frame = VideoFrame.from_image(Image.new("RGB", (16_000, 2), (200, 100, 50)))
    picture = PictureMaker().make(frame, 224, 224, "crop")
    assert picture.shape == (224, 224, 3)
    assert mean_colour(picture) == pytest.approx((200, 100, 50), abs=3)
