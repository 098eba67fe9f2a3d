import io
import json
import threading
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from rich.console import Console

from tests.clip_datasets import WORLD, Clips, Reader, tree
from tests.clips import NumberedClips
from train.config import EvaluatedPolicy
from train.data.dataset import BadSample, Sample, View
from train.data.timed import with_frame_s
from train.errors import DatasetError, TrainError
from train.evaluation.measure import Candidate, Plan, evaluate, view_of
from train.evaluation.sets import Task, dataset_task, spread
from train.evaluation.tables import show_evaluation

PARIS, LYON, BERLIN, TOKYO = range(4)
KEYFRAME = EvaluatedPolicy(policy="keyframe", span_s=21.0)
DENSE = EvaluatedPolicy(policy="dense", span_s=2.5)
QUIET = Console(file=io.StringIO())
VIEW = View(frames=2, image_px=4)


def answered(*answers: int, cities: tuple[int, ...], **more: object) -> Clips:
    return Clips(answers=tuple((answer,) for answer in answers), cities=cities, **more)


def task_of(test: Clips, val: Clips | None = None, **more: object) -> Task:
    more = {"policies": (KEYFRAME, DENSE), **more}
    return dataset_task(test, val, split="test", view=VIEW, **more)


def run(
    task: Task, reader: Reader | None = None, *, against: Reader | None = None, **plan: object
) -> dict[str, Any]:
    return evaluate(
        Candidate(scorer=reader or Reader()),
        task,
        Plan(repeats=50, **plan),
        against=None if against is None else Candidate(scorer=against),
        workers=0,
        console=QUIET,
        command="python -m train.evaluate",
    )


def test_accuracy_by_hand_in_every_mode() -> None:
    found = run(task_of(answered(PARIS, PARIS, PARIS, PARIS, cities=(PARIS, LYON, BERLIN, TOKYO))))
    assert found["clips"] == found["samples"] == 4
    for mode in ("without", "independent", "codependent", "trace_only", "marginal"):
        assert found["modes"][mode] == {
            "city": 0.25,
            "state": 0.25,
            "country": 0.5,
            "continent": 0.75,
        }
        assert found["conflict_rate"][mode] == 0.0


def test_the_record_is_json_that_says_what_it_counted() -> None:
    found = run(task_of(answered(PARIS, -1, cities=(PARIS, LYON))))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["dataset"] == found["data"] == "four cities"
    assert found["model"] == "reader"
    assert found["command"] == "python -m train.evaluate"
    assert found["bootstrap"]["repeats"] == 50


def test_the_same_evaluation_gives_the_same_numbers() -> None:
    clips = answered(PARIS, LYON, LYON, TOKYO, cities=(PARIS, LYON, BERLIN, TOKYO))
    assert run(task_of(clips)) == run(task_of(clips))


def test_a_sample_that_cannot_be_read_is_counted_and_named_and_no_answer() -> None:
    found = run(task_of(answered(PARIS, -1, LYON, cities=(PARIS, LYON, LYON))))
    assert found["clips"] == 2
    assert found["modes"]["marginal"]["city"] == 1.0
    assert found["bad_samples"] == {
        "count": 1,
        "samples": [{"name": "clip 1", "reason": "row 1: the frame is damaged"}],
    }
    text = shown(found)
    assert "1 counted samples could not be read" in text
    assert "clip 1: row 1: the frame is damaged" in text


def test_a_dataset_of_which_nothing_can_be_read_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"none of its 2 samples could be read .*row 0"):
        run(task_of(answered(-1, -1, cities=(PARIS, LYON))))


