"""The whole network, its size, its class tree and its export against `tests.reference`."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import geotag.places
from engines.bundle import LEVELS
from geotag.places.hierarchy import read_hierarchy
from tests import reference
from tests.networks import FEW, ODD, TAUGHT, clips_of, encode, make, make_precise, precise
from tests.tolerances import FP32_LOGIT, FP64_LOGIT
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import SIZES
from train.onnx_graph import export_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tests.reference import Array
    from train.models.teachers import AttentionInput, SceneHead

PAPER = {"city": 166, "state": 157, "country": 91, "continent": 6, "scene": 16}
PAPER_TAUGHT = TeacherConfig(scene="attention", text_width=512)
PLACES = Path(geotag.places.__file__).with_name("places166.csv")


@cache
def paper_feature() -> Array:
    """Of one clip through the encoder of the true size: seconds, so once for all tests."""
    _, weights = make(SIZES["small"], PAPER, PAPER_TAUGHT)
    return encode(SIZES["small"], clips_of(SIZES["small"], 1), weights)


def largest_difference(
    found: Mapping[str, torch.Tensor] | Mapping[str, NDArray[np.float32]],
    wanted: Mapping[str, Array],
) -> float:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert tuple(found[name].shape) == values.shape, name
    return max(float(np.abs(np.asarray(found[name]) - wanted[name]).max()) for name in wanted)


# --- answers ---


@pytest.mark.parametrize("seen", ["logits", "probs"])
def test_a_small_network_answers_what_the_formulas_say(seen: AttentionInput) -> None:
    model, weights = make(ODD, FEW, replace(TAUGHT, attention_input=seen))
    clips = clips_of(ODD, 3)
    wanted = reference.answer(encode(ODD, clips, weights), precise(weights), attention_input=seen)
    with torch.inference_mode():
        found = model.train()(torch.from_numpy(clips))
    assert set(wanted) == {*FEW, "text", "feature"}
    assert largest_difference(found, wanted) < FP32_LOGIT
    del wanted["text"]
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(clips))
    assert largest_difference(found, wanted) < FP32_LOGIT


def test_in_double_precision_nothing_is_left_of_the_difference() -> None:
    model, weights = make_precise(TAUGHT)
    clips = clips_of(ODD, 3)
    wanted = reference.answer(encode(ODD, clips, weights), precise(weights))
    with torch.inference_mode():
        found = model(torch.from_numpy(clips))
    assert largest_difference(found, wanted) < FP64_LOGIT


@pytest.mark.parametrize("seen", ["logits", "probs"])
def test_the_network_of_the_paper_answers_what_the_formulas_say(seen: AttentionInput) -> None:
    teachers = replace(PAPER_TAUGHT, attention_input=seen)
    model, weights = make(SIZES["small"], PAPER, teachers)
    clips = clips_of(SIZES["small"], 1)
    wanted = reference.answer(paper_feature(), precise(weights), attention_input=seen)
    with torch.inference_mode():
        found = model.train()(torch.from_numpy(clips))
    assert found["text"].shape == (1, 512)
    assert all(float(np.abs(wanted[level]).max()) > 1 for level in LEVELS)
    assert largest_difference(found, wanted) < FP32_LOGIT


# --- sizes ---


def test_the_network_of_the_paper_has_the_parameters_that_the_paper_implies() -> None:
    with torch.device("meta"):
        model = Geolocator(SIZES["small"], PAPER, teachers=PAPER_TAUGHT)
    counts = {
        "encoder": model.encoder,
        "classifiers": model.heads,
        "attention": model.teachers.attention,
        "scene": model.teachers.scene,
        "text": model.teachers.text,
    }
    found = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in counts.items()
    }
    assert found == {
        "encoder": 21_879_168,
        "classifiers": 161_700,
        "attention": 211,
        "scene": 151_808,
        "text": 435_290,
    }
    assert sum(found.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_the_cities_make_157_states_91_countries_and_6_continents() -> None:
    with PLACES.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    sizes, above = reference.number_places(
        [(row["city"], row["state"], row["country"], row["continent"]) for row in rows]
    )
    assert sizes == {level: PAPER[level] for level in LEVELS}
    hierarchy = read_hierarchy(PLACES)
    for depth, level in enumerate(LEVELS):
        assert hierarchy.size(level) == sizes[level]
        np.testing.assert_array_equal(hierarchy.ancestors[level], above[:, depth])
    shared = Counter(above[:, 1].tolist())
    groups = {
        frozenset(rows[city]["folder"] for city in np.flatnonzero(above[:, 1] == state))
        for state, cities in shared.items()
        if cities > 1
    }
    assert groups == {
        frozenset(group.split())
        for group in (
            "Agra Kanpur Lucknow",
            "Austin Dallas",
            "Calgary Edmonton",
            "Incheon Seoul",
            "Jacksonville Miami",
            "Jeddah Makkah",
            "Liverpool Manchester",
            "Memphis Nashville",
        )
    }
    # Asia, Africa, Oceania, Europe, North America, South America: by first appearance.
    assert np.bincount(above[:, 3]).tolist() == [61, 15, 6, 43, 34, 7]


# --- the exported graph ---


def run_graph(path: Path, clips: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"clip": clips}), strict=True))


@pytest.mark.parametrize("seen", ["logits", "probs"])
def test_the_exported_graph_answers_what_the_formulas_say(
    seen: AttentionInput, tmp_path: Path
) -> None:
    model, weights = make(ODD, FEW, replace(TAUGHT, attention_input=seen))
    export_onnx(model, tmp_path / "model.onnx")
    for count in (1, 3):
        clips = clips_of(ODD, count)
        wanted = reference.answer(
            encode(ODD, clips, weights), precise(weights), attention_input=seen
        )
        del wanted["text"]
        found = run_graph(tmp_path / "model.onnx", clips)
        assert list(found) == [*LEVELS, "scene", "feature"]
        assert largest_difference(found, wanted) < FP32_LOGIT


def test_the_exported_network_of_the_paper_answers_what_the_formulas_say(tmp_path: Path) -> None:
    model, weights = make(SIZES["small"], PAPER, PAPER_TAUGHT)
    wanted = reference.answer(paper_feature(), precise(weights))
    del wanted["text"]
    export_onnx(model, tmp_path / "model.onnx")
    found = run_graph(tmp_path / "model.onnx", clips_of(SIZES["small"], 1))
    assert largest_difference(found, wanted) < FP32_LOGIT


@pytest.mark.parametrize("scene", ["attention", "linear", "none"])
def test_nothing_of_the_text_head_is_exported(scene: SceneHead, tmp_path: Path) -> None:
    model, weights = make(ODD, FEW, TeacherConfig(scene=scene, text_width=24))
    export_onnx(model, tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    of_text = {name: value for name, value in weights.items() if name.startswith("teachers.text")}
    assert len(of_text) == 4
    for name, values in of_text.items():
        assert values.tobytes() not in content, name
        assert np.ascontiguousarray(values.T).tobytes() not in content, name
    assert np.ascontiguousarray(weights["heads.city.weight"].T).tobytes() in content
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not [entry.name for entry in graph.initializer if "text" in entry.name]
    if scene != "attention":
        assert not [entry.name for entry in graph.initializer if entry.name.startswith("scene.0")]


@pytest.mark.parametrize(
    ("scene", "names"),
    [("none", (*LEVELS, "feature")), ("linear", (*LEVELS, "scene", "feature"))],
)
def test_a_graph_answers_scenes_as_far_as_its_model_does(
    scene: SceneHead, names: tuple[str, ...], tmp_path: Path
) -> None:
    model, weights = make(ODD, FEW, TeacherConfig(scene=scene))
    clips = clips_of(ODD, 2)
    wanted = reference.answer(encode(ODD, clips, weights), precise(weights))
    export_onnx(model, tmp_path / "model.onnx")
    found = run_graph(tmp_path / "model.onnx", clips)
    assert tuple(found) == names == model.outputs
    assert largest_difference(found, wanted) < FP32_LOGIT
    with torch.inference_mode():
        assert largest_difference(model(torch.from_numpy(clips)), wanted) < FP32_LOGIT
