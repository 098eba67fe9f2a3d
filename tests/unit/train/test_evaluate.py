import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.pictures import grey_jpeg
from train.checkpoint import save_checkpoint
from train.config import load_preset
from train.data.clips import class_counts, rendered_hierarchy, rendered_places_csv
from train.evaluate import app
from train.export import export_bundle
from train.models.geolocator import Geolocator
from train.models.videomae import VideoMAEConfig

DEMO = Path(__file__).parents[3] / "geotag/demo_bundle"
CONFIG = VideoMAEConfig(frames=4, image_px=32, width=24, depth=2, heads=3, mlp_width=40)
MODES = ("without", "independent", "codependent", "trace_only", "marginal")


def evaluate(*arguments: str | Path) -> tuple[int, str]:
    """Exit code, and what was printed as one line."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--workers", "0"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the rendered world that has learned nothing."""
    torch.manual_seed(0)
    model = Geolocator(CONFIG, class_counts(rendered_hierarchy()))
    facts = asdict(load_preset("demo", val_clips=4, test_clips=3))
    save_checkpoint(tmp_path / "run", model, places_csv=rendered_places_csv(), facts=facts)
    return tmp_path / "run"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """CityGuessr68k in miniature: of its cities only Nairobi is in the rendered world."""
    for city in ("Nairobi", "Abu_Dhabi"):
        for part, index in (("train", 0), ("train", 1), ("val", 2)):
            folder = tmp_path / "CityGuessr68k" / part / city / f"{city}_{index:04}"
            folder.mkdir(parents=True)
            for number in range(1, 17):
                (folder / f"{number}.jpg").write_bytes(grey_jpeg(10 * number))
    return tmp_path / "CityGuessr68k"


def test_a_bundle_is_measured_as_a_scan_would_run_it(tmp_path: Path) -> None:
    code, text = evaluate("--model", DEMO, "--test-clips", "12", "--out", tmp_path / "out")
    assert code == 0, text
    found = read(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("confusion.png", "evaluation.json", "reliability.png")
    ]
    assert found["clips"] == 12
    assert found["model"].startswith("demo@")
    assert found["calibrated_by"] == "the bundle"
    assert found["modes"]["marginal"]["city"] > 0.6  # chance is 1 in 24
    assert set(found["metrics"]) == set(MODES)
    assert [row["clips"] for row in found["policies"]] == [4, 4, 4]
    assert "12 samples of rendered world test" in text


def test_a_run_is_calibrated_on_its_own_data_and_can_then_be_exported(
    run: Path, tmp_path: Path
) -> None:
    code, text = evaluate("--checkpoint", run, "--no-plots")
    assert code == 0, text
    found = read(run)
    assert (found["data"], found["split"], found["clips"]) == ("rendered", "test", 3)
    assert found["calibrated_by"] == "4 clips of rendered world val"
    assert set(found["calibration"]) == set(found["modes"]) == set(MODES)
    assert not (run / "confusion.png").exists()
    manifest = json.loads(
        (export_bundle(run, tmp_path / "bundle").path / "bundle.json").read_text()
    )
    assert [policy["clips"] for policy in manifest["sampling"]["policies"]] == [1, 1, 1]
    assert (
        manifest["calibration"]["marginal"]["city"]["temperature"]
        == found["calibration"]["marginal"]["city"]["temperature"]
    )


def test_other_data_is_mapped_and_leaves_the_evaluation_of_the_run_alone(
    run: Path, release: Path
) -> None:
    assert evaluate("--model", run, "--no-plots")[0] == 0
    own = (run / "evaluation.json").read_bytes()
    code, text = evaluate("--model", run, "--data", f"cityguessr:{release}", "--no-plots")
    assert code == 0, text
    assert (run / "evaluation.json").read_bytes() == own
    found = read(run / "evaluation-cityguessr-CityGuessr68k-test")
    assert found["calibrated_by"] == "the run's evaluation.json"
    assert found["calibration"] == json.loads(own)["calibration"]
    assert found["samples"] == 2
    assert found["open_set"]["cities"] == [{"city": "Abu Dhabi", "clips": 1}]
    assert found["metrics"]["marginal"]["city"]["clips"] == 1
    assert found["metrics"]["marginal"]["continent"]["clips"] == 2
    assert [row["clips"] for row in found["policies"]] == [0, 0, 0]
    assert str(release.parent) not in json.dumps({**found, "command": ""})


