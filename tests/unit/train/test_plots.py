import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.clip_datasets import WORLD, Clips, Reader
from train.data.dataset import View
from train.errors import TrainError
from train.evaluation.measure import Candidate, Plan, evaluate
from train.evaluation.plots import confusion_map, draw_plots, reliability_plot
from train.evaluation.sets import dataset_task

PARIS, LYON, BERLIN, TOKYO = range(4)


def evaluation_of(answers: list[int], cities: list[int], places: str = WORLD) -> dict[str, Any]:
    clips = Clips(answers=tuple((a,) for a in answers), cities=tuple(cities), places=places)
    view = View(frames=2, image_px=4)
    return evaluate(
        Candidate(scorer=Reader()),
        dataset_task(clips, None, split="test", view=view, policies=()),
        Plan(repeats=10),
        workers=0,
        console=Console(file=io.StringIO()),
        command="python -m train.evaluate",
    )


def test_the_same_evaluation_draws_the_same_bytes(tmp_path: Path) -> None:
    evaluation = evaluation_of([PARIS, TOKYO, BERLIN], [PARIS, LYON, LYON])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draw_plots(evaluation, tmp_path / name)
    for name in ("confusion.png", "reliability.png"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two
        assert b"matplotlib" not in one  # no version: another one writes the same where it can
        assert min(Image.open(io.BytesIO(one)).size) > 400


def test_the_map_shows_cities_by_accuracy_and_lines_to_wrong_answers() -> None:
    figure = confusion_map(evaluation_of([PARIS, TOKYO, TOKYO], [PARIS, LYON, LYON]))
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert "Lyon 0/2" in texts
    assert not any(text.startswith("Paris") for text in texts)  # nothing wrong there
    assert texts.count("") == 1  # one arrow, Lyon to Tokyo
    assert "four cities" in axes.get_title(loc="left")


def test_a_confusion_across_the_date_line_is_drawn_at_both_edges() -> None:
    places = WORLD + "Apia,Tuamasaga,Samoa,Oceania,WS-TU,WS,OC,-13.8333,-171.7667,4035413\n"
    figure = confusion_map(evaluation_of([TOKYO], [4], places))
    arrows = [text for text in figure.axes[0].texts if text.get_text() == ""]
    spans = sorted((arrow.xyann[0], arrow.xy[0]) for arrow in arrows)
    assert [tuple(np.round(span)) for span in spans] == [(-172, -220), (188, 140)]


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    places = WORLD.replace("Lyon", "Ly$on_{x}$").replace("2996944", "")
    draw_plots(evaluation_of([TOKYO, PARIS], [LYON, PARIS], places), tmp_path)


def test_nothing_to_count_is_drawn_as_such() -> None:
    nowhere = "Lima,Lima,Peru,South America,PE-LMA,PE,SA,-12.0432,-77.0282,3936456\n"
    evaluation = evaluation_of([PARIS], [0], nowhere)
    titles = [axes.get_title() for axes in reliability_plot(evaluation).axes]
    assert "city: nothing to count" in titles
    assert "no known city" in confusion_map(evaluation).axes[0].get_title(loc="left")


def test_bars_are_as_high_as_the_share_right() -> None:
    evaluation = evaluation_of([PARIS, PARIS, PARIS, LYON], [PARIS, PARIS, PARIS, PARIS])
    bars = reliability_plot(evaluation).axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.75]


def test_a_missing_matplotlib_is_said_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"matplotlib is not installed.*--no-plots"):
        draw_plots({}, tmp_path)
