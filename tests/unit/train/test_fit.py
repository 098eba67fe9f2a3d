import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.cityguessr import write_release
from tests.clips import NumberedClips
from tests.process import geotag_environ
from train.build import open_sources
from train.config import TrainConfig, load_preset
from train.data.clips import rendered_hierarchy, rendered_places_csv
from train.data.dataset import BadSample, Entry, Sample, View
from train.data.packing import pack
from train.data.shard_index import Packing
from train.data.sources import SOURCES, Source
from train.errors import DatasetError, ExportError, TrainError
from train.evaluate import app as evaluate_app
from train.export import export_bundle
from train.fit import app, new_run_folder
from train.loop import Learner
from train.models.geolocator import as_picture
from train.models.videomae import VideoMAEConfig, VideoMAEEncoder
from train.processes import World
from train.resume import load_state
from train.training import train

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
ROOT = Path(__file__).parents[3]


class Footage:
    """Noise with labels, some of it unreadable, some without scenes."""

    name = "noise"
    places_csv = rendered_places_csv()
    hierarchy = rendered_hierarchy()

    def __init__(self, clips: int = 24, bad: tuple[int, ...] = (), cities: int = 24) -> None:
        self.bad = bad
        self.entries = [
            Entry(name=f"clip {index}", city_id=index % cities, group=str(index))
            for index in range(clips)
        ]

    def read(self, index: int, view: View) -> Sample | BadSample:
        if index in self.bad:
            return BadSample(name=f"clip {index}", reason=f"clip {index}: no such frames")
        rng = np.random.default_rng([0 if view.seed is None else view.seed, index])
        shape = (view.frames, view.image_px, view.image_px, 3)
        return Sample(
            clip_THWC=rng.integers(0, 256, shape, dtype=np.uint8),
            city_id=self.entries[index].city_id,
            scene_S=np.full(16, 1 / 16, np.float32),
            scene_id=index % 16,
        )


def recipe(**changes: object) -> TrainConfig:
    """Few steps that use everything there is: all teachers, replays, dropped tokens, a mean."""
    settings: dict[str, object] = {
        "steps": 6,
        "batch": 4,
        "views": 2,
        "val_clips": 4,
        "test_clips": 6,
        "eval_every": 0.5,
        "model_scene": "attention",
        "model_text": "all",
        "loss_text_weight": 1.0,
        "optimiser_ema_decay": 0.9,
        "optimiser_layer_decay": 0.8,
    }
    return load_preset("demo", **{**settings, **changes})


def fit(config: TrainConfig, run: Path) -> str:
    """Train without worker processes; what a person was told."""
    run.mkdir(exist_ok=True)
    console = Console(record=True, width=200, file=io.StringIO())
    train(config, run, world=ALONE, workers=0, compiled=False, console=console)
    return console.export_text()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


SMOKE = ("--preset", "classifiers", "--pretrained", "none", "--size", "tiny", "--steps", "1",
         "--batch", "4", "--workers", "0", "--device", "cpu")  # fmt: skip