def test_another_way_of_looking_leaves_the_evaluation_of_the_run_alone(run: Path) -> None:
    assert evaluate("--model", run, "--clips", "2", "--no-plots")[0] == 0
    assert not (run / "evaluation.json").exists()
    assert read(run / "evaluation-rendered-test-2-clips")["clips_per_answer"] == 2


def test_a_smaller_evaluation_leaves_that_of_the_run_alone(run: Path) -> None:
    assert evaluate("--model", run, "--test-clips", "3", "--val-clips", "4")[0] == 0
    own = (run / "evaluation.json").read_bytes()
    assert (run / "confusion.png").exists()
    for words, name in (
        (("--test-clips", "4"), "evaluation-rendered-test-4-samples"),
        (("--val-clips", "5"), "evaluation-rendered-test-5-calibrating"),
    ):
        assert evaluate("--model", run, *words, "--no-plots")[0] == 0
        assert (run / "evaluation.json").read_bytes() == own
        assert read(run / name)["clips"] == int(words[1]) if "test" in words[0] else 3
    assert evaluate("--model", run, "--no-plots")[0] == 0
    assert not (run / "confusion.png").exists()
    assert not (run / "reliability.png").exists()


def test_more_samples_than_there_are_is_all_of_them(run: Path, release: Path) -> None:
    words = ("--model", run, "--data", f"cityguessr:{release}", "--no-plots")
    assert evaluate(*words)[0] == 0
    assert evaluate(*words, "--test-clips", "100")[0] == 0
    assert [path.name for path in run.glob("evaluation-*")] == [
        "evaluation-cityguessr-CityGuessr68k-test"
    ]


def test_counting_what_calibrated_is_said(run: Path) -> None:
    code, text = evaluate("--model", run, "--split", "val", "--no-plots")
    assert code == 0, text
    assert "the part that is counted here" in text


def test_a_model_compared_with_itself_differs_by_nothing(run: Path) -> None:
    code, text = evaluate("--model", run, "--against", run, "--by-drive", "--no-plots")
    assert code == 0, text
    found = read(run)
    assert found["against"]["marginal"]["city"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["drives"]["drives"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split", "exam"), "--split 'exam': allowed are train, val, test"),
        (("--picking", "mixed"), "--picking 'mixed': allowed are uniform, ends"),
        (("--data", "youtube:x"), "'youtube:x'"),
        (("--data", "msls:/nowhere"), "there is no file or folder /nowhere"),
    ],
)
def test_a_wrong_choice_is_named_with_what_there_is(
    run: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, text = evaluate("--model", run, *arguments)
    assert code == 2
    assert said in text


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    code, text = evaluate("--model", tmp_path)
    assert code == 2
    assert "it holds neither checkpoint.json" in text


def test_a_bundle_of_roads_must_be_told_on_what(onnx_bundle: Path) -> None:
    code, text = evaluate("--model", onnx_bundle)
    assert code == 2
    assert "what it was trained on is not known" in text


def test_a_damaged_bundle_ends_as_a_scan_with_it_would(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    code, text = evaluate("--model", tmp_path)
    assert code == 6
    assert "not a bundle manifest" in text


def test_a_damaged_calibration_is_not_used(run: Path, release: Path) -> None:
    (run / "evaluation.json").write_text('{"calibration": {"marginal": 3}}')
    code, text = evaluate("--model", run, "--data", f"cityguessr:{release}", "--no-plots")
    assert code == 2
    assert "it is damaged" in text


def test_an_output_that_cannot_be_written_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, text = evaluate("--model", run, "--out", tmp_path / "taken", "--no-plots")
    assert code == 5
    assert "Choose another --out" in text
