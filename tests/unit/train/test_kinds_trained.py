"""Every kind of network from a preset to tags, and from published weights into a run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from calibration.errors import CalibrationError
from engines.bundle import read_bundle
from geotag.cli import main as geotag
from geotag.wish import PrecisionWish
from tests.unit.train.test_fit import Footage, fit
from train.build import NORMALISATIONS, build_model, open_sources
from train.checkpoint import load_checkpoint
from train.config import TrainConfig, load_preset
from train.data.rendered import write_video
from train.data.sources import SOURCES, Source
from train.data.world import SCENE_GROUPS, draw_drive
from train.errors import TrainError
from train.evaluate import evaluate_run, steady, write_evaluation
from train.evaluation.measure import Plan, view_of
from train.evaluation.opened import open_for
from train.evaluation.predict import predict
from train.evaluation.scorers import Routes
from train.export import export_bundle
from train.models.kinds import find_kind, shape_names
from train.models.timesformer import TimeSformer
from train.resume import load_state
from train.tables import recipe

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {"image_px": 32, "width": 32, "depth": 1, "heads": 2, "mlp_width": 48}
_DECODER: dict[str, Any] = {
    "vit_width": 32, "vit_depth": 1, "vit_heads": 2, "vit_mlp_width": 48,
    "swin_width": 12, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 4,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "timesformer": {},
    "mae-random": {},
    "mae-frames": {},
    "planet-album": {},
    "isns": {},
    "geodecoder": _DECODER,
    "geodecoder-swin": {**_DECODER, "encoder": "swin"},
}
"""Of each kind but the first, which has tests of its own, and what makes it small."""


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {split: Footage() for split in ("train", "val", "test")}
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: parts[request.split]))


def tiny(preset: str, **options: object) -> TrainConfig:
    """A preset as the tables try it in the rendered world, and smaller still."""
    config = recipe(preset, like="demo", data="noise:.", steps=3)
    known = shape_names(config.model.kind)
    small = {name: value for name, value in SMALL.items() if name in known}
    own = PRESETS.get(preset, {})
    options = {**config.model.options, **small, "frames": 3, **own, **options}
    model = replace(config.model, options=options)
    return replace(config, model=model, batch=4, val_clips=6, test_clips=6)


@pytest.mark.parametrize("preset", PRESETS)
def test_it_trains_is_measured_becomes_a_bundle_and_tags(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    config, run, bundle = tiny(preset), tmp_path / "run", tmp_path / "bundle"
    takes = find_kind(config.model.kind).takes
    assert config.model.warm_start == ("warm_start" in takes)
    said = fit(config, run)
    assert f"({config.model.kind} tiny, noise" in said
    model, record = load_checkpoint(run)
    assert record["kind"] == config.model.kind
    assert load_state(run).architecture == model.config
    assert model.clip_shape == (3 if config.model.still == "none" else 1, 32, 32, 3)

    console = Console(file=io.StringIO())
    evaluation = evaluate_run(model, config, workers=0, console=console, command="a command")
    write_evaluation(evaluation, run, plots=False)
    assert ("routing" in evaluation) == (config.model.kind in ("isns", "geodecoder"))
    report = export_bundle(run, bundle, console=console)
    assert report.parity["ONNX Runtime"] is not None
    monkeypatch.setattr("train.export.graph_of", None)  # refused before anything is traced
    with pytest.raises(CalibrationError, match="has no int8"):
        export_bundle(run, tmp_path / "int8", console=console, wish=PrecisionWish(precision="int8"))
    manifest = read_bundle(bundle).manifest
    assert manifest.training["model_kind"] == config.model.kind
    assert manifest.input.frames == model.clip_shape[0]

    write_video(draw_drive("test", 0), tmp_path / "drive.mp4", duration_s=3.0, render_width=160)
    tags = tmp_path / "tags.csv"
    words = ["scan", tmp_path / "drive.mp4", "--bundle", bundle, "--out", tags]
    assert geotag(list(map(str, words))) == 0
    with tags.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["status"], bool(row["city_1"])) == ("ok", True)


@pytest.mark.parametrize(("preset", "moment"), [("mae-last", 2 / 3), ("mae-random", 1 / 3)])
def test_a_bundle_is_measured_on_the_frames_of_its_run_and_scans_with_their_like(
    preset: str, moment: float, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    config, run, bundle = tiny(preset), tmp_path / "run", tmp_path / "bundle"
    fit(config, run)
    model, _ = load_checkpoint(run)
    console = Console(file=io.StringIO())
    write_evaluation(
        evaluate_run(model, config, workers=0, console=console, command=""), run, plots=False
    )
    export_bundle(run, bundle, console=console)
    assert read_bundle(bundle).manifest.input.moment == pytest.approx(moment)
    found = []
    for folder in (run, bundle):
        opened = open_for(folder, "noise:.", torch.device("cpu"))
        scorer, plan = opened.candidate.scorer, Plan(picking=steady(opened.picking))
        view = view_of(scorer, plan)
        assert (view.frames, view.picking) == (3, "ends")
        dataset = SOURCES["noise"].open(cast("Any", SimpleNamespace(split="test")))
        scored = predict(
            scorer, dataset, view, indices=range(9), workers=0, console=console, title=""
        )
        found.append(scored.predictions.logits["city"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_scene_experts_begin_with_a_run_of_the_base_network(tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    fit(tiny("planet"), tmp_path / "base")
    begun_from = "cc-by-nc-4.0, as the weights that training began from"
    facts = tmp_path / "base/checkpoint.json"
    record = json.loads(facts.read_text(encoding="utf-8"))
    record["training"]["licence"] = begun_from
    facts.write_text(json.dumps(record), encoding="utf-8")
    said = fit(replace(tiny("isns"), pretrained=base), tmp_path / "run")
    assert f"training isns (isns on {base}, noise" in " ".join(said.split())
    assert "0 left out" in said
    assert "warning: the weights" not in said
    assert load_checkpoint(tmp_path / "run")[1]["training"]["licence"] == begun_from


@pytest.mark.parametrize("form", [{"hierarchy": "marginal"}, {"classifier": "cosine"}])
def test_scene_experts_begin_with_classifiers_of_their_own_kind(
    form: dict[str, str], tmp_path: Path
) -> None:
    base = str(tmp_path / "base")
    config = tiny("planet")
    fit(replace(config, texts="names", model=replace(config.model, **form)), tmp_path / "base")
    said = " ".join(fit(replace(tiny("isns"), pretrained=base), tmp_path / "run").split())
    assert "those of experts are linear and separate: they begin at random" in said


def test_a_piece_without_clips_teaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Footage(clips=2, bad=(1,))
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: one))
    config = replace(tiny("planet", image_px=64), batch=2, steps=1, val_clips=1, test_clips=1)
    config = replace(config, model=replace(config.model, warm_start=False))
    for pieces in (1, 2):
        fit(replace(config, accumulate=pieces), tmp_path / str(pieces))
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in "12")
    assert any("running_mean" in name for name in whole)
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=0, atol=1e-6)


def test_float16_is_made_of_a_traced_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    config, run = tiny("timesformer"), tmp_path / "run"
    fit(config, run)
    model, _ = load_checkpoint(run)
    console = Console(file=io.StringIO())
    write_evaluation(
        evaluate_run(model, config, workers=0, console=console, command=""), run, plots=False
    )
    wish = PrecisionWish(
        precision="fp16", calib="rendered", calib_clips=32, judged_clips=32, force=True
    )
    export_bundle(run, tmp_path / "bundle", console=console, wish=wish)
    assert "fp16" in read_bundle(tmp_path / "bundle").precisions


def test_rows_of_a_table_keep_their_kind_and_only_the_aids_that_it_takes() -> None:
    demo = load_preset("demo").model
    divided, still = recipe("timesformer", like="demo").model, recipe("mae-last", like="demo").model
    assert (divided.kind, divided.size, divided.still) == ("timesformer", "tiny", "none")
    assert (divided.keep_tokens, divided.last_share) == (1.0, 0.0)
    assert divided.warm_start
    assert (still.kind, still.size, still.still) == ("vit", "tiny", "last")
    assert (still.keep_tokens, still.last_share) == (1.0, 0.0)  # a picture is seen whole
    clip = recipe("mae-frames", like="demo").model
    assert (clip.keep_tokens, clip.last_share) == (demo.keep_tokens, demo.last_share)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_kind": "nosuch"}, "'nosuch' is none of videomae, timesformer, vit, planet"),
        ({"model_frames": 0.5}, "model.frames 0.5 must be such as 16"),
        ({"model_width": 33}, "width must be a multiple of heads"),
        ({"model_pooling": "cls"}, "no \\['pooling'\\]"),
        ({"model_kind": "timesformer"}, "keep_tokens is nothing that TimeSformer has"),
        ({"model_kind": "vit", "model_pooling": "max"}, "it is one of cls, mean"),
        ({"model_kind": "vit", "model_num_heads": 3}, "num_heads is nothing that ViT has"),
        ({"model_kind": "geodecoder"}, "model.scene linear: GeoDecoder has own"),
        ({"model_heads": 0}, "model.heads 0 must be above 0"),
        ({"model_frames": -16}, "model.frames -16 must be above 0"),
        (
            {"model_kind": "geodecoder", "model_swin_depths": (1, 0, 2)},
            "model.swin_depths \\(1, 0, 2\\) must be above 0",
        ),
        (
            {"model_kind": "planet", "model_album": True, "model_still": "random"},
            "album = true reads all frames",
        ),
        ({"model_kind": "isns", "accumulate": 2}, "accumulate needs model.standardised = false"),
    ],
)
def test_what_a_kind_cannot_have_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_preset("demo", **changes)


def test_options_of_a_kind_stand_among_the_others_in_a_preset(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "train/presets/mae-random.toml"
    own = tmp_path / "own.toml"
    own.write_text(source.read_text().replace('kind = "vit"', 'kind = "vit"\npooling = "mean"'))
    config = load_preset(str(own))
    assert config.model.options == {"pooling": "mean"}
    own.write_text(source.read_text().replace('kind = "vit"', 'kind = "vit"\ntubelet_frames = 2'))
    with pytest.raises(ValueError, match=r"unknown keys \['tubelet_frames'\]"):
        load_preset(str(own))


# --- published weights ---


def write_timesformer(folder: Path, **said: object) -> Path:
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=16, num_frames=3, hidden_size=32, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=48,
    )  # fmt: skip
    transformers.TimesformerModel(config).save_pretrained(folder)
    if said:
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def begun(config: TrainConfig) -> tuple[Any, dict[str, Any], str]:
    lines: list[str] = []
    model, facts = build_model(config, open_sources(config), tell=lines.append)
    return model, facts, "\n".join(lines)


def test_training_begins_with_published_weights(tmp_path: Path) -> None:
    folder = write_timesformer(tmp_path / "net")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    config = replace(tiny("timesformer"), pretrained=str(folder))
    model, facts, said = begun(config)
    assert isinstance(model, TimeSformer)
    assert facts["licence"] == "cc-by-nc-4.0, as the weights that training began from"
    wanted = load_file(folder / "model.safetensors")["embeddings.time_embeddings"][0]
    torch.testing.assert_close(model.encoder.times.detach(), wanted, rtol=0, atol=0)
    assert facts["pretrained"] == "net"
    assert "27 tensors used, 0 left out, 2 heads" in said
    assert "warning" not in said


def test_pixels_unlike_those_of_the_weights_are_told(tmp_path: Path) -> None:
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    folder = write_timesformer(tmp_path / "net", **half)
    config = replace(tiny("timesformer"), pretrained=str(folder))
    assert "were trained with the mean (0.5, 0.5, 0.5)" in begun(config)[2]
    assert "half is theirs" in begun(config)[2]
    config = replace(config, model=replace(config.model, normalisation="half"))
    model, _, said = begun(config)
    assert "warning" not in said
    np.testing.assert_array_equal(model.mean.numpy(), [0.5] * 3)


def test_timesformer_sees_pixels_as_its_makers_trained_it() -> None:
    # One of them told what it was: facebookresearch/TimeSformer#10. The processor class of
    # transformers has other defaults, and published folders have values of their own.
    mean, std = NORMALISATIONS[load_preset("timesformer").model.normalisation]
    assert (mean, std) == ((0.45,) * 3, (0.225,) * 3)


def test_weights_of_another_shape_than_the_recipe_names_are_refused(tmp_path: Path) -> None:
    folder = write_timesformer(tmp_path / "net")
    config = replace(tiny("timesformer", width=64), pretrained=str(folder))
    with pytest.raises(TrainError, match="have width 32, the recipe asks for 64"):
        begun(config)


# --- routing ---


def test_an_evaluation_says_whose_queries_answered(tmp_path: Path) -> None:
    config = tiny("geodecoder")
    fit(config, tmp_path)
    model, _ = load_checkpoint(tmp_path)
    found = evaluate_run(model, config, workers=0, console=Console(file=io.StringIO()), command="")
    division = found["routing"]["queries"]
    assert division["clips"] == found["clips"]
    assert tuple(division["routes"]) == SCENE_GROUPS
    shares = [route["mean_share"] for route in division["routes"].values()]
    assert sum(shares) == pytest.approx(1)
    assert shares == [route["largest"] for route in division["routes"].values()]


def test_routes_are_counted_by_hand() -> None:
    routes = Routes({"expert": ("indoor", "nature", "urban")})
    assert routes.record() == {}
    routes.add({"expert": torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]])})
    routes.add({"expert": torch.tensor([[0.25, 0.25, 0.5]])})
    assert routes.record()["expert"] == {
        "clips": 3,
        "routes": {
            "indoor": {"mean_share": 0.25, "largest": pytest.approx(1 / 3)},
            "nature": {"mean_share": 0.25, "largest": 0.0},
            "urban": {"mean_share": 0.5, "largest": pytest.approx(2 / 3)},
        },
    }
    routes.forget()
    assert routes.record() == {}


def test_an_evaluation_reports_the_routes_of_the_clips_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("timesformer")
    fit(config, tmp_path / "run")
    model, _ = load_checkpoint(tmp_path / "run")
    monkeypatch.setattr(model, "route_names", lambda: {"side": ("left", "right")})
    halves = torch.tensor([0.75, 0.25])
    monkeypatch.setattr(
        model, "routing", lambda outputs: {"side": halves.expand(len(outputs["city"]), 2)}
    )
    console = Console(file=io.StringIO())
    found = evaluate_run(model, config, workers=0, console=console, command="")
    assert found["routing"]["side"]["clips"] == found["clips"]
    assert found["routing"]["side"]["routes"]["left"] == {"mean_share": 0.75, "largest": 1.0}