def test_cities_that_the_model_does_not_know_are_reported_apart_and_count_further_up() -> None:
    given = WORLD + (
        "Marseille,Provence,France,Europe,FR-PAC,FR,EU,43.2970,5.3811,2995469\n"
        "Lima,Lima,Peru,South America,PE-LMA,PE,SA,-12.0432,-77.0282,3936456\n"
    )
    clips = answered(PARIS, LYON, BERLIN, cities=(PARIS, 4, 5), places=given)
    found = run(task_of(clips))
    marginal = found["metrics"]["marginal"]
    assert [marginal[level]["clips"] for level in ("city", "state", "country", "continent")] == [
        *(1, 1, 2, 2)
    ]
    assert found["modes"]["marginal"]["city"] == 1.0
    assert found["open_set"]["clips"] == 2
    assert found["open_set"]["cities"] == [
        {"city": "Marseille", "clips": 1},
        {"city": "Lima", "clips": 1},
    ]
    assert found["open_set"]["country"] == {
        "clips": 1,
        "top1": {"value": 1.0, "low": 1.0, "high": 1.0},
    }
    assert found["open_set"]["distance"]["median_km"]["value"] > 278  # Lyon to Marseille
    assert [city["known"] for city in found["cities"]] == [True, False, False]
    assert "2 clips are of 2 cities that the model does not know" in shown(found)


def test_a_model_that_knows_no_city_of_the_data_set_still_has_its_coarse_levels() -> None:
    elsewhere = "Marseille,Provence,France,Europe,FR-PAC,FR,EU,43.2970,5.3811,2995469\n"
    found = run(task_of(answered(PARIS, cities=(0,), places=elsewhere)))
    assert found["modes"]["marginal"] == {
        "city": None,
        "state": None,
        "country": 1.0,
        "continent": 1.0,
    }
    json.dumps(found, allow_nan=False)
    shown(found)


def test_several_clips_of_a_sample_are_one_answer() -> None:
    # The first clip of three is wrong each time; two of three outvote it.
    clips = Clips(
        answers=((TOKYO, PARIS, PARIS), (PARIS, LYON, LYON), (PARIS, -1, LYON)),
        cities=(PARIS, LYON, LYON),
    )
    assert run(task_of(clips))["modes"]["marginal"]["city"] == 0.0
    found = run(task_of(clips), clips=3)
    assert found["clips"] == 2
    assert found["clips_per_answer"] == 3
    assert found["modes"]["marginal"]["city"] == 1.0
    assert found["bad_samples"]["count"] == 1  # one of its clips is damaged


def test_the_clips_of_a_drive_are_one_answer_and_more_clips_are_surer() -> None:
    long = (PARIS, TOKYO, PARIS, PARIS)
    clips = answered(
        *long, LYON, BERLIN, cities=(PARIS,) * 4 + (LYON, LYON), groups=("a",) * 4 + ("b", "b")
    )
    found = run(task_of(clips), by_drive=True)
    drives = found["drives"]
    assert (drives["drives"], drives["clips"], drives["mixed_cities"]) == (2, 6, 0)
    assert found["modes"]["without"]["city"] == pytest.approx(4 / 6)
    assert drives["modes"]["without"]["city"] == 1.0  # Lyon and Berlin tie, the first wins
    assert [(row["fused"], row["drives"]) for row in drives["by_clips"]] == [(1, 2), (2, 2), (4, 1)]
    last = drives["by_clips"][-1]["city"]
    assert (last["top1"]["value"], last["one_clip"]["value"]) == (1.0, 0.75)
    assert "2 drives" in shown(found)


def test_a_drive_through_two_cities_is_counted_as_such() -> None:
    clips = answered(PARIS, PARIS, LYON, cities=(PARIS, PARIS, LYON), groups=("a", "a", "a"))
    drives = run(task_of(clips), by_drive=True)["drives"]
    assert drives["mixed_cities"] == 1
    assert drives["modes"]["marginal"]["city"] == 1.0  # most of it is in Paris


def test_measured_points_are_used_and_counted() -> None:
    clips = answered(PARIS, PARIS, cities=(PARIS, PARIS), points_deg=((48.8049, 2.1204), None))
    found = run(task_of(clips))
    assert found["measured_points"] == 1
    assert found["metrics"]["marginal"]["distance"]["mean_km"]["value"] == pytest.approx(
        8.8, abs=0.2
    )


