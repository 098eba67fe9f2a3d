"""The presets of options from a recipe to tags, and what is told of them on the way."""

from __future__ import annotations

import csv
import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import geotag
from engines.bundle import LEVELS, read_bundle
from geotag.cli import main
from geotag.places.hierarchy import decode, marginals
from geotag.wish import PrecisionWish
from tests.options import TEXTS, tree
from tests.unit.train.test_fit import Footage, fit
from train.build import build_model, open_sources
from train.checkpoint import CheckpointError, load_checkpoint
from train.config import TrainConfig, load_preset
from train.data.rendered import write_video
from train.data.sources import SOURCES, Source
from train.data.world import draw_drive
from train.evaluate import evaluate_run, write_evaluation
from train.evaluation.calibrate import calibrate, uncalibrated
from train.evaluation.metrics import Predictions, conflicts
from train.export import export_bundle
from train.from_bundle import load_bundle_model
from train.loop import Learner
from train.models.base import FeatureModel
from train.models.labels import CosineLabels
from train.place_texts import label_vectors
from train.tables import recipe
from train.texts import name_table

SMALL: dict[str, Any] = {"image_px": 32, "width": 32, "depth": 1, "heads": 2, "mlp_width": 48}
PRESETS = ("cosine", "marginal", "haversine")
DEMO = Path(geotag.__file__).parent / "demo_bundle"


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {split: Footage() for split in ("train", "val", "test")}
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: parts[request.split]))


def tiny(preset: str, *, steps: int = 3) -> TrainConfig:
    """A preset as the tables try it in the rendered world, and smaller still."""
    config = recipe(preset, like="demo", data="noise:.", steps=steps)
    model = replace(config.model, options={**SMALL, "frames": 4})
    policies = config.policies[1:2]
    return replace(
        config, model=model, batch=4, val_clips=6, test_clips=6, texts="names", policies=policies
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_it_trains_is_measured_becomes_a_bundle_and_tags(preset: str, tmp_path: Path) -> None:
    config, run, bundle = tiny(preset), tmp_path / "run", tmp_path / "bundle"
    assert config.model.warm_start
    fit(config, run)
    model, _ = load_checkpoint(run)
    console = Console(file=io.StringIO())
    evaluation = evaluate_run(model, config, workers=0, console=console, command="a command")
    for mode in ("codependent", "trace_only"):
        assert evaluation["metrics"][mode]["conflict_rate"]["value"] == 0
    write_evaluation(evaluation, run, plots=False)
    wish = PrecisionWish()
    if preset == "cosine":
        wish = PrecisionWish(
            precision="int8", calib="rendered", calib_clips=32, judged_clips=32, force=True
        )
    report = export_bundle(run, bundle, console=console, wish=wish)
    assert ("int8" in read_bundle(bundle).precisions) == (preset == "cosine")
    assert set(report.parity) == {"ONNX Runtime", "OpenVINO"}
    assert None not in report.parity.values()
    coarse = read_bundle(bundle).manifest.calibration["marginal"]["country"].temperature
    assert (coarse > 1000) == (preset == "marginal")

    write_video(draw_drive("test", 0), tmp_path / "drive.mp4", duration_s=3.0, render_width=160)
    tags = tmp_path / "tags.csv"
    words = ["scan", tmp_path / "drive.mp4", "--bundle", bundle, "--out", tags]
    assert main(list(map(str, words))) == 0
    with tags.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["status"], bool(row["city_1"])) == ("ok", True)
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    said = {"cosine": "by cosine", "marginal": "sums over", "haversine": "one linear classifier"}
    assert said[preset] in " ".join(card.split())


@pytest.mark.parametrize("form", [{"model_classifier": "cosine"}, {"model_hierarchy": "marginal"}])
def test_what_was_folded_cannot_be_read_from_a_bundle(form: dict[str, str]) -> None:
    shipped = read_bundle(DEMO)
    training = {**shipped.manifest.training, **form}
    bundle = replace(shipped, manifest=replace(shipped.manifest, training=training))
    assert load_bundle_model(shipped)
    with pytest.raises(CheckpointError, match=r"its classifiers .* were folded"):
        load_bundle_model(bundle)


@pytest.mark.parametrize("preset", ["cosine", "marginal"])
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tiny(preset), tmp_path / "whole")
    usual = Learner.step

    def interrupted(learner: Learner, batch: Any, step: int) -> None:  # noqa: ANN401
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        usual(learner, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(preset), tmp_path / "halves")
    fit(tiny(preset), tmp_path / "halves")
    found, wanted = (
        load_file(tmp_path / each / "model.safetensors") for each in ("halves", "whole")
    )
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_places_begin_as_their_names() -> None:
    config = tiny("cosine")
    sources = open_sources(replace(config, model=replace(config.model, coordinates=True)))
    model, _ = build_model(replace(config, model=replace(config.model, coordinates=True)), sources)
    assert isinstance(model, FeatureModel)
    assert isinstance(model.labels, CosineLabels)
    held = model.labels.embeddings["city"].detach().numpy()
    names = name_table(sources.train.hierarchy, variant="city")
    apart = names - names.mean(axis=0)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    np.testing.assert_allclose(held[:, :512], apart, atol=1e-6)
    place = sources.train.hierarchy.places["city"][3]
    assert place.lat_deg is not None
    assert held[3, 514] == pytest.approx(np.sin(np.radians(place.lat_deg)), abs=1e-6)


