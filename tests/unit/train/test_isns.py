from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engines.bundle import LEVELS
from tests.kinds import CLASSES, SMALL, build, clips_for, loss_of, make_loud, targets_for
from train.checkpoint import save_checkpoint
from train.config import load_preset
from train.data.route import SCENE_SHARES, SCENES
from train.data.world import SCENE_GROUPS
from train.errors import WeightsError
from train.evaluation.scorers import Routes
from train.losses import NO_SCENE, Targets, geo_loss
from train.models.base import IMAGENET_MEAN, IMAGENET_STD, Wanted
from train.models.isns import GROUPS, SUPERCLASSES, Isns, IsnsConfig, load
from train.models.planet import Planet, PlanetConfig
from train.models.teachers import TeacherConfig
from train.tables import recipe

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SCENE = TeacherConfig(scene="own")


def loud(gate: str) -> Isns:
    torch.manual_seed(0)
    return make_loud(Isns(replace(SMALL["isns"], gate=gate), CLASSES, teachers=SCENE))  # type: ignore[return-value]


def by_expert(model: Isns, clips: Tensor) -> dict[str, Tensor]:
    """Log-probabilities of every expert [N, E, K], of the network as it evaluates."""
    answers = []
    for number in range(len(model.names)):
        alone = Isns(model.config, CLASSES, teachers=SCENE).eval()
        alone.load_state_dict(model.state_dict())
        scene = alone.heads["scene"]
        assert isinstance(scene, torch.nn.Linear)
        scene.weight.data.zero_()
        group = SUPERCLASSES[model.config.superclasses][model.names[number]][0]
        scene.bias.data.copy_(100.0 * (torch.arange(GROUPS) == group))
        with torch.inference_mode():
            answers.append(alone(clips))
    return {
        level: torch.stack([answer[level].log_softmax(1) for answer in answers], 1)
        for level in LEVELS
    }


def decide(model: Isns, clips: Tensor) -> None:
    """Let the scene head tell these clips apart clearly."""
    scene = model.heads["scene"]
    assert isinstance(scene, torch.nn.Linear)
    with torch.no_grad():
        scene.bias.sub_(model(clips)["scene"].mean(0))
        scale = 10 / float(model(clips)["scene"].std())
        scene.weight.mul_(scale)
        scene.bias.mul_(scale)


def superclass_probabilities(model: Isns, scene_NS: Tensor) -> np.ndarray[Any, Any]:
    """By hand, in float64."""
    logits = scene_NS.double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    table = SUPERCLASSES[model.config.superclasses]
    return np.stack([shares[:, list(groups)].sum(1) for groups in table.values()], 1)


@pytest.mark.parametrize("table", list(SUPERCLASSES))
def test_every_group_has_one_expert(table: str) -> None:
    groups = sorted(group for found in SUPERCLASSES[table].values() for group in found)
    assert groups == list(range(GROUPS)) == list(range(len(SCENE_GROUPS)))
    assert len(SUPERCLASSES[table]) == 3


def test_on_the_rendered_world_every_road_expert_has_clips_and_indoor_has_none() -> None:
    def shares(table: str) -> dict[str, float]:
        return {
            name: math.fsum(
                share
                for scene, share in zip(SCENES.values(), SCENE_SHARES, strict=True)
                if scene.group in groups
            )
            for name, groups in SUPERCLASSES[table].items()
        }

    assert min(shares("road").values()) > 0.2
    assert shares("paper")["indoor"] == 0
    assert {SCENE_GROUPS[group] for group in SUPERCLASSES["road"]["suburb"]} == {
        "houses, cabins, gardens, farms",
        "sports fields, parks, leisure spaces",
    }


def test_a_hard_gate_answers_with_the_expert_of_the_likeliest_superclass() -> None:
    model = loud("hard").eval()
    clips = clips_for(model, 8)
    decide(model, clips)
    with torch.inference_mode():
        found = model(clips)
    chosen = superclass_probabilities(model, found["scene"]).argmax(1)
    assert len(set(chosen.tolist())) > 1
    wanted = by_expert(model, clips)
    for level in LEVELS:
        each = wanted[level][torch.arange(8), torch.from_numpy(chosen)]
        torch.testing.assert_close(found[level], each, rtol=0, atol=1e-4)


