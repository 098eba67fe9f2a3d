"""Labels that know distance against a hand computation in NumPy.

Shape suffixes: N clips, C cities.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle import LEVELS
from tests.options import CLASSES, rows, targets_for, tree
from train.config import load_preset
from train.data.dataset import Sample, View
from train.data.loading import collate, join
from train.haversine import city_centres, near_shares, spread
from train.loop import Learner
from train.losses import LossConfig, geo_loss, loss_sums
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import VideoMAEConfig
from train.processes import World

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.data.loading import Batch

SHAPE = VideoMAEConfig(frames=2, image_px=16, patch_px=8, width=16, depth=1, heads=2, mlp_width=16)


def kilometres(a_deg: tuple[float, float], b_deg: tuple[float, float]) -> float:
    """By the angle between two unit vectors, another formula than ours."""
    ends = []
    for lat_deg, lon_deg in (a_deg, b_deg):
        lat, lon = math.radians(lat_deg), math.radians(lon_deg)
        ends.append((math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)))
    cross = np.linalg.norm(np.cross(*ends))
    return 6371.0088 * math.atan2(float(cross), float(np.dot(*ends)))


def by_hand(city: int, point_deg: tuple[float, float] | None, tau_km: float) -> NDArray[np.float64]:
    centres = [(float(row["lat_deg"]), float(row["lon_deg"])) for row in rows()]
    where = centres[city] if point_deg is None else point_deg
    own_km = kilometres(where, centres[city])
    weights = [math.exp(-abs(kilometres(where, each) - own_km) / tau_km) for each in centres]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("tau_km", [75.0, 300.0, 5000.0])
def test_shares_are_those_of_a_hand_computation(tau_km: float) -> None:
    points = [None, (48.2, 2.1), None, (-31.0, -25.0)]
    cities = [0, 1, 4, 3]
    point_N2 = torch.tensor([point or (math.nan, math.nan) for point in points])
    found = near_shares(torch.tensor(cities), point_N2, city_centres(tree()), tau_km)
    wanted = [by_hand(*pair, tau_km) for pair in zip(cities, map(_float32, points), strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert found[0, 1] > 0.2  # 100 km away, other than the rest
    above = spread(found, ancestors(), CLASSES)
    np.testing.assert_allclose(above["country"][0, 0], found[0, :3].sum(), rtol=1e-12)


def _float32(point: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if point is None else tuple(np.array(point, np.float32).tolist())


def ancestors() -> dict[str, torch.Tensor]:
    return {level: torch.from_numpy(tree().ancestors[level]) for level in LEVELS}


@given(
    city=st.integers(0, CLASSES["city"] - 1),
    point=st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    tau_km=st.floats(10, 10_000),
)
def test_shares_are_a_distribution_in_which_nothing_exceeds_the_truth(
    city: int, point: tuple[float, float] | None, tau_km: float
) -> None:
    point_N2 = None if point is None else torch.tensor([point], dtype=torch.float64)
    found = near_shares(torch.tensor([city]), point_N2, city_centres(tree()), tau_km)
    for level, shares in spread(found, ancestors(), CLASSES).items():
        assert float(shares.min()) >= 0, level
        assert float(shares.sum()) == pytest.approx(1), level
    assert float(found[0, city]) == float(found.max())


@given(city=st.integers(0, CLASSES["city"] - 1))
def test_without_reach_nothing_but_the_label_is_left(city: int) -> None:
    found = near_shares(torch.tensor([city]), None, city_centres(tree()), 0.5)
    np.testing.assert_allclose(found[0], np.eye(CLASSES["city"])[city], atol=1e-30)


def test_a_label_of_one_city_is_the_plain_cross_entropy() -> None:
    targets = targets_for(5)
    rng = torch.Generator().manual_seed(0)
    outputs = {level: torch.randn(5, CLASSES[level], generator=rng) for level in LEVELS}
    shares = near_shares(targets.labels["city"], None, city_centres(tree()), 0.5).float()
    soft = replace(targets, shares=spread(shares, ancestors(), CLASSES))
    for smoothing in (0.0, 0.1):
        config = LossConfig(scene_weight=0.0, label_smoothing=smoothing)
        wanted = loss_sums(outputs, targets, config)["geo"]
        torch.testing.assert_close(loss_sums(outputs, soft, config)["geo"], wanted)


def test_a_city_nearby_costs_less_than_one_far_away() -> None:
    shares = near_shares(torch.tensor([0]), None, city_centres(tree()), 150.0)
    levels = spread(shares, ancestors(), CLASSES)

    def loss(city: int) -> float:
        chosen = {level: int(tree().ancestors[level][city]) for level in LEVELS}
        outputs = {
            level: 5 * torch.nn.functional.one_hot(torch.tensor([k]), CLASSES[level]).double()
            for level, k in chosen.items()
        }
        return float(geo_loss(outputs, levels))

    assert loss(0) < loss(1) < loss(2) < loss(8)  # itself, 100 km, its country, elsewhere


def read(count: int = 2) -> Batch:
    """Of two cities; the first clip was measured somewhere, the others nowhere."""
    clip = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    samples = [
        (row, Sample(clip_THWC=clip, city_id=min(row, 1), point_deg=None if row else (48.2, 2.1)))
        for row in range(count)
    ]
    return collate(samples, view=View(frames=2, image_px=16), scenes=16)


def test_where_a_clip_was_measured_comes_with_its_batch() -> None:
    batch = read()
    batch = join([batch, replace(batch.take([1]), point_N2=None)])
    assert batch.point_N2 is not None
    assert batch.point_N2[0].tolist() == [48.2, 2.1]
    assert batch.point_N2[1:].isnan().all()


def test_training_minimises_what_the_hand_computation_says() -> None:
    plain = {"loss_scene_weight": 0.0, "loss_text_weight": 0.0}
    config = load_preset("haversine", **plain, model_scene="none", model_text="none", batch=3)
    torch.manual_seed(0)
    model = Geolocator(SHAPE, CLASSES, teachers=TeacherConfig(scene="none"))
    world = World(rank=0, size=1, device=torch.device("cpu"))
    learner, batch = Learner(model, config, world, hierarchy=tree(), steps=4), read(3)
    with torch.inference_mode():
        seen = {level: model(batch.clip_NTHWC)[level].log_softmax(1).numpy() for level in LEVELS}
    wanted = 0.0
    for row, (city, point) in enumerate([(0, (48.2, 2.1)), (1, None), (1, None)]):
        shares = by_hand(city, point, 150.0)
        for level in LEVELS:
            above = np.bincount(tree().ancestors[level], shares, minlength=CLASSES[level])
            wanted -= float(above @ seen[level][row]) / 3
    learner.step(batch, 0)
    assert learner.report(1)["geo_loss"] == pytest.approx(wanted, rel=1e-5)


def test_reach_is_no_negative_number() -> None:
    with pytest.raises(ValueError, match=r"haversine_km -1\.0 must not be below 0"):
        load_preset("haversine", loss_haversine_km=-1.0)
