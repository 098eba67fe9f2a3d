from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

import train.config
from train.config import config_from_record, load_preset, preset_names
from train.data.dataset import Augmentation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_shipped_preset_loads() -> None:
    assert preset_names()
    for name in preset_names():
        assert load_preset(name).preset == name


def test_flags_change_a_preset_and_missing_flags_do_not() -> None:
    config = load_preset("demo", steps=7, optimiser_lr=None, model_keep_tokens=0.5)
    usual = load_preset("demo")
    assert config.steps == 7
    assert config.optimiser == usual.optimiser
    assert config.model == replace(usual.model, keep_tokens=0.5)


def test_epochs_take_the_place_of_steps_and_steps_that_of_epochs() -> None:
    by_epochs = load_preset("demo", epochs=2.5)
    assert (by_epochs.steps, by_epochs.epochs) == (None, 2.5)
    by_steps = load_preset("paper", steps=10)
    assert (by_steps.steps, by_steps.epochs) == (10, None)


@pytest.mark.parametrize("name", preset_names())
def test_a_configuration_comes_back_from_its_record(name: str) -> None:
    config = load_preset(name)
    record = json.loads(json.dumps(asdict(config)))
    assert config_from_record(record, source="checkpoint.json") == config


@pytest.mark.parametrize(
    ("name", "scene", "text", "target", "weights"),
    [
        ("classifiers", "none", "none", None, (0, 0)),
        ("scenes-majority", "attention", "none", "majority", (1, 0)),
        ("scenes-soft", "attention", "none", "soft", (1, 0)),
        ("text-city", "attention", "city", "soft", (1, 1)),
        ("paper", "attention", "all", "soft", (1, 1)),
        ("reference", "attention", "all", "soft", (1, 12)),
    ],
)
def test_presets_are_the_rows_of_the_papers_table(
    name: str, scene: str, text: str, target: str | None, weights: tuple[float, float]
) -> None:
    config = load_preset(name)
    assert (config.model.size, config.model.scene, config.model.text) == ("small", scene, text)
    assert (config.loss.scene_weight, config.loss.text_weight) == weights
    if target is not None:
        assert config.loss.scene_target == target


def test_the_reference_preset_trains_as_the_released_code_does() -> None:
    config = load_preset("reference")
    optimiser = config.optimiser
    assert (optimiser.name, optimiser.lr, optimiser.schedule) == ("adam", 1e-3, "constant")
    assert (optimiser.weight_decay, optimiser.warmup_share, optimiser.layer_decay) == (0, 0, 1)
    assert (config.batch, config.epochs, config.selection) == (12, 12, "test")
    assert (config.model.normalisation, config.model.num_heads) == ("none", "config")
    assert (config.input.picking, config.input.resize) == ("lexicographic", "squash")
    assert config.input.augmentation == Augmentation()


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="demo"):
        load_preset("nosuch")


def test_an_unknown_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (train.config.PRESETS / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "odd.toml").write_text("stepz = 3\n" + text, encoding="utf-8")
    monkeypatch.setattr(train.config, "PRESETS", tmp_path)
    with pytest.raises(ValueError, match="stepz"):
        load_preset("odd")


def test_an_unknown_key_of_a_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (train.config.PRESETS / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "odd.toml").write_text(text.replace("lr =", "rate ="), encoding="utf-8")
    monkeypatch.setattr(train.config, "PRESETS", tmp_path)
    with pytest.raises(ValueError, match=r"odd\.toml: unknown keys \['rate'\]"):
        load_preset("odd")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("[model]", "[model"), "odd.toml"),
        (lambda text: text.replace("lr = 1.0e-3", 'lr = "fast"'), "of a wrong kind"),
        (lambda text: text.replace("batch = 32\n", ""), "a key is missing"),
        (lambda text: text.split("[optimiser]")[0], "a key is missing"),
        (lambda text: "loss = 3\n" + text.replace("[loss]", "[input]"), "wrong kind|unknown"),
    ],
)
def test_a_damaged_preset_names_its_file(
    damage: Callable[[str], str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (train.config.PRESETS / "demo.toml").read_text(encoding="utf-8")
    assert damage(text) != text
    (tmp_path / "odd.toml").write_text(damage(text), encoding="utf-8")
    monkeypatch.setattr(train.config, "PRESETS", tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        load_preset("odd")
    assert "odd.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps 0 must be positive"),
        ({"batch": 0}, "batch 0 must be positive"),
        ({"accumulate": 0}, "accumulate 0 must be positive"),
        ({"accumulate": 5}, "batch 32 must be a multiple of accumulate 5"),
        ({"optimiser_lr": 0.0}, r"lr 0\.0 must be positive"),
        ({"optimiser_lr": math.nan}, "lr nan must be positive"),
        ({"optimiser_warmup_share": 2.0}, "warmup_share"),
        ({"optimiser_betas": (0.9, 1.0)}, r"betas 1\.0"),
        ({"optimiser_weight_decay": -1.0}, "weight_decay"),
        ({"optimiser_ema_decay": 1.0}, "ema_decay"),
        ({"optimiser_name": "sgd"}, "'sgd' is none of adamw, adam"),
        ({"model_keep_tokens": 0.0}, r"keep_tokens 0\.0"),
        ({"model_last_keep_tokens": 1.5}, r"last_keep_tokens 1\.5"),
        ({"model_last_share": 3.0}, "last_share"),
        ({"model_size": "huge"}, "'huge' is none of tiny, small, base"),
        ({"model_num_heads": 0}, "num_heads 0"),
        ({"loss_label_smoothing": 1.5}, "label_smoothing"),
        ({"loss_scene_weight": -1.0}, "scene_weight"),
        ({"model_scene": "none"}, "loss.scene_weight needs a scene head"),
        ({"loss_scene_weight": 0.0}, "model.scene linear needs loss.scene_weight"),
        ({"model_text": "all"}, "model.text all needs loss.text_weight"),
        ({"loss_text_weight": 1.0}, "loss.text_weight needs a text"),
        ({"steps": 5, "epochs": 2.0}, "one of the two is given"),
        ({"nosuch": 3}, "changing the preset demo: .*nosuch"),
        ({"model_nosuch": 3}, "changing the preset demo: .*nosuch"),
    ],
)
def test_values_that_could_only_fail_later_are_refused(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load_preset("demo", **change)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"batch 0 .*; lr 0") as caught:
        load_preset("demo", batch=0, optimiser_lr=0, model_scene="film")
    assert "'film' is none of none, linear, attention" in str(caught.value)