def test_stored_frames_are_passed_over_once_and_say_nothing_of_policies() -> None:
    found = run(task_of(answered(PARIS, cities=(PARIS,))))
    assert found["clips"] == 1
    assert [row["policy"] for row in found["policies"]] == ["keyframe", "dense"]
    assert all(row["city_top1"] is None and row["clips"] == 0 for row in found["policies"])


def test_footage_with_real_time_is_measured_by_every_policy() -> None:
    clips = answered(PARIS, TOKYO, cities=(PARIS, LYON), timed=True)
    found = run(task_of(clips), by_drive=True)
    assert found["clips"] == 4
    assert found["bootstrap"]["groups"] == 2  # the same two clips, seen in two ways
    assert [(row["policy"], row["city_top1"], row["clips"]) for row in found["policies"]] == [
        ("keyframe", 0.5, 2),
        ("dense", 0.5, 2),
    ]
    assert found["drives"]["clips"] == 2
    assert (found["samples"], found["counted_samples"]) == (2, 2)
    title = "2 samples of four cities, one clip each for 2 ways of sampling"
    assert title in " ".join(shown(found).split())
    bad = run(task_of(answered(PARIS, -1, cities=(PARIS, LYON), timed=True)))
    assert bad["bad_samples"]["count"] == 1  # though two ways of sampling asked for it


def test_a_policy_is_measured_on_the_clips_that_say_something_of_it() -> None:
    abroad = "\n".join(
        [*WORLD.splitlines()[:1], "Nice,Provence,France,Europe,FR-PAC,FR,EU,43.7,7.3,1"]
    )
    clips = answered(PARIS, PARIS, cities=(1, 1), timed=True, places=abroad + "\n")
    row = run(task_of(clips))["policies"][0]
    assert (row["city_top1"], row["country_top1"], row["clips"]) == (None, 1.0, 2)


def test_stored_frames_are_measured_over_no_more_seconds_than_are_stored() -> None:
    clips = with_frame_s(NumberedClips(clips=3, frames=20), "0.5")
    long = EvaluatedPolicy(policy="exact", span_s=8.0)
    task = dataset_task(clips, None, split="test", view=VIEW, policies=(KEYFRAME, long))
    assert [policy.span_s for policy in task.policies] == [10.0, 8.0]


def test_validation_clips_calibrate_and_are_named() -> None:
    val = answered(
        *[PARIS, LYON, BERLIN, TOKYO] * 10, cities=(PARIS, LYON, BERLIN, LYON) * 10, name="val part"
    )
    found = run(task_of(answered(PARIS, cities=(PARIS,)), val), Reader(sure=20.0))
    assert found["calibrated_by"] == "40 clips of val part"
    assert found["calibration"]["without"]["city"]["temperature"] > 4
    flat = run(task_of(answered(PARIS, cities=(PARIS,))))
    assert flat["calibrated_by"] == "nothing: temperature 1"
    assert flat["calibration"]["without"]["city"]["temperature"] == 1.0


def test_scenes_are_counted_where_both_sides_have_them() -> None:
    clips = answered(PARIS, LYON, cities=(PARIS, LYON), scenes=(0, 0))
    assert run(task_of(clips))["scene_top1"] is None
    assert run(task_of(clips), Reader(scenes=2))["scene_top1"] == 0.5
    unlabelled = replace(clips, scenes=())
    assert run(task_of(unlabelled), Reader(scenes=2))["scene_top1"] is None
    with pytest.raises(DatasetError, match="the scene 7, the model has 2 scene groups"):
        run(task_of(replace(clips, scenes=(0, 7))), Reader(scenes=2))


