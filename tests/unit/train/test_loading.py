from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.data.clips import RenderedClips, rendered_hierarchy, rendered_places_csv
from train.data.dataset import BadSample, Entry, Sample, View
from train.data.loading import Batch, Plan, reading_batches, training_batches
from train.data.world import SCENE_GROUPS
from train.losses import NO_SCENE

VIEW = View(frames=2, image_px=16, seed=3)


class Numbered:
    """Clips whose pixels are their index; every seventh cannot be read, even ones have scenes."""

    name = "numbered"
    hierarchy = rendered_hierarchy()
    places_csv = rendered_places_csv()

    def __init__(self, clips: int) -> None:
        self.entries = [
            Entry(name=str(index), city_id=index % 24, group="") for index in range(clips)
        ]

    def read(self, index: int, view: View) -> Sample | BadSample:
        if index % 7 == 6:
            return BadSample(name=str(index), reason="no frames")
        return Sample(
            clip_THWC=np.full((view.frames, view.image_px, view.image_px, 3), index, np.uint8),
            city_id=index % 24,
            scene_S=None if index % 2 else np.eye(16, dtype=np.float32)[index % 16],
            scene_id=-1 if index % 2 else index % 16,
        )


def batches(plan: Plan, **options: object) -> list[Batch]:
    settings: dict[str, object] = {"scenes": 16, "workers": 0}
    return list(
        training_batches(Numbered(plan.samples), VIEW, plan, **{**settings, **options})  # type: ignore[arg-type]
    )


@given(
    samples=st.integers(1, 40),
    steps=st.integers(1, 12),
    batch=st.integers(1, 9),
    views=st.integers(1, 4),
)
def test_a_plan_has_full_steps_and_shows_every_sample_equally_often(
    samples: int, steps: int, batch: int, views: int
) -> None:
    plan = Plan(samples=samples, steps=steps, batch=batch, views=views, seed=1)
    rows = list(plan)
    assert [len(row) for row in rows] == [batch] * steps
    shown = Counter(number for row in rows for number in row)
    assert max(shown.values()) <= views
    # The numbers of one epoch are a permutation of the samples.
    assert sorted(plan.locate(number)[0] for number in range(samples)) == list(range(samples))
    assert {plan.locate(number)[1] for number in range(samples)} == {0}


def test_an_epoch_has_another_order_than_the_one_before() -> None:
    plan = Plan(samples=50, steps=10, batch=10, views=1, seed=1)
    orders = [[plan.locate(epoch * 50 + at)[0] for at in range(50)] for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_sees_what_it_would_have_seen(views: int, workers: int) -> None:
    plan = Plan(samples=30, steps=9, batch=5, views=views, seed=2)
    whole, rest = batches(plan), batches(plan, start=4, workers=workers)
    assert len(rest) == 5
    for before, after in zip(whole[4:], rest, strict=True):
        assert torch.equal(before.clip_NTHWC, after.clip_NTHWC)
        assert torch.equal(before.city_N, after.city_N)
        assert torch.equal(before.scene_NS, after.scene_NS)


@pytest.mark.parametrize("views", [1, 3])
def test_processes_share_what_one_would_see(views: int) -> None:
    plan = Plan(samples=30, steps=7, batch=6, views=views, seed=2)
    shares = [batches(plan, share=(rank, 3)) for rank in range(3)]
    for step, whole in enumerate(batches(plan)):
        seen = torch.cat([share[step].city_N for share in shares])
        assert Counter(seen.tolist()) == Counter(whole.city_N.tolist())


def test_what_cannot_be_read_is_left_out_and_told() -> None:
    plan = Plan(samples=14, steps=2, batch=7, views=1, seed=0)
    found = batches(plan)
    assert sum(len(batch) for batch in found) == 12
    assert sorted(bad.name for batch in found for bad in batch.bad) == ["13", "6"]


def test_a_batch_of_nothing_readable_is_empty_and_has_its_shape() -> None:
    (batch,) = reading_batches(Numbered(7), VIEW, size=4, scenes=16, workers=0, indices=[6])
    assert len(batch) == 0
    assert batch.clip_NTHWC.shape == (0, 2, 16, 16, 3)


def test_reading_goes_in_order_and_marks_missing_scenes() -> None:
    found = list(reading_batches(Numbered(10), VIEW, size=4, scenes=16, workers=0))
    assert [len(batch) for batch in found] == [4, 3, 2]
    assert torch.cat([batch.positions_N for batch in found]).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert found[0].scene_N.tolist() == [0, NO_SCENE, 2, NO_SCENE]
    assert found[0].scene_NS.sum(1).tolist() == [1, 0, 1, 0]


def test_clips_wait_for_their_last_view_only() -> None:
    """A run over many samples keeps a bounded number of them."""
    plan = Plan(samples=4000, steps=1200, batch=4, views=3, seed=0)
    rows = list(plan)
    last = {number: step for step, row in enumerate(rows) for number in row}
    first: dict[int, int] = {}
    for step, row in enumerate(rows):
        for number in row:
            first.setdefault(number, step)
    waiting = [
        sum(1 for number in first if first[number] <= step < last[number])
        for step in range(0, 1200, 100)
    ]
    assert max(waiting) <= 1024


def test_rendered_clips_are_the_same_whenever_they_are_asked_for() -> None:
    from train.config import load_preset

    clips = RenderedClips(split="train", clips=40, sampling=load_preset("demo").sampling)
    view = View(frames=4, image_px=32)
    first, again = clips.read(3, view), clips.read(3, view)
    np.testing.assert_array_equal(first.clip_THWC, again.clip_THWC)
    assert first.clip_THWC.shape == (4, 32, 32, 3)
    assert first.city_id == clips.entries[3].city_id
    assert first.scene_S is not None
    assert first.scene_S.sum() == pytest.approx(1)
    assert first.scene_S.argmax() == first.scene_id
    assert len(first.scene_S) == len(SCENE_GROUPS)


def test_rendered_clips_of_other_seeds_splits_and_parts_differ() -> None:
    from train.config import load_preset

    sampling = load_preset("demo").sampling
    view = View(frames=4, image_px=32, policy="exact", span_s=8.0)
    one = RenderedClips(split="train", clips=4, sampling=sampling)
    others = [
        RenderedClips(split="train", clips=4, sampling=sampling, seed=1).read(0, view),
        RenderedClips(split="val", clips=4, sampling=sampling).read(0, view),
        one.read(0, View(frames=4, image_px=32, policy="exact", span_s=8.0, part=1, parts=2)),
    ]
    for other in others:
        assert not np.array_equal(one.read(0, view).clip_THWC, other.clip_THWC)


def test_entries_of_rendered_clips_can_be_cut_and_walked() -> None:
    from train.config import load_preset

    entries = RenderedClips(split="val", clips=30, sampling=load_preset("demo").sampling).entries
    assert len({entry.name for entry in entries}) == 30
    assert [entry.name for entry in entries[2:5]] == [entry.name for entry in islice(entries, 2, 5)]
    with pytest.raises(IndexError):
        entries[30]
