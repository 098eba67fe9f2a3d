"""Scans that are killed, and then run to their end: the short form of `benchmarks/kills.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.card import make_card
from benchmarks.kills import kill_scans
from tests.fakes import COLOURS, write_colour_video
from tests.media import drop_moov

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_scan_ends_with_the_bytes_of_an_undisturbed_one(
    onnx_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sources").mkdir()
    sources = [
        write_colour_video(tmp_path / "sources" / f"{number}.mp4", colour)
        for number, colour in enumerate(COLOURS.values())
    ]
    sources.append(drop_moov(write_colour_video(tmp_path / "sources" / "broken.mp4")))
    card = make_card(tmp_path / "card", sources, 60)
    _, outcome = kill_scans(card, tmp_path / "runs", 3, 1, str(onnx_bundle))
    assert outcome.wrong == []
    assert outcome.kills == 3
