import io
import json
import math
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from engines.bundle import LEVELS
from tests.hub import Hub, running
from tests.unit.train.test_fit import Footage
from train import cells, tables
from train.cells import cell_of
from train.checkpoint import load_checkpoint
from train.comparison import PaperTable, Row, pool, read_tables, record_table, show_table
from train.config import load_preset, preset_names
from train.count import cost_of, lay_out_preset
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.data.loading import Batch
from train.data.sources import SOURCES, Source
from train.errors import TrainError
from train.evaluate import evaluate_run
from train.evaluation.report import MODES
from train.loop import Learner
from train.tables import keep_tables, plan_table, recipe


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=120, file=io.StringIO())


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: Footage()))
    return "noise:."


def test_every_row_is_a_preset_and_the_published_numbers_are_those_of_the_paper() -> None:
    found = read_tables()
    assert set(found) == {"components", "hierarchy", "sota", "image-video", "additions", "msls"}
    rows = [row for table in found.values() for row in table.rows]
    assert {row.preset for row in rows} <= set(preset_names())
    for name in ("components", "sota"):
        assert found[name].rows[-1].published == (69.6, 70.2, 74.8, 83.8)
    assert found["msls"].rows[-1].published == (72.8, 72.8, 73.2, 88.1)
    # City is never easier than continent.
    for row in rows:
        assert row.published is None or list(row.published) == sorted(row.published)


@pytest.mark.parametrize(
    ("name", "label", "trunk_m", "gmac"),
    [
        # VideoMAE's model zoo: 22 M and 57 G. TimeSformer's table: 121.4 M with its classifier of
        # 400 and 0.59 T for three views. ViT-B/16: 85.8 M and 17.6 G for one picture. ResNet-50:
        # 25.6 M with its classifier of 1000, and 4.09 G.
        ("sota", "VideoMAE", 21.88, 56.9),
        ("sota", "CityGuessr", 21.88, 56.9),
        ("sota", "TimeSformer", 121.3, 590 / 3),
        ("sota", "PlaNet", 23.51, 4.09),
        ("image-video", "MAE, random frame", 85.8, 17.58),
        ("image-video", "MAE, all frames, averaged", 85.8, 16 * 17.58),
        ("msls", "CityGuessr", 21.88, 56.9),
    ],
)
def test_rows_cost_what_is_known_of_their_networks(
    name: str, label: str, trunk_m: float, gmac: float
) -> None:
    (row,) = (row for row in read_tables()[name].rows if row.label == label)
    cost = cost_of(lay_out_preset(row.preset, class_counts(cityguessr_tree().hierarchy)))
    assert cost.trunk / 1e6 == pytest.approx(trunk_m, rel=2e-3)
    assert cost.macs / 1e9 == pytest.approx(gmac, rel=2e-2)


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
    configs = [load_preset(row.preset) for row in read_tables()["components"].rows]
    plain = {
        replace(config, preset="", describes="", model=configs[0].model, loss=configs[0].loss)
        for config in configs
    }
    assert len(plain) == 1


def test_a_single_picture_is_learned_whole_where_a_clip_is_learned_in_part() -> None:
    still, clip = recipe("mae-random", like="demo"), recipe("classifiers", like="demo")
    assert (still.model.keep_tokens, still.model.last_keep_tokens) == (1.0, 1.0)
    assert clip.model.keep_tokens == load_preset("demo").model.keep_tokens < 1


def test_all_systems_have_the_same_budget() -> None:
    rows = [row for table in read_tables().values() for row in table.rows]
    recipes = [recipe(row.preset, like="demo", data="shards:.", steps=500) for row in rows]
    assert {(each.steps, each.batch, each.views, each.accumulate) for each in recipes} == {
        (500, 32, 1, 1)
    }


def test_msls_is_a_dataset_of_its_own() -> None:
    plan = partial(plan_table, read_tables()["msls"], like=None, steps=None, seeds=1)
    for given, wanted in ((None, "msls:MSLS"), ("msls:/data/MSLS", "msls:/data/MSLS")):
        assert {config.data for _, (config,) in plan(data=given)} == {wanted}