def test_a_soft_gate_mixes_probabilities_by_those_of_the_superclasses() -> None:
    model = loud("soft").eval()
    clips = clips_for(model, 8)
    with torch.inference_mode():
        found = model(clips)
    shares = superclass_probabilities(model, found["scene"])
    for level, scored in by_expert(model, clips).items():
        mixed = (shares[..., None] * np.exp(scored.double().numpy())).sum(1)
        np.testing.assert_allclose(found[level].exp().numpy(), mixed, rtol=1e-4, atol=1e-7)


def targets(scenes: list[int], spread: Tensor | None = None) -> Targets:
    plain = targets_for(len(scenes))
    rows = torch.zeros(len(scenes), GROUPS) if spread is None else spread
    return replace(plain, scene_N=torch.tensor(scenes), scene_NS=rows)


def learnt(model: Isns, clips: Tensor, wanted: Targets) -> dict[str, float]:
    """Largest gradient of the loss of places, by expert and for the scene head."""
    model.train().zero_grad()
    outputs = model.taught(model(clips), wanted)
    geo_loss(outputs, wanted.labels).backward()
    parts = {name: (model.experts[name], model.heads[name]) for name in model.names}
    parts["scene"] = (model.heads["scene"],)  # type: ignore[assignment]
    return {
        name: max(
            0.0 if value.grad is None else float(value.grad.abs().max())
            for module in modules
            for value in module.parameters()
        )
        for name, modules in parts.items()
    }


@pytest.mark.parametrize(("scene", "name"), [(15, "town"), (14, "suburb"), (10, "country")])
def test_a_clip_teaches_the_expert_of_its_scene_alone(scene: int, name: str) -> None:
    model = loud("hard")
    found = learnt(model, clips_for(model, 4), targets([scene] * 4))
    assert found.pop(name) > 1e-4
    assert set(found.values()) == {0.0}  # nor does the gate learn from places


def test_a_distribution_teaches_all_that_have_a_share_in_it() -> None:
    spread = torch.zeros(4, GROUPS)
    spread[:, 15], spread[:, 14] = 0.75, 0.25
    model = loud("soft")
    found = learnt(model, clips_for(model, 4), targets([NO_SCENE] * 4, spread))
    assert min(found["town"], found["suburb"]) > 1e-4
    assert max(found["country"], found["scene"]) < 1e-6
    hard = loud("hard")
    found = learnt(hard, clips_for(hard, 4), targets([NO_SCENE] * 4, spread))
    assert found["town"] > 1e-4
    assert found["suburb"] == 0


def test_a_clip_without_a_scene_teaches_the_expert_that_is_predicted() -> None:
    model = loud("hard")
    scene = model.heads["scene"]
    assert isinstance(scene, torch.nn.Linear)
    scene.bias.data[14] += 100
    found = learnt(model, clips_for(model, 4), targets([NO_SCENE] * 4))
    assert found["suburb"] > 1e-4
    assert found["town"] == found["country"] == found["scene"] == 0


def test_outside_of_training_no_label_changes_an_answer() -> None:
    model = loud("hard").eval()
    with torch.inference_mode():
        found = model(clips_for(model, 4))
        for scene in (15, 14, 10):
            taught = model.taught(found, targets([scene] * 4))
            assert all(taught[name] is found[name] for name in found)


def test_experts_begin_as_copies() -> None:
    torch.manual_seed(0)
    model = Isns(SMALL["isns"], CLASSES, teachers=SCENE)
    first, *others = (
        {**model.experts[name].state_dict(), **model.heads[name].state_dict()}
        for name in model.names
    )
    for other in others:
        assert all(torch.equal(first[entry], other[entry]) for entry in first)
    together = sum(len(list(model.experts[name].parameters())) for name in model.names)
    assert len({id(value) for value in model.experts.parameters()}) == together


@pytest.mark.parametrize("name", ["isns", "isns, soft"])
def test_every_expert_is_used_once_it_has_learned_scenes(name: str) -> None:
    model = build(name)
    assert isinstance(model, Isns)
    clips, wanted = clips_for(model, 6), targets_for(6)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss_of(model, clips, wanted).backward()
        optimiser.step()
    routes = Routes(model.route_names())
    with torch.inference_mode():
        outputs = model.eval()(clips)
        routes.add(model.routing(outputs))
    record = routes.record()["expert"]["routes"]
    assert list(record) == list(SUPERCLASSES[model.config.superclasses])
    assert {name: shares["largest"] for name, shares in record.items()} == {
        name: pytest.approx(np.mean([3 * clip % GROUPS in groups for clip in range(6)]))
        for name, groups in SUPERCLASSES[model.config.superclasses].items()
    }
    assert min(shares["mean_share"] for shares in record.values()) > 0.1


