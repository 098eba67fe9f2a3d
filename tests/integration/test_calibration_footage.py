"""A card of videos, good and bad, becomes clips to calibrate on: in worker processes that decode in
processes of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from engines.bundle import InputSpec
from tests.cityguessr import write_release
from tests.clip_datasets import tree
from tests.media import cut, drop_moov, garble, solid, write_video
from train.calibration_clips import CalibrationSet, open_calibration
from train.data.dataset import SamplingRange
from train.data.rendered import write_video as render_video
from train.data.world import draw_drive
from train.errors import DatasetError

FPS = 5


def _open(given: str, *, workers: int, **changes: Any) -> CalibrationSet:  # noqa: ANN401
    options: dict[str, Any] = {
        "trained_on": None,
        "splitting": "official",
        "sampling": SamplingRange(),
        "input": InputSpec(frames=4, height_px=48, width_px=48, resize="squash"),
        "picking": "mixed",
        "clips": 32,
        "held_out": 32,
        "seed": 0,
        "console": Console(quiet=True),
        "hierarchy": tree(),
    }
    return open_calibration(given, workers=workers, **options | changes)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night, many days, a rendered drive, and everything that a card can hold beside them."""
    folder = tmp_path_factory.mktemp("card")
    lumas = (17, *[150] * 13)
    for number, luma in enumerate(lumas):
        seconds = 60 + number
        write_video(
            folder / f"{number:02}.mp4",
            frames=seconds * FPS,
            fps=FPS,
            gop=FPS,
            size=(64, 64),
            draw=lambda index, luma=luma: solid(luma + index % 7, 128, 128),
        )
    render_video(draw_drive("train", 0), folder / "rendered.mp4", duration_s=8.0, render_width=160)
    (folder / "zero.mp4").touch()
    (folder / "text.mov").write_text("no video\n" * 500)
    (folder / "notes.txt").write_text("nothing of interest")
    for name in ("lost", "half", "garbled"):
        write_video(folder / f"{name}.mp4", frames=100, fps=FPS, gop=FPS)
    drop_moov(folder / "lost.mp4")
    cut(folder / "half.mp4", 0.5)
    garble(folder / "garbled.mp4", 0.2, 0.9)
    return folder


def test_a_card_is_read_alike_by_one_process_and_by_several(card: Path) -> None:
    found, again = (_open(str(card), workers=workers) for workers in (2, 0))
    assert found.listing == again.listing
    assert found.notes == again.notes
    pools = ((found.calibration, again.calibration), (found.held_out, again.held_out))
    for pool, other in pools:
        first, second = (
            np.concatenate([batch.clips_NTHWC for batch in one.batches(5)]) for one in (pool, other)
        )
        assert len(first) == 32
        assert np.array_equal(first, second)
    names = [{name.partition("@")[0] for name in pool.names} for pool, _ in pools]
    assert not names[0] & names[1]
    bad = {read.name for pool, _ in pools for read in pool.bad}
    assert {"zero.mp4", "text.mov", "lost.mp4"} <= bad
    assert str(card) not in found.listing


def test_what_becomes_of_a_data_set_meanwhile_is_told_and_not_the_trace_of_a_worker(
    tmp_path: Path,
) -> None:
    root = write_release(tmp_path / "release", cities=("Austin", "Dallas"), clips=240)
    found = _open(f"cityguessr:{root}", workers=2)
    shutil.rmtree(root)
    with pytest.raises(DatasetError) as caught:
        list(found.calibration.batches(8))
    assert "Traceback" not in str(caught.value)
    assert str(root) in str(caught.value)