def test_all_tables_are_those_of_cityguessr(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Row] = []

    def need_tests(plan: list[tuple[Row, object]], out: Path) -> None:
        asked.extend(row for row, _ in plan)
        raise TrainError("enough")

    monkeypatch.setattr(tables, "need_tests", need_tests)
    assert CliRunner().invoke(tables.app, ["all"]).exit_code == 2
    found = read_tables()
    wanted = [row for name, table in found.items() if name != "msls" for row in table.rows]
    assert asked == wanted


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
    monkeypatch.setattr(cells, "train", None)
    monkeypatch.setattr(cells, "evaluate_run", None)
    assert cell_of(row, config, tmp_path, workers=0, console=console) == first
    model, _ = load_checkpoint(next(tmp_path.iterdir()))
    assert first["cost"]["parameters"] == sum(each.numel() for each in model.parameters())
    # One that was damaged is measured again, and not trained again.
    monkeypatch.setattr(cells, "evaluate_run", evaluate_run)
    path = cells.cell_path(row, config, tmp_path)
    path.write_text(path.read_text()[:100])
    assert cell_of(row, config, tmp_path, workers=0, console=console) == first
    path.write_text("")
    (path.parent / "model.safetensors").write_text("")
    with pytest.raises(TrainError, match="delete the folder"):
        cell_of(row, config, tmp_path, workers=0, console=console)