def test_another_model_is_compared_on_the_same_clips() -> None:
    clips = answered(*[PARIS, LYON] * 20, cities=(PARIS, LYON) * 20)
    other = Reader(tree("\n".join([*WORLD.splitlines()[::-1], ""])))  # reads Paris as Tokyo
    found = run(task_of(clips), against=other)["against"]
    assert found["marginal"]["city"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["model"] == "reader"
    same = run(task_of(clips), against=Reader())["against"]
    assert same["codependent"]["city"]["value"] == 0.0


def test_a_stated_number_of_samples_is_spread_over_the_list() -> None:
    assert spread(10, 4) == (0, 2, 5, 7)
    assert spread(3, 9) == spread(3, None) == (0, 1, 2)
    clips = answered(*[PARIS] * 6, cities=(PARIS,) * 6)
    found = run(task_of(clips, test_clips=2))
    assert (found["clips"], found["samples"]) == (2, 6)
    assert "2 of the data set's 6 samples were counted" in shown(found)


def test_reading_in_other_processes_gives_the_same() -> None:
    clips = answered(PARIS, -1, LYON, TOKYO, cities=(PARIS, LYON, BERLIN, TOKYO))
    task = task_of(clips)
    alone = run(task)
    together = evaluate(
        Candidate(scorer=Reader()),
        task,
        Plan(repeats=50),
        workers=1,
        console=QUIET,
        command="python -m train.evaluate",
    )
    assert together == alone


class Gone(Clips):
    def read(self, index: int, view: View) -> NoReturn:
        raise DatasetError("reading four cities: there is no folder x")


def test_an_unusable_dataset_stops_with_its_own_words() -> None:
    gone = Gone(answers=((0,),), cities=(0,))
    with pytest.raises(DatasetError, match=r"^reading four cities: there is no folder x$"):
        run(task_of(gone, policies=()))


def test_an_error_leaves_no_progress_bar_running() -> None:
    before = set(threading.enumerate())
    with pytest.raises(DatasetError) as held:
        run(task_of(Gone(answers=((0,),), cities=(0,)), policies=()))
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert held.traceback  # what it refers to is still there: nothing was cleaned up by chance


def test_a_view_asks_for_what_the_model_takes() -> None:
    view = view_of(Reader(), Plan(clips=3, picking="reference"), DENSE)
    assert (view.frames, view.image_px, view.resize) == (2, 4, "squash")
    assert (view.policy, view.span_s, view.parts, view.picking) == ("dense", 2.5, 3, "reference")
    assert view.seed is None
    assert view.augmentation is None


def test_the_tables_name_the_data_set_and_carry_intervals() -> None:
    text = shown(run(task_of(answered(*[PARIS, LYON] * 8, cities=(PARIS, PARIS) * 8))))
    assert "16 samples of four cities, one clip each" in text
    assert "50.0 (" in text
    for mode in ("without", "independent", "codependent", "trace_only", "marginal"):
        assert mode in text
    assert max(map(len, text.splitlines())) <= 100


def test_how_much_is_used_of_each_part_is_shown() -> None:
    evaluation = run(task_of(answered(*[PARIS, LYON] * 8, cities=(PARIS, PARIS) * 8)))
    assert "expert" not in shown(evaluation)
    shares = {"mean_share": 0.375, "largest": 0.25}, {"mean_share": 0.625, "largest": 0.75}
    routes = dict(zip(("town", "country"), shares, strict=True))
    text = shown({**evaluation, "routing": {"expert": {"clips": 16, "routes": routes}}})
    assert "routing by expert: 16 clips" in text
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["town", "25.0", "37.5"] in rows
    assert ["country", "75.0", "62.5"] in rows


def test_comparing_models_that_read_other_clips_is_refused() -> None:
    class Small(Reader):
        clip_shape = (1, 4, "squash")

    class Picky(Clips):
        def read(self, index: int, view: View) -> Sample | BadSample:
            if (index, view.frames) == (1, 1):
                return BadSample(name="clip 1", reason="too short")
            return super().read(index, view)

    clips = Picky(answers=((PARIS,), (LYON,)), cities=(PARIS, LYON))
    with pytest.raises(TrainError, match="it reads 1 clips, the first model 2"):
        run(task_of(clips), against=Small())


def shown(evaluation: dict[str, Any]) -> str:
    out = io.StringIO()
    show_evaluation(evaluation, Console(file=out, width=100))
    return out.getvalue()
