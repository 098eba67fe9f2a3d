"""From nothing to tags: a smoke run of training, the export, a scan with the result."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from train.data.rendered import write_video
from train.data.world import draw_drive

LEVELS = ("city", "state", "country", "continent")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(folder: Path) -> subprocess.CompletedProcess[str]:
    # Without --out the run lands where the README says: runs/demo.
    return run(
        "train.fit", "--steps", "2", "--val-clips", "12", "--test-clips", "12", folder=folder
    )


def test_training_ends_with_a_table_of_all_levels_and_modes(
    trained: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert trained.returncode == 0, trained.stderr
    for mode in ("without", "independent", "codependent", "trace_only", "marginal"):
        assert mode in trained.stdout
    evaluation = json.loads((folder / "runs/demo/evaluation.json").read_text(encoding="utf-8"))
    assert set(evaluation["modes"]["marginal"]) == set(LEVELS)
    (line,) = (folder / "runs/demo/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["step"] == 2


def test_the_run_becomes_a_bundle_and_the_bundle_tags_a_video(
    trained: subprocess.CompletedProcess[str], folder: Path
) -> None:
    exported = run("geotag", "export", "--checkpoint", "runs/demo", "--out", "mine", folder=folder)
    assert exported.returncode == 0, exported.stderr
    write_video(draw_drive("test", 0), folder / "drive.mp4", duration_s=3.0, render_width=160)
    scanned = run(
        "geotag", "scan", "drive.mp4", "--bundle", "mine", "--out", "tags.csv", folder=folder
    )
    assert scanned.returncode == 0, scanned.stderr
    with (folder / "tags.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["status"] == "ok"
    assert 0 < float(row["confidence_city"]) <= float(row["confidence_continent"]) <= 1


def test_every_option_of_training_is_explained(folder: Path) -> None:
    shown = run("train.fit", "--help", folder=folder)
    assert shown.returncode == 0
    for option in ("--preset", "--out", "--steps", "--batch", "--lr", "--seed", "--workers"):
        assert option in shown.stdout


def test_an_unknown_preset_is_refused_with_those_there_are(folder: Path) -> None:
    refused = run("train.fit", "--preset", "nosuch", folder=folder)
    assert refused.returncode == 2
    assert "demo" in refused.stderr
