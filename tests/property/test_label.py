from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geotag.geo import distance_m
from geotag.labels.cells import CELL_M, cell_of, neighbours
from geotag.labels.samples import LEAST_SPAN_S, LEAST_WAY_M, cut_samples
from geotag.labels.splits import SPLITS, Spot, split_samples
from geotag.privacy import Zone
from geotag.telemetry.track import Fix, Reading, track_of

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}

lats = st.floats(-90, 90)
lons = st.floats(-180, 180)
steps = st.floats(-0.3, 0.3)


def _wrap(lon_deg: float) -> float:
    return (lon_deg + 180.0) % 360.0 - 180.0


@st.composite
def points(draw: st.DrawFn) -> list[tuple[float, float]]:
    """A crowd around a place anywhere, so that many are less than a cell apart, and some far."""
    lat_deg, lon_deg = draw(lats), draw(lons)
    near = draw(st.lists(st.tuples(steps, st.floats(-1, 1)), max_size=25))
    stretch = draw(st.sampled_from((0.3, 3.0, 180.0)))
    crowd = [
        (min(max(lat_deg + north, -90.0), 90.0), _wrap(lon_deg + stretch * east))
        for north, east in near
    ]
    return [(lat_deg, lon_deg), *crowd, *draw(st.lists(st.tuples(lats, lons), max_size=5))]


@given(points(), st.data(), st.integers(0, 3))
def test_samples_of_different_splits_are_of_other_drives_and_cells_and_far_apart(
    found: list[tuple[float, float]], data: st.DataObject, seed: int
) -> None:
    drives = data.draw(
        st.lists(st.integers(0, 40).map(str), min_size=len(found), max_size=len(found))
    )
    spots = [
        Spot(drive_id=drive, cell=cell_of(*point))
        for drive, point in zip(drives, found, strict=True)
    ]
    splits = split_samples(spots, shares=SHARES, seed=seed).splits
    samples = list(zip(found, spots, splits, strict=True))
    for place, spot, split in samples:
        for other_place, other_spot, other_split in samples:
            if split != other_split:
                assert spot.drive_id != other_spot.drive_id
                assert spot.cell != other_spot.cell
                assert distance_m(place, other_place) >= CELL_M - 0.01


@given(points(), st.integers(0, 3))
def test_the_order_of_samples_does_not_matter(found: list[tuple[float, float]], seed: int) -> None:
    spots = [
        Spot(drive_id=str(number % 7), cell=cell_of(*point)) for number, point in enumerate(found)
    ]
    forth = split_samples(spots, shares=SHARES, seed=seed)
    back = split_samples(spots[::-1], shares=SHARES, seed=seed)
    assert forth.splits == back.splits[::-1]
    assert sum(forth.regions) == len(spots)


@given(points())
def test_points_that_are_near_each_other_are_in_one_cell_or_in_neighbours(
    found: list[tuple[float, float]],
) -> None:
    for place in found:
        cell = cell_of(*place)
        around = {cell, *neighbours(cell)}
        for other in found:
            if distance_m(place, other) < CELL_M - 0.01:
                assert cell_of(*other) in around


@given(lats, lons)
def test_neighbours_are_mutual_and_few(lat_deg: float, lon_deg: float) -> None:
    cell = cell_of(lat_deg, lon_deg)
    around = list(neighbours(cell))
    assert len(around) == len(set(around))
    assert cell not in around
    if abs(lat_deg) < 89:
        assert len(around) <= 12
    for other in around:
        assert cell in set(neighbours(other))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(0, 5))
def test_shares_are_met_as_nearly_as_the_greatest_region_allows(
    sizes: list[int], seed: int
) -> None:
    spots = [
        Spot(drive_id=f"d{number}", cell=cell_of(0.0, number * 1.0))
        for number, size in enumerate(sizes)
        for _ in range(size)
    ]
    splits = split_samples(spots, shares=SHARES, seed=seed).splits
    for split in SPLITS:
        assert splits.count(split) <= SHARES[split] * len(spots) + max(sizes)


@st.composite
def drives(draw: st.DrawFn) -> list[Fix]:
    """A vehicle that turns, stops, loses its receiver and is misread now and then."""
    lat_deg, lon_deg = draw(st.floats(-80, 80)), draw(lons)
    time_s = draw(st.floats(-20, 20))
    fixes = []
    for _ in range(draw(st.integers(1, 8))):
        heading = draw(st.floats(0, 2 * math.pi))
        speed_mps, seconds = draw(st.floats(0, 60)), draw(st.integers(1, 30))
        step_s = draw(st.sampled_from((0.1, 1.0, 3.0, 4.9)))
        for _ in range(seconds):
            time_s += step_s
            lat_deg += math.degrees(speed_mps * step_s * math.cos(heading) / 6_371_008.8)
            shrink = math.cos(math.radians(lat_deg))
            east_m = speed_mps * step_s * math.sin(heading)
            lon_deg = _wrap(lon_deg + math.degrees(east_m / 6_371_008.8 / shrink))
            fixes.append(Fix(lat_deg, lon_deg, time_s=time_s))
        time_s += draw(st.sampled_from((0.0, 4.0, 60.0)))
    for number in draw(st.lists(st.integers(0, len(fixes) - 1), max_size=4)):
        fixes[number] = fixes[number]._replace(mode=0)
    return fixes


@given(drives(), st.data())
def test_no_sample_comes_near_a_zone_at_any_moment(fixes: list[Fix], data: st.DataObject) -> None:
    centres = data.draw(st.lists(st.sampled_from(fixes), min_size=1, max_size=3))
    offset = st.floats(-0.003, 0.003)
    zones = [
        Zone(
            lat_deg=centre.lat_deg + data.draw(offset),
            lon_deg=_wrap(centre.lon_deg + data.draw(offset)),
            radius_m=data.draw(st.floats(1, 500)),
        )
        for centre in centres
    ]
    reading = Reading(track=track_of(fixes), source="made")
    samples, _ = cut_samples(reading, zones=zones)
    for sample in samples:
        during = [fix for fix in fixes if sample.start_s <= fix.time_s <= sample.end_s]
        for before, after in itertools.pairwise(during):
            east_deg = _wrap(after.lon_deg - before.lon_deg)
            for part in np.linspace(0, 1, 20).tolist():
                point = (
                    before.lat_deg + part * (after.lat_deg - before.lat_deg),
                    _wrap(before.lon_deg + part * east_deg),
                )
                for zone in zones:
                    assert distance_m(point, (zone.lat_deg, zone.lon_deg)) > zone.radius_m


@given(drives())
def test_samples_follow_one_another_and_are_long_enough(fixes: list[Fix]) -> None:
    reading = Reading(track=track_of(fixes), source="made")
    samples, dropped = cut_samples(reading)
    assert all(count > 0 for count in dropped.values())
    ends_s = 0.0
    for sample in samples:
        assert sample.start_s >= ends_s - 0.001
        lasts_s = sample.end_s - sample.start_s
        assert lasts_s >= LEAST_SPAN_S - 0.002
        assert sample.speed_mps * lasts_s >= LEAST_WAY_M - 1
        ends_s = sample.end_s