def test_a_cell_that_was_cut_off_goes_on_and_ends_as_if_it_had_not(
    tmp_path: Path, noise: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe("classifiers", like="demo", data=noise, steps=4)
    config = replace(config, batch=4, val_clips=4, test_clips=6)
    row = Row(label="", preset="classifiers")
    make = partial(cell_of, row, config, workers=0, console=console)
    whole = make(tmp_path / "whole")

    step, taken = Learner.step, []

    def cut_off(learner: Learner, batch: Batch, number: int) -> None:
        taken.append(number)
        if taken == [0, 1]:
            signal.raise_signal(signal.SIGTERM)
        step(learner, batch, number)

    monkeypatch.setattr(Learner, "step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut")
    assert list(tmp_path.glob("cut/*/last"))
    assert not list(tmp_path.glob("cut/*/evaluation*"))
    assert make(tmp_path / "cut") == whole
    assert taken == [0, 1, 2, 3]


def test_a_cell_that_was_trained_and_not_measured_is_measured_alone(
    tmp_path: Path, noise: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe("mae-random", like="demo", data=noise, steps=2)
    config = replace(config, batch=4, val_clips=4, test_clips=6)
    one = cell_of(Row(label="", preset="mae-random"), config, tmp_path, workers=0, console=console)
    monkeypatch.setattr(cells, "train", None)
    every = Row(label="", preset="mae-random", still="every")
    evaluation = cell_of(every, config, tmp_path, workers=0, console=console)
    assert evaluation["clips"] == 6
    gmac = 16 * one["cost"]["gmac_per_clip"]
    assert evaluation["cost"]["gmac_per_clip"] == pytest.approx(gmac, rel=1e-4)
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.glob("*.json")}
    assert {"cell.json", "evaluation.json", "evaluation-every.json"} <= names


def evaluation(city: float, **more: object) -> dict[str, Any]:
    """Right in so many cases at city level, and a little more often in each further decoding."""

    def found(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    metrics = {
        mode: {
            **{level: {"top1": found(city + number / 100)} for level in LEVELS},
            "conflict_rate": {"value": 0.25, "low": 0.2, "high": 0.3},
        }
        for number, mode in enumerate(MODES)
    }
    cost = {"parameters": 22_630_000, "trunk_parameters": 21_880_000, "gmac_per_clip": 56.88}
    return {"clips": 900, "dataset": "a world", "metrics": metrics, "cost": cost, **more}


TABLE = PaperTable(
    title="Title",
    note="The paper does not say.",
    rows=(
        Row(label="the whole of ours", preset="paper", published=(69.6, 70.2, 74.8, 83.8)),
        Row(label="without", preset="paper", mode="without"),
    ),
)


@pytest.mark.parametrize("width", [120, 80, 60])
def test_a_table_shows_every_decoding_above_the_published_numbers(width: int) -> None:
    console = Console(record=True, width=width, file=io.StringIO())
    show_table(record_table(TABLE, [[evaluation(0.5)]] * 2), console)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    costs = () if width == 60 else ("22.63", "56.88")
    for text in ("Title", "900 clips of a world", *costs, "The paper does not say."):
        assert text in shown
    assert "CityGuessr68k" in shown
    found = {mode: [line for line in lines if f" {mode} " in line] for mode in MODES}
    assert [len(found[mode]) for mode in MODES] == [2 if mode == "without" else 1 for mode in MODES]
    for number, mode in enumerate(MODES):
        interval = f" ({40 + number}-{60 + number})" if width == 120 else ""
        assert found[mode][0].count(f"{50 + number}.0{interval}") == len(LEVELS)
        assert found[mode][0].endswith(" 25.0")
    (published,) = (line for line in lines if "the paper " in line and "69.6" in line)
    assert lines.index(published) == lines.index(found[MODES[-1]][0]) + 1
    assert published.split()[-4:] == ["69.6", "70.2", "74.8", "83.8"]


def test_a_table_of_ours_alone_names_nothing_published() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    ours = PaperTable(title="Title", rows=TABLE.rows[1:])
    show_table(record_table(ours, [[evaluation(0.5)]]), console)
    assert "the paper" not in console.export_text()


def test_one_decoding_is_shown_where_one_is_asked_for() -> None:
    record = record_table(TABLE, [[evaluation(0.5), evaluation(0.6)]] * 2, ("marginal",))
    ours, fixed = json.loads(json.dumps(record))["rows"]
    assert ours["decodings"]["marginal"]["city"]["value"] == pytest.approx(59)
    assert set(ours["decodings"]) == {"marginal"}
    assert set(fixed["decodings"]) == {"without"}  # it is about that one
    assert record["seeds"] == 2
    assert ours["published"] == [69.6, 70.2, 74.8, 83.8]


def test_use_of_experts_is_a_mean_over_seeds() -> None:
    def routed(share: float) -> dict[str, Any]:
        routes = {"urban": {"mean_share": share}, "nature": {"mean_share": 1 - share}}
        return evaluation(0.5, routing={"expert": {"clips": 900, "routes": routes}})

    record = record_table(TABLE, [[routed(0.25), routed(0.75)], [evaluation(0.5)] * 2])
    assert record["rows"][0]["routing"] == {
        "expert": {"urban": {"mean_share": 0.5}, "nature": {"mean_share": 0.5}}
    }
    assert "routing" not in record["rows"][1]


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
    monkeypatch.setattr(cells, "train", None)
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

    monkeypatch.setattr(cells, "train", train)
    words = ["components", "--like", "demo", "--data", noise, "--out", str(tmp_path)]
    for more in ([], ["--accept-licence"]):
        assert CliRunner().invoke(tables.app, [*words, *more]).exit_code == 2
    assert asked == [False, True]


def test_weights_that_may_not_be_fetched_are_told_before_anything_is_trained(
    tmp_path: Path, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    def train(*_: object, **__: object) -> None:
        pytest.fail("a cell was trained")

    monkeypatch.setattr(cells, "train", train)
    folders = {name: tmp_path / name for name in ("resnet", "vit", "timesformer")}
    for folder in folders.values():
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}", encoding="utf-8")
    repositories = {
        "microsoft/resnet-50": folders["resnet"],
        "google/vit-base-patch16-224-in21k": folders["vit"],
        "microsoft/swin-base-patch4-window7-224-in22k": folders["vit"],
        "facebook/timesformer-base-finetuned-k400": folders["timesformer"],
    }
    licences = {"facebook/timesformer-base-finetuned-k400": "cc-by-nc-4.0"}
    with running(Hub(repositories=repositories, licences=licences)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        words = ["sota", "--data", noise, "--out", str(tmp_path / "cells")]
        result = CliRunner().invoke(tables.app, words)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "fetching facebook/timesformer-base-finetuned-k400" in said
    assert "--accept-licence" in said


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