def command(*arguments: str | Path) -> tuple[int, str]:
    """Exit code of train.fit, and what was printed as one line."""
    result = CliRunner().invoke(app, [*SMOKE, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def footage(monkeypatch: pytest.MonkeyPatch) -> dict[str, Footage]:
    """Opened as `noise:.`: the parts of a dataset, to be exchanged by a test."""
    parts = {split: Footage() for split in ("train", "val", "test")}
    monkeypatch.setitem(SOURCES, "noise", Source(open=lambda request: parts[request.split]))
    return parts


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(recipe(), tmp_path / "whole")
    usual = Learner.step

    def interrupted(learner: Learner, batch: object, step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step
        usual(learner, batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe(), tmp_path / "halves")
    assert load_state(tmp_path / "halves").progress.step == 4
    config = load_state(tmp_path / "halves").config
    assert "going on at step 4" in fit(config, tmp_path / "halves")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "halves")[name], value), name
    states = [load_state(tmp_path / run).read_tensors() for run in ("whole", "halves")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_best_weights_are_kept_and_the_last_ones_to_go_on_from(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    config = recipe(data="noise:.", texts="names", views=1, batch=12, steps=4)
    fit(config, tmp_path)
    facts = json.loads((tmp_path / "checkpoint.json").read_text())["training"]
    assert facts["selected_on"] == "noise"
    assert 0 <= facts["selected_city_top1"] <= 1
    progress = load_state(tmp_path).progress
    assert progress.step == 4
    assert progress.best_step == facts["step"]


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_pieces_of_a_batch_add_up_to_the_whole(tmp_path: Path, accumulate: int) -> None:
    config = recipe(model_warm_start=False, steps=2, eval_every=0.0)
    fit(config, tmp_path / "whole")
    fit(replace(config, accumulate=accumulate), tmp_path / "pieces")
    pieces = weights(tmp_path / "pieces")
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(pieces[name], value, rtol=0, atol=1e-5)


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    two = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m"]
    changes = {"steps": 3, "batch": 8, "views": 2, "accumulate": 2, "val_clips": 8}
    changes |= {"model_scene": "attention", "model_text": "all", "loss_text_weight": 1.0}
    for name, start, more in (("one", [], {"accumulate": 1}), ("two", two, {})):
        done = subprocess.run(
            [
                *(sys.executable, "-m", *start, "tests.train_process", str(tmp_path / name)),
                # Without the warm start: what is near zero there, Adam enlarges to its full step.
                json.dumps({**changes, **more, "model_warm_start": False}),
            ],
            env={**geotag_environ(), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    found = weights(tmp_path / "two")
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    one, both = (json.loads(log.splitlines()[-1]) for log in logs)
    assert both == pytest.approx(one, abs=1e-4)


def test_samples_that_cannot_be_read_are_counted_and_listed(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    footage["train"] = Footage(bad=(3, 7))
    said = fit(recipe(data="noise:.", texts="names", views=1, steps=6, eval_every=0.0), tmp_path)
    assert "left out clip 3: clip 3: no such frames" in said
    assert (tmp_path / "bad_samples.csv").read_text().splitlines()[0] == "sample,reason"
    assert len((tmp_path / "bad_samples.csv").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "checkpoint.json").read_text())["training"]["bad_samples"] == 2


def test_a_dataset_that_is_mostly_unreadable_stops_the_run(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    footage["train"] = Footage(bad=tuple(range(4, 24)))
    with pytest.raises(TrainError, match="Check the dataset"):
        fit(recipe(data="noise:.", texts="names", views=1, batch=8, steps=10), tmp_path)


def test_a_batch_of_nothing_but_unreadable_clips_says_why(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    footage["train"] = Footage(bad=tuple(range(24)))
    config = recipe(data="noise:.", texts="names", model_warm_start=False)
    with pytest.raises(TrainError, match="no such frames"):
        fit(config, tmp_path)


def test_footage_without_scenes_says_how_to_label_it(
    tmp_path: Path, footage: dict[str, Footage], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Footage.read

    def without(clips: Footage, index: int, view: View) -> Sample | BadSample:
        sample = usual(clips, index, view)
        assert isinstance(sample, Sample)
        return replace(sample, scene_S=None, scene_id=-1)

    monkeypatch.setattr(Footage, "read", without)
    with pytest.raises(TrainError, match=r"python -m train\.scenes"):
        fit(recipe(data="noise:.", texts="names"), tmp_path / "soft")
    without_scenes = recipe(
        data="noise:.", texts="names", model_scene="none", loss_scene_weight=0.0, eval_every=0.0
    )
    fit(replace(without_scenes, views=1, steps=2), tmp_path / "without")


def test_missing_scenes_are_told_before_the_first_step_and_leave_no_folder(
    tmp_path: Path,
) -> None:
    packed = tmp_path / "packed"
    for split in ("train", "val"):
        pack(NumberedClips(clips=1), packed, split, Packing(image_px=112))  # it has no scene
    words = ("--preset", "scenes-soft", "--data", f"shards:{packed}", "--out", tmp_path / "run")
    code, told = command(*words)
    assert code == 2
    assert f"train.scenes --dataset 'shards:{packed}'" in told
    assert f"--out {packed / 'scenes.safetensors'}" in told
    assert "--resume" not in told
    assert not (tmp_path / "run").exists()


def test_cities_without_a_clip_are_named(tmp_path: Path, footage: dict[str, Footage]) -> None:
    footage["train"] = Footage(cities=22)
    said = fit(recipe(data="noise:.", texts="names", views=1, steps=1), tmp_path)
    assert "2 of 24 cities have no clip to learn from" in said


def test_weights_are_chosen_at_the_finest_level_that_is_learned(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    ancestors, cities = Footage.hierarchy.ancestors, range(24)
    one = next(
        (city, other)
        for city in cities
        for other in cities
        if ancestors["country"][city] == ancestors["country"][other]
        and ancestors["state"][city] != ancestors["state"][other]
    )
    for part, city in zip(("train", "val"), one, strict=True):
        footage[part].entries = [replace(entry, city_id=city) for entry in footage[part].entries]
    said = fit(recipe(data="noise:.", texts="names", views=1, steps=1), tmp_path)
    assert "no city of noise is trained on: weights are chosen by the country" in said
    assert "% of countries right on noise" in said
    facts = json.loads((tmp_path / "checkpoint.json").read_text())["training"]
    assert 0 <= facts["selected_country_top1"] <= 1


def test_a_loss_that_is_no_number_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="lower --lr"):
        fit(recipe(optimiser_lr=1e30, optimiser_clip_norm=0.0, eval_every=0.0), tmp_path)


def test_memory_that_runs_out_says_what_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(learner: Learner, batch: object, step: int) -> None:
        torch.empty(2**60)  # the allocator's own error

    monkeypatch.setattr(Learner, "step", greedy)
    with pytest.raises(TrainError, match="--accumulate 2"):
        fit(recipe(model_warm_start=False), tmp_path / "plain")
    with pytest.raises(TrainError, match="lower --batch"):
        fit(recipe(), tmp_path / "warm")


def test_texts_that_do_not_exist_say_how_to_make_them(footage: dict[str, Footage]) -> None:
    with pytest.raises(TrainError, match=r"python -m train\.texts"):
        open_sources(recipe(data="noise:.", texts=""))


def test_going_on_needs_a_state_that_is_whole(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"there is no .*state\.json"):
        load_state(tmp_path)
    fit(recipe(steps=1, eval_every=0.0), tmp_path)
    (state,) = (tmp_path / "last").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-7] + b"damaged")
    with pytest.raises(TrainError, match="was damaged"):
        load_state(tmp_path)


def test_going_on_with_another_dataset_is_refused(
    tmp_path: Path, footage: dict[str, Footage]
) -> None:
    config = recipe(data="noise:.", texts="names", views=1, steps=2, eval_every=0.0)
    fit(config, tmp_path)
    footage["train"] = Footage(clips=23)
    with pytest.raises(TrainError, match="clips 24 then, 23 now"):
        fit(config, tmp_path)


def test_going_on_with_other_frames_of_the_same_clips_is_refused(tmp_path: Path) -> None:
    for name, frames in (("all", None), ("few", 16)):
        packing = Packing(image_px=112, frames=frames)
        for split in ("train", "val"):
            pack(NumberedClips(clips=6), tmp_path / name, split, packing)
    shutil.copytree(tmp_path / "all", tmp_path / "moved")
    run = tmp_path / "run"
    assert command("--data", f"shards:{tmp_path / 'all'}", "--out", run)[0] == 0
    found = {}
    for name in ("few", "moved"):
        words = ["--resume", str(run), "--data", f"shards:{tmp_path / name}", "--workers", "0"]
        found[name] = CliRunner().invoke(app, words)
    assert found["few"].exit_code == 2
    assert "content of train" in found["few"].output
    assert found["moved"].exit_code == 0


def test_going_on_keeps_the_recipe_and_says_what_may_change(tmp_path: Path) -> None:
    fit(recipe(steps=2, eval_every=0.0), tmp_path)
    result = CliRunner().invoke(
        app, ["--resume", str(tmp_path), "--batch", "8", "--preset", "geotag"]
    )
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "leave out --batch, --preset" in told
    assert "--lr for a run that diverged" in told


def test_a_run_that_cannot_begin_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--data", "cityguessr:nowhere", "--preset", "classifiers"])
    assert result.exit_code == 2
    assert "nowhere" in result.output
    assert not (tmp_path / "runs/classifiers").exists()


@pytest.mark.parametrize("has_empty_folder", [False, True])
def test_a_missing_test_part_is_told_before_the_first_step(
    tmp_path: Path, has_empty_folder: bool
) -> None:
    root = write_release(tmp_path / "release", ("Malm", "Austin"), clips=4)
    shutil.rmtree(root / "val")
    if has_empty_folder:
        (root / "val").mkdir()
    code, told = command("--data", f"cityguessr:{root}", "--out", tmp_path / "run")
    assert code == 2
    assert "there are no cities in val/" in told
    assert f"'cityguessr:{root}?partial'" in told
    assert "Usage" not in told
    assert "step 1" not in told
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_test_part_is_measured_on_other_footage_and_exported(
    tmp_path: Path,
) -> None:
    root = write_release(tmp_path / "release", ("Malm", "Austin"), clips=4)
    other = write_release(tmp_path / "other", ("Malm", "Dallas"), clips=2)
    shutil.rmtree(root / "val")
    run = tmp_path / "run"
    code, told = command("--data", f"cityguessr:{root}?partial", "--out", run)
    assert code == 0, told
    assert told.index("will not be evaluated") < told.index("not evaluated")
    elsewhere = f"python -m train.evaluate --model {run} --data KIND:PATH --out {run}"
    assert elsewhere in told
    quick = ["--workers", "0", "--no-plots", "--device", "cpu"]
    result = CliRunner().invoke(evaluate_app, ["--model", str(run), *quick])
    assert result.exit_code == 2
    assert elsewhere in " ".join(result.output.split())
    with pytest.raises(ExportError, match="never evaluated"):
        export_bundle(run, tmp_path / "bundle")
    words = [*elsewhere.replace("KIND:PATH", f"cityguessr:{other}").split()[3:], *quick]
    result = CliRunner().invoke(evaluate_app, words)
    assert result.exit_code == 0, result.output
    export_bundle(run, tmp_path / "bundle")
    assert "2 samples of" in (tmp_path / "bundle/MODEL_CARD.md").read_text()


def test_a_packed_dataset_may_have_no_test_part(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pack(NumberedClips(clips=6), tmp_path / "packed", split, Packing(image_px=112))
    code, told = command("--data", f"shards:{tmp_path / 'packed'}", "--out", tmp_path / "run")
    assert code == 0, told
    assert "holds no clips to test on" in told


def test_a_file_where_the_run_would_lie_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for out in ("taken", "taken/run"):
        code, told = command("--out", tmp_path / out)
        assert code == 5
        assert "taken is a file, no folder" in told


@pytest.mark.parametrize("still", ["first", "random"])
def test_a_model_of_single_pictures_is_chosen_by_its_score_too(
    tmp_path: Path, footage: dict[str, Footage], still: str
) -> None:
    config = recipe(data="noise:.", texts="names", views=1, batch=12, steps=4, model_still=still)
    said = fit(config, tmp_path)
    assert "of cities right on noise" in said
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [line["selection_city_top1"] for line in lines if "selection_city_top1" in line]
    facts = json.loads((tmp_path / "checkpoint.json").read_text())["training"]
    assert facts["selected_city_top1"] == max(scores)


def test_a_video_network_sees_a_still_picture_as_its_picture_form_does() -> None:
    shape = VideoMAEConfig(frames=2, image_px=32, width=16, depth=2, heads=2, mlp_width=24)
    torch.manual_seed(0)
    video = VideoMAEEncoder(shape).eval()
    _, picture = as_picture(shape, video)
    pixels = torch.randn(3, 1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            picture.eval()(pixels), video(pixels.expand(3, 2, 3, 32, 32)), rtol=0, atol=1e-5
        )


def test_a_run_without_git_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    fit(recipe(steps=1, eval_every=0.0), tmp_path)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["training"]["commit"] is None


def test_a_dataset_that_fails_in_a_reading_process_says_so_without_a_trace(
    tmp_path: Path, footage: dict[str, Footage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(clips: Footage, index: int, view: View) -> Sample:
        raise DatasetError("reading noise: the folder is gone")

    config = recipe(
        data="noise:.", texts="names", views=1, steps=2, eval_every=0.0, model_warm_start=False
    )
    monkeypatch.setattr(Footage, "read", broken)
    with pytest.raises(DatasetError, match=r"^reading noise: the folder is gone$"):
        train(
            config,
            tmp_path,
            world=ALONE,
            workers=1,
            compiled=False,
            console=Console(file=io.StringIO()),
        )


def test_a_run_never_overwrites_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_folder(None, "demo") == Path("runs/demo")
    (tmp_path / "runs/demo/model.safetensors").touch()
    assert new_run_folder(None, "demo") == Path("runs/demo-2")
    with pytest.raises(TrainError, match=r"another --out\.$"):
        new_run_folder(tmp_path / "runs/demo", "demo")
    (tmp_path / "runs/demo/last").mkdir()
    (tmp_path / "runs/demo/last/state.json").touch()
    with pytest.raises(TrainError, match=r"--resume .*runs/demo$"):
        new_run_folder(tmp_path / "runs/demo", "demo")
