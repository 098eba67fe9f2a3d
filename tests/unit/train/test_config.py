from pathlib import Path

import pytest

import train.config
from train.config import load_preset, preset_names


def test_every_shipped_preset_loads() -> None:
    assert preset_names()
    for name in preset_names():
        assert load_preset(name).preset == name


def test_flags_change_a_preset_and_missing_flags_do_not() -> None:
    config = load_preset("demo", steps=7, lr=None)
    assert config.steps == 7
    assert config.lr == load_preset("demo").lr


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="demo"):
        load_preset("nosuch")


def test_an_unknown_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (train.config.PRESETS / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "odd.toml").write_text("stepz = 3\n" + text, encoding="utf-8")
    monkeypatch.setattr(train.config, "PRESETS", tmp_path)
    with pytest.raises(ValueError, match="stepz"):
        load_preset("odd")


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"keep_tokens": 0.0}, {"keep_tokens": 1.5}]
)
def test_values_that_could_only_fail_later_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        load_preset("demo", **change)
