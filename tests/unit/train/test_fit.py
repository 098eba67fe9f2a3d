from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from train.config import load_preset
from train.data.clips import RenderedClips, class_counts, rendered_hierarchy
from train.fit import fresh_batches, learning_rate, new_run_folder, parameter_groups, replay
from train.models.geolocator import Geolocator
from train.models.videomae import VideoMAEConfig


def numbered_batches(count: int, size: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    ids = torch.arange(count * size).reshape(count, size)
    return [(row[:, None].float(), {"city": row}) for row in ids]


@pytest.mark.parametrize("views", [1, 2, 5])
def test_every_clip_is_shown_as_often_as_asked_with_its_own_label(views: int) -> None:
    shown: Counter[int] = Counter()
    for pixels, labels in replay(numbered_batches(60, 8), views=views, seed=0):
        assert torch.equal(pixels[:, 0].long(), labels["city"])
        shown.update(labels["city"].tolist())
    assert set(shown) == set(range(480))
    assert set(shown.values()) == {views}


def test_replay_is_the_same_every_time() -> None:
    first, second = (
        [labels["city"].tolist() for _, labels in replay(numbered_batches(9, 4), views=3, seed=7)]
        for _ in range(2)
    )
    assert first == second


def test_enough_clips_are_rendered_for_all_steps() -> None:
    config = load_preset("demo", steps=7, views=3)
    assert fresh_batches(config) * config.views >= config.steps


def test_the_learning_rate_rises_then_falls_to_its_share() -> None:
    config = load_preset("demo", steps=200)
    rates = [learning_rate(step, config) for step in range(200)]
    peak = int(np.argmax(rates))
    assert max(rates) == pytest.approx(config.lr)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1.2 * config.lr * config.min_lr_share


def test_biases_and_norms_do_not_decay() -> None:
    config = VideoMAEConfig(frames=2, image_px=32, width=16, depth=1, heads=2, mlp_width=32)
    model = Geolocator(config, class_counts(rendered_hierarchy()))
    decayed, rest = parameter_groups(model, 0.05)
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert rest["weight_decay"] == 0.0
    counted = len(decayed["params"]) + len(rest["params"])
    assert counted == len(list(model.parameters()))


def test_a_run_never_overwrites_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_folder(None, "demo") == Path("runs/demo")
    assert new_run_folder(None, "demo") == Path("runs/demo-2")
    (tmp_path / "runs/demo/model.safetensors").touch()
    with pytest.raises(FileExistsError, match="another --out"):
        new_run_folder(tmp_path / "runs/demo", "demo")


def training_clips(**changes: object) -> RenderedClips:
    settings: dict[str, object] = {
        "split": "train",
        "clips": 40,
        "frames": 4,
        "image_px": 32,
        "sampling": load_preset("demo").sampling,
        "hierarchy": rendered_hierarchy(),
    }
    return RenderedClips(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_sample_is_the_same_whenever_it_is_asked_for() -> None:
    clips = training_clips()
    (first, labels), (again, _) = clips[3], clips[3]
    assert torch.equal(first, again)
    assert first.dtype == torch.uint8
    assert first.shape == (4, 32, 32, 3)
    assert set(labels) == {"city", "state", "country", "continent", "scene"}


def test_labels_follow_the_tree() -> None:
    tree = rendered_hierarchy()
    for index in range(6):
        labels = training_clips()[index][1]
        for level in ("state", "country", "continent"):
            assert labels[level] == tree.ancestors[level][labels["city"]]


def test_other_seeds_and_splits_show_other_clips() -> None:
    pixels = [
        training_clips(seed=seed, split=split)[0][0]
        for seed, split in ((0, "train"), (1, "train"), (0, "val"))
    ]
    assert not torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])