def test_a_country_begins_as_what_its_cities_share() -> None:
    city, everything = (name_table(tree(), TEXTS, variant) for variant in ("city", "all"))
    found = label_vectors(city, everything, tree(), coordinates=True)
    for level in LEVELS:
        assert found[level].shape == (tree().size(level), TEXTS + 3)
        lengths = np.linalg.norm(found[level][:, :TEXTS], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found[level][:, TEXTS:], axis=1), 1, atol=1e-5)
    means = np.stack(
        [everything[tree().ancestors["country"] == k].mean(axis=0) for k in range(5)]
    ).astype(np.float64)
    means -= means.mean(axis=0)
    wanted = means[1] / np.linalg.norm(means[1])
    np.testing.assert_allclose(found["country"][1, :TEXTS], wanted, atol=1e-5)


# --- decoding of levels that nest ---


def nested_predictions(count: int = 40) -> Predictions:
    """Random cities' scores, and logarithms of their sums above."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, tree().size("city")))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = marginals(shifted / shifted.sum(axis=1, keepdims=True), tree())
    cities = np.array([rng.choice(len(row), p=row) for row in probs["city"]])
    return Predictions(
        logits={
            level: (logits if level == "city" else np.log(probs[level])).astype(np.float32)
            for level in LEVELS
        },
        labels={level: tree().ancestors[level][cities] for level in LEVELS},
        names=tuple(map(str, range(count))),
        groups=tuple(map(str, range(count))),
        cities=cities,
        truths_deg=np.zeros((count, 2)),
        measured=np.zeros(count, bool),
    )


def test_a_scan_reads_the_cities_softmax_and_its_sums() -> None:
    """Products with sums over the same cities would count their evidence up to four times."""
    given = nested_predictions()
    for found in (uncalibrated(nests=True), calibrate(given, tree(), nests=True)):
        temperatures = {level: found["marginal"][level]["temperature"] for level in LEVELS}
        decoded = decode(given.logits, tree(), "marginal", temperatures)
        scaled = given.logits["city"].astype(np.float64) / temperatures["city"]
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        wanted = marginals(shares / shares.sum(axis=1, keepdims=True), tree())
        for level in LEVELS:
            np.testing.assert_allclose(decoded.probs[level], wanted[level], atol=1e-4)
    plain = decode(given.logits, tree(), "marginal")
    assert plain.probs["city"].max(axis=1).mean() > decoded.probs["city"].max(axis=1).mean() + 0.1


def test_other_modes_and_other_networks_are_calibrated_as_before() -> None:
    given = nested_predictions()
    ours, usual = calibrate(given, tree(), nests=True), calibrate(given, tree())
    assert {mode: ours[mode] for mode in ours if mode != "marginal"} == {
        mode: usual[mode] for mode in usual if mode != "marginal"
    }
    assert len({usual["marginal"][level]["temperature"] for level in LEVELS}) == 1
    assert uncalibrated()["marginal"]["state"] == {"temperature": 1.0, "threshold_prob": 0.5}


def test_nested_levels_never_contradict_each_other_where_the_city_decides() -> None:
    given = nested_predictions()
    for mode in ("codependent", "trace_only"):
        assert not conflicts(decode(given.logits, tree(), mode).labels, tree()).any()
    # Each level alone may rightly prefer another: two cities of a country outweigh one elsewhere.
    probs = np.array([[0.3, 0.3, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        logits: Any = {level: np.log(rows) for level, rows in marginals(probs, tree()).items()}
    alone = decode(logits, tree(), "without")
    assert (alone.labels["city"], alone.labels["country"]) == (4, 0)
    assert conflicts(alone.labels, tree()).all()


@pytest.mark.parametrize(
    ("preset", "changes", "said"),
    [
        ("demo", {"model_classifier": "dot"}, "model.classifier 'dot' is none of linear, cosine"),
        ("demo", {"model_hierarchy": "sum"}, "model.hierarchy 'sum' is none of separate, marginal"),
        ("demo", {"model_coordinates": True}, "model.coordinates needs model.classifier = cosine"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    preset: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load_preset(preset, **changes)


def test_rows_of_a_table_keep_their_options() -> None:
    rows = {preset: recipe(preset, like="demo") for preset in PRESETS}
    assert rows["cosine"].model.classifier == "cosine"
    assert rows["cosine"].texts == "names"
    assert rows["marginal"].model.hierarchy == "marginal"
    assert rows["marginal"].selection_decoding == "trace_only"
    assert rows["haversine"].loss.haversine_km == 150.0
    own = {preset: load_preset(preset) for preset in (*PRESETS, "geotag")}
    usual = own.pop("geotag")
    for preset, config in own.items():  # nothing else differs from our recipe
        kept = replace(
            config,
            preset="geotag",
            describes=usual.describes,
            model=usual.model,
            loss=usual.loss,
            selection_decoding=usual.selection_decoding,
        )
        assert kept == usual, preset