def run_of(folder: Path, model: Planet) -> Path:
    rows = [f"c{i},s{i % 7},n{i % 5},k{i % 3},{i},{i}" for i in range(CLASSES["city"])]
    head = "city,state,country,continent,lat_deg,lon_deg"
    save_checkpoint(folder, model, places_csv="\n".join([head, *rows]) + "\n", facts={})
    return folder


def test_it_begins_as_a_trained_base_network_that_answers_the_same(tmp_path: Path) -> None:
    shape = PlanetConfig(frames=1, image_px=64, backbone="resnet-tiny")
    base = make_loud(Planet(shape, CLASSES)).eval()
    assert isinstance(base, Planet)
    run = run_of(tmp_path / "planet", base)
    wanted = Wanted(source=str(run), shape=SMALL["isns"], is_still=True, classes=CLASSES)
    loaded = load(wanted)
    model = Isns(loaded.shape, CLASSES, teachers=SCENE).eval()
    found = model.load_state_dict(dict(loaded.tensors), strict=False)
    assert not found.unexpected_keys
    clips = clips_for(model, 4)
    with torch.inference_mode():
        ours, theirs = model(clips), base(clips)
    for level in LEVELS:
        each = theirs[level].log_softmax(1)
        torch.testing.assert_close(ours[level], each, rtol=0, atol=1e-4)
    assert loaded.report.source == "planet"
    assert not loaded.report.notes
    assert loaded.normalisation == (IMAGENET_MEAN, IMAGENET_STD)
    # Also while it trains, when standardised features would be others than its classifiers know.
    model.train()
    base.train()
    heard = model(clips)["experts.city"]
    asked = base(clips)["city"].log_softmax(1)
    torch.testing.assert_close(heard, asked[:, None].expand_as(heard), rtol=0, atol=1e-4)

    elsewhere = load(replace(wanted, classes={**CLASSES, "city": 4}))
    assert not [name for name in elsewhere.tensors if name.startswith("heads.")]
    assert "other places" in elsewhere.report.notes[0]


def test_a_run_that_is_no_base_network_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", Planet(SMALL["planet, album"], CLASSES))
    with pytest.raises(WeightsError, match="planet without album"):
        load(Wanted(source=str(run), shape=SMALL["isns"], is_still=True))


def test_published_weights_go_into_the_shared_stages_and_into_every_expert(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = [64, 128, 256, 512]
    config = transformers.ResNetConfig(depths=[1] * 4, embedding_size=16, hidden_sizes=sizes)
    theirs = transformers.ResNetModel(config).eval()
    theirs.save_pretrained(tmp_path)
    loaded = load(Wanted(source=str(tmp_path), shape=SMALL["isns"], is_still=True))
    model = Isns(loaded.shape, CLASSES, teachers=SCENE).eval()
    found = model.load_state_dict(dict(loaded.tensors), strict=False)
    assert not found.unexpected_keys
    assert {name for name in found.missing_keys if not name.endswith("num_batches_tracked")} == {
        name for name in model.state_dict() if name.startswith("heads.")
    }
    clips = clips_for(model, 2)
    pixels = model.normalise(clips[:, 0].float()).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = theirs(pixels).pooler_output.flatten(1)
        torch.testing.assert_close(model(clips)["feature"], wanted, rtol=0, atol=1e-5)


def test_presets_differ_in_the_gate_alone_and_keep_it_in_the_rendered_world() -> None:
    hard, soft = load_preset("isns").model, load_preset("isns-soft").model
    assert hard.options == {"gate": "hard", "superclasses": "road"}
    assert replace(hard, options=soft.options) == soft
    assert soft.options["gate"] == "soft"
    small = recipe("isns-soft", like="demo").model
    assert (small.size, small.scene, small.still) == ("tiny", "own", "random")
    assert small.options == soft.options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate": "firm"}, "none of hard, soft"),
        ({"superclasses": "sea"}, "none of paper, road"),
        ({"backbone": "vit-base"}, "none of resnet-tiny, resnet50, resnet101"),
    ],
)
def test_what_there_is_not_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IsnsConfig(**changes)


def test_other_scene_groups_than_places_are_refused() -> None:
    with pytest.raises(ValueError, match="16 groups of Places365"):
        Isns(SMALL["isns"], {**CLASSES, "scene": 5}, teachers=SCENE)
