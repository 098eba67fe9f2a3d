import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from engines.bundle import LEVELS
from tests.unit.train.test_fit import Footage
from train import tables
from train.comparison import Row, pool, read_tables, show_table
from train.config import load_preset, preset_names
from train.data.sources import SOURCES, Source
from train.errors import TrainError
from train.tables import cell_of, keep_tables, recipe


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=120, file=io.StringIO())


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: Footage()))
    return "noise:."


def test_every_row_is_a_preset_and_the_published_numbers_are_those_of_the_paper() -> None:
    found = read_tables()
    assert set(found) == {"components", "hierarchy", "image-video"}
    rows = [row for _, each in found.values() for row in each]
    assert {row.preset for row in rows} <= set(preset_names())
    assert found["components"][1][-1].published == (69.6, 70.2, 74.8, 83.8)
    # City is never easier than continent.
    for row in rows:
        assert row.published is None or list(row.published) == sorted(row.published)


def test_a_row_takes_heads_and_losses_from_its_preset_and_the_rest_from_another() -> None:
    mixed, own, other = (
        recipe("text-city", like="demo"),
        load_preset("text-city"),
        load_preset("demo"),
    )
    assert (mixed.model.scene, mixed.model.text) == ("attention", "city")
    assert mixed.loss.text_weight == own.loss.text_weight
    assert mixed.model.size == other.model.size
    assert mixed.optimiser == other.optimiser
    assert mixed.views == other.views


def test_presets_of_the_components_differ_in_heads_and_losses_alone() -> None:
    _, rows = read_tables()["components"]
    configs = [load_preset(row.preset) for row in rows]
    plain = {
        replace(config, preset="", describes="", model=configs[0].model, loss=configs[0].loss)
        for config in configs
    }
    assert len(plain) == 1


def test_seeds_are_pooled_as_a_hand_computation_says() -> None:
    estimates = [
        {"value": 0.5, "low": 0.4, "high": 0.6},
        {"value": 0.6, "low": 0.5, "high": 0.7},
    ]
    cell = pool(estimates)
    clips, seeds = 20 / (2 * 1.959964), 50 / 2  # variance of 50 and 60 is 50
    half = 1.959964 * math.sqrt(clips**2 + seeds)
    assert cell.value == pytest.approx(55)
    assert (cell.low, cell.high) == pytest.approx((55 - half, 55 + half))
    one = pool(estimates[:1])
    assert (one.low, one.high) == pytest.approx((40, 60))


def test_a_finished_cell_is_not_made_again(
    tmp_path: Path, noise: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        recipe("classifiers", like="demo", data=noise, steps=2),
        batch=4,
        val_clips=4,
        test_clips=6,
    )
    row = Row(label="", preset="classifiers")
    first = cell_of(row, config, tmp_path, workers=0, console=console)
    monkeypatch.setattr(tables, "train", None)
    monkeypatch.setattr(tables, "evaluate_run", None)
    assert cell_of(row, config, tmp_path, workers=0, console=console) == first


def test_a_cell_that_was_trained_and_not_measured_is_measured_alone(
    tmp_path: Path, noise: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe("frame-random", like="demo", data=noise, steps=2)
    config = replace(config, batch=4, val_clips=4, test_clips=6)
    cell_of(Row(label="", preset="frame-random"), config, tmp_path, workers=0, console=console)
    monkeypatch.setattr(tables, "train", None)
    every = Row(label="", preset="frame-random", still="every")
    evaluation = cell_of(every, config, tmp_path, workers=0, console=console)
    assert evaluation["clips"] == 6
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.glob("*.json")}
    assert {"cell.json", "evaluation.json", "evaluation-every.json"} <= names


def test_a_table_shows_ours_beside_the_published_numbers(console: Console) -> None:
    def evaluation(city: float) -> dict[str, Any]:
        levels = {
            level: {"top1": {"value": city, "low": city - 0.1, "high": city + 0.1}}
            for level in LEVELS
        }
        mode = {**levels, "conflict_rate": {"value": 0.0}}
        return {"clips": 900, "dataset": "a world", "metrics": {"codependent": mode}}

    row = Row(label="ours", preset="paper", published=(69.6, 70.2, 74.8, 83.8))
    record = show_table("Title", (row,), {"ours": [evaluation(0.5)]}, "codependent", console)
    shown = console.export_text()
    for text in ("Title", "900 clips of a world", "50.0 (40.0-60.0)", "69.6", "83.8"):
        assert text in " ".join(shown.split())
    assert json.loads(json.dumps(record))["rows"][0]["ours"]["city"]["value"] == 50.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "hierarchy"),
        (
            ["components", "--mode", "foo"],
            "without, independent, codependent, trace_only, marginal",
        ),
        (["components", "--like", "nosuch"], "there is no preset 'nosuch'"),
    ],
)
def test_a_wrong_word_is_told_at_once_with_those_there_are(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(tables.app, [*arguments, "--out", str(tmp_path / "cells")])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "cells").exists()


def test_cells_that_could_not_be_measured_are_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"train": Footage(), "val": Footage(), "test": Footage(clips=0)}
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: parts[request.split]))
    monkeypatch.setattr(tables, "train", None)
    words = ["components", "--like", "demo", "--data", "noise:.", "--out", str(tmp_path)]
    result = CliRunner().invoke(tables.app, words)
    assert result.exit_code == 2, result.output
    assert "it has no clips to test on" in result.output


def test_weights_for_non_commercial_use_are_taken_where_that_is_accepted(
    tmp_path: Path, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def train(*_: object, is_accepted: bool, **__: object) -> None:
        asked.append(is_accepted)
        raise TrainError("enough")

    monkeypatch.setattr(tables, "train", train)
    words = ["components", "--like", "demo", "--data", noise, "--out", str(tmp_path)]
    for more in ([], ["--accept-licence"]):
        assert CliRunner().invoke(tables.app, [*words, *more]).exit_code == 2
    assert asked == [False, True]


def test_tables_of_earlier_commands_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cells/tables.json"
    keep_tables({"components": {"title": "one"}, "hierarchy": {"title": "two"}}, path)
    keep_tables({"hierarchy": {"title": "three"}}, path)
    found = json.loads(path.read_text())["tables"]
    assert found == {"components": {"title": "one"}, "hierarchy": {"title": "three"}}
    path.write_text("[]")
    with pytest.raises(TrainError, match="Move it away"):
        keep_tables({}, path)


def test_percentages_have_no_digits_that_mean_nothing() -> None:
    thirds = {"value": 0.1 * 3 - 0.0, "low": 0.29999999999999996, "high": 0.3}
    assert pool([thirds]).record()["value"] == 30.0
