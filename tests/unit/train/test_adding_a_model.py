"""The page that adds a model, followed word by word."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import train.models
from engines.bundle import read_bundle
from geotag.cli import main as geotag
from train.data.rendered import write_video
from train.data.world import draw_drive
from train.evaluate import app as evaluate_app
from train.export import export_bundle
from train.fit import app as fit_app
from train.models.kinds import KINDS

PAGE = Path(__file__).parents[3] / "docs/adding-a-model.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, a preset and a line in the table, as the page has them."""
    file, line = blocks("python")
    (recipe,) = blocks("toml")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "colours.py").write_text(file, encoding="utf-8")
    (tmp_path / "colours.toml").write_text(recipe, encoding="utf-8")
    monkeypatch.setattr(train.models, "__path__", [*train.models.__path__, str(folder)])
    ((name, module),) = re.findall(r'^    "(\w+)": "([\w.]+)",$', line, re.MULTILINE)
    monkeypatch.setitem(KINDS, name, module)
    return tmp_path / "colours.toml"


def test_a_model_is_one_file_one_preset_and_one_line(preset: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    words = ["--preset", preset, "--out", run, "--steps", 3, "--workers", 0, "--device", "cpu"]
    trained = CliRunner().invoke(fit_app, list(map(str, words)))
    assert trained.exit_code == 0, trained.output
    facts = json.loads((run / "checkpoint.json").read_text(encoding="utf-8"))
    assert (facts["kind"], facts["config"]["cells"]) == ("colours", 8)

    words = ["--model", run, "--workers", 0, "--test-clips", 12, "--out", tmp_path / "looked at"]
    measured = CliRunner().invoke(evaluate_app, list(map(str, words)))
    assert measured.exit_code == 0, measured.output

    report = export_bundle(run, bundle, console=Console(file=io.StringIO()))
    assert report.parity["ONNX Runtime"] is not None
    manifest = read_bundle(bundle).manifest
    assert manifest.description.startswith("Colours-custom, 4 frames of 32 px")
    assert manifest.training["model_kind"] == "colours"
    assert manifest.training["model_cells"] == 8
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "a network of mean colours with one linear classifier" in card

    write_video(draw_drive("test", 0), tmp_path / "drive.mp4", duration_s=3.0, render_width=160)
    tags = tmp_path / "tags.csv"
    words = ["scan", tmp_path / "drive.mp4", "--bundle", bundle, "--out", tags]
    assert geotag(list(map(str, words))) == 0
    with tags.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["status"] == "ok"
    assert row["city_1"]
