from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engines.bundle import LEVELS, OUTPUTS, read_bundle
from engines.openvino_cpu import OpenvinoEngine
from tests.tolerances import FP32_LOGIT
from train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.config import load_preset
from train.data.clips import RenderedClips
from train.data.dataset import SamplingRange
from train.export import ExportError, export_bundle
from train.models.geolocator import Geolocator
from train.models.heads import HEADS
from train.models.teachers import PLAIN, TeacherConfig
from train.models.videomae import SIZES, VideoMAEConfig
from train.onnx_graph import export_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.models.teachers import SceneHead

PLACES = """\
city,state,country,continent,lat_deg,lon_deg
Suva,Central,Fiji,Oceania,-18.14,178.44
Lomé,Maritime,Togo,Africa,6.13,1.22
Kpalimé,Plateaux,Togo,Africa,6.9,0.63
"""
CLASSES = {"city": 3, "state": 3, "country": 2, "continent": 2, "scene": 16}
PLAIN_RECORD = asdict(PLAIN)
CONFIG = VideoMAEConfig(frames=4, image_px=32, width=24, depth=2, heads=3, mlp_width=40)
FACTS: dict[str, Any] = {
    "data": "rendered",
    "preset": "test",
    "seed": 7,
    "steps": 20,
    "commit": None,
    "sampling": {"min_span_s": 3.0, "max_span_s": 9.0, "max_keyframe_gap_s": 1.5, "clips": 5},
}
EVALUATION: dict[str, Any] = {
    "split": "test",
    "clips": 600,
    "modes": {"marginal": dict(zip(LEVELS, (0.5, 0.55, 0.6, 0.875), strict=True))},
    "policies": [
        {"policy": "dense", "span_s": 2.5, "city_top1": 0.5, "country_top1": 0.625, "clips": 300},
        {"policy": "exact", "span_s": 8, "city_top1": 0.25, "country_top1": 0.5, "clips": 300},
    ],
    "calibration": {"marginal": {"city": {"temperature": 1.5, "threshold_prob": 0.7}}},
    "command": "python -m train.fit --preset test",
}


def loud_model(
    config: VideoMAEConfig,
    classes: dict[str, int] | None = None,
    teachers: TeacherConfig = PLAIN,
) -> Geolocator:
    """Random weights and biases, large enough for logits of several units and uneven attention."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # drawing weights twice takes longer than the model
        patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
        model = Geolocator(config, classes or CLASSES, teachers=teachers).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                std = 0.5 if "heads" in name else 0.05
                if name.startswith("teachers"):  # six layers in a row, none of them louder
                    std = 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
                parameter.normal_(std=std)
    return model


def clips_of(config: VideoMAEConfig, count: int) -> np.ndarray:
    shape = (count, config.frames, config.image_px, config.image_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_run(
    folder: Path,
    model: Geolocator | None = None,
    *,
    evaluation: object = EVALUATION,
    **facts: object,
) -> Path:
    save_checkpoint(
        folder, model or loud_model(CONFIG), places_csv=PLACES, facts={**FACTS, **facts}
    )
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


# --- the graph ---


@pytest.mark.parametrize(
    ("config", "counts"),
    [(CONFIG, (1, 3)), (SIZES["tiny"], (2,)), (SIZES["small"], (1,))],
    ids=["odd", "tiny", "small"],
)
def test_onnx_runtime_computes_what_torch_does(
    config: VideoMAEConfig, counts: tuple[int, ...], tmp_path: Path
) -> None:
    model = loud_model(config)
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    for count in counts:
        clips = clips_of(config, count)
        with torch.inference_mode():
            wanted = model(torch.from_numpy(clips))
        found = dict(zip(OUTPUTS, session.run(OUTPUTS, {"clip": clips}), strict=True))
        assert max(float(wanted[head].abs().max()) for head in HEADS) > 1
        for output in OUTPUTS:
            assert found[output].dtype == np.float32
            np.testing.assert_allclose(found[output], wanted[output], rtol=0, atol=FP32_LOGIT)


def test_the_graph_is_in_the_dialect_that_every_runtime_reads(tmp_path: Path) -> None:
    export_onnx(loud_model(CONFIG), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx")
    kinds = [node.op_type for node in graph.graph.node]
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    assert kinds.count("LayerNormalization") == kinds.count("Gelu") * 2 == 2 * CONFIG.depth
    assert kinds.count("Softmax") == CONFIG.depth
    # Six Linears and two attention products a block; the tubelets; the heads.
    assert kinds.count("MatMul") == 8 * CONFIG.depth + 1 + len(HEADS)
    assert not {"Attention", "Erf", "Pow", "Sqrt", "Conv", "Gemm", "Split"} & set(kinds)
    (clip,) = graph.graph.input
    assert (clip.name, clip.type.tensor_type.elem_type) == ("clip", onnx.TensorProto.UINT8)
    sizes = [axis.dim_param or axis.dim_value for axis in clip.type.tensor_type.shape.dim]
    assert sizes == ["N", 4, 32, 32, 3]
    assert [output.name for output in graph.graph.output] == list(OUTPUTS)


def test_the_graph_is_one_file_without_a_trace_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(loud_model(CONFIG), path)
    content = path.read_bytes()
    for trace in (str(tmp_path), str(Path.home()), str(Path.cwd()), torch.__version__, ".py"):
        assert trace.encode() not in content, trace
    graph = onnx.load(path, load_external_data=False)
    assert all(not entry.external_data for entry in graph.graph.initializer)
    assert not graph.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_constants_are_the_weights_in_the_layout_that_quantization_wants(tmp_path: Path) -> None:
    model = loud_model(CONFIG)
    export_onnx(model, tmp_path / "model.onnx")
    constants = {
        entry.name: onnx.numpy_helper.to_array(entry)
        for entry in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    for name, shape in (("query", (24, 24)), ("fc1", (24, 40)), ("fc2", (40, 24))):
        found = constants[f"blocks.1.{name}.weight"]
        assert found.shape == shape
        weight = model.encoder.get_parameter(f"blocks.1.{name}.weight")
        np.testing.assert_array_equal(found, weight.detach().numpy().T)
    assert "blocks.1.key.bias" not in constants


def test_exporting_twice_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = export_bundle(run, tmp_path / "first", name="same").path
    second = export_bundle(run, tmp_path / "second", name="same").path
    names = sorted(entry.name for entry in first.iterdir())
    assert names == ["MODEL_CARD.md", "bundle.json", "model.onnx", "places.csv"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


# --- the bundle ---


def test_a_bundle_says_what_the_checkpoint_and_its_evaluation_said(
    run: Path, tmp_path: Path
) -> None:
    report = export_bundle(run, tmp_path / "deep" / "bundle", name="mine")
    manifest = read_bundle(report.path).manifest
    assert (manifest.name, manifest.domain, manifest.licence) == ("mine", "rendered", "Apache-2.0")
    assert (manifest.input.frames, manifest.input.height_px, manifest.input.width_px) == (4, 32, 32)
    assert manifest.outputs == {**CLASSES, "feature": 24}
    assert manifest.sampling.max_keyframe_gap_s == 1.5
    assert manifest.sampling.clips == 5
    assert [policy.policy for policy in manifest.sampling.policies] == ["dense", "exact"]
    assert manifest.calibration["marginal"]["city"].temperature == 1.5
    assert manifest.calibration["without"]["state"].threshold_prob == 0.5
    assert manifest.training["seed"] == 7
    assert manifest.files["model.onnx"].measured["city_top1"] == 0.5
    assert str(tmp_path) not in (report.path / "bundle.json").read_text(encoding="utf-8")
    assert report.label in str(report)


def test_the_engine_runs_the_bundle_as_torch_ran_the_checkpoint(run: Path, tmp_path: Path) -> None:
    report = export_bundle(run, tmp_path / "bundle")
    model, _ = load_checkpoint(run)
    clips = clips_of(CONFIG, 2)
    found = OpenvinoEngine(read_bundle(report.path), threads=1).infer(clips)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(clips))
    for output in OUTPUTS:
        np.testing.assert_allclose(found[output], wanted[output], rtol=0, atol=FP32_LOGIT)
    assert set(report.parity) == {"ONNX Runtime", "OpenVINO"}
    assert all(worst is not None and worst <= FP32_LOGIT for worst in report.parity.values())


def test_the_card_of_a_rendered_world_says_so_first(run: Path, tmp_path: Path) -> None:
    out = export_bundle(run, tmp_path / "bundle").path
    lines = (out / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# run"
    assert lines[2].startswith("This model answers only for the rendered world")
    assert "| marginal | 50.0 | 55.0 | 60.0 | 87.5 |" in lines
    assert "| dense | 2.5 | 50.0 | 62.5 | 300 |" in lines
    assert any(line.startswith("Not for finding or following people") for line in lines)


def test_a_model_of_packed_clips_of_the_rendered_world_is_one_of_that_world(tmp_path: Path) -> None:
    clips = RenderedClips(split="train", clips=2, sampling=SamplingRange())
    packed = f"{clips.name}, packed at 112 px"
    run = make_run(tmp_path / "run", data="shards:packed", dataset=packed)
    manifest = read_bundle(export_bundle(run, tmp_path / "bundle").path).manifest
    assert (manifest.domain, manifest.licence) == ("rendered", "Apache-2.0")


def test_a_model_of_roads_states_no_licence_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data="cityguessr")
    out = export_bundle(run, tmp_path / "bundle").path
    manifest = read_bundle(out).manifest
    assert (manifest.domain, manifest.licence) == ("road", "not stated")
    assert "rendered" not in (out / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scene", "outputs"),
    [("attention", OUTPUTS), ("none", (*LEVELS, "feature"))],
)
def test_a_taught_model_becomes_a_bundle_without_its_text_head(
    scene: SceneHead, outputs: tuple[str, ...], tmp_path: Path
) -> None:
    model = loud_model(CONFIG, teachers=TeacherConfig(scene=scene, text_width=12))
    report = export_bundle(make_run(tmp_path / "run", model), tmp_path / "bundle")
    bundle = read_bundle(report.path)
    assert set(bundle.manifest.outputs) == set(outputs)
    assert len(bundle.manifest.scenes) == (16 if "scene" in outputs else 0)
    clips = clips_of(CONFIG, 2)
    found = OpenvinoEngine(bundle, threads=1).infer(clips)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(clips))
    assert set(found) == set(wanted) == set(outputs)
    for output in outputs:
        np.testing.assert_allclose(found[output], wanted[output], rtol=0, atol=FP32_LOGIT)
    card = (report.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert ("scene groups" in card) == ("scene" in outputs)


def test_a_bundle_tells_the_recipe_and_no_folder_of_its_maker(tmp_path: Path) -> None:
    config = load_preset(
        "paper",
        data="manifest:/home/lovelace/drives.csv?footage=/home/lovelace/videos",
        pretrained="/home/lovelace/videomae.pth",
        texts="~/lovelace/texts.safetensors",
    )
    facts = {**asdict(config), "commit": "abc", "dataset": "drives train"}
    run = tmp_path / "run"
    save_checkpoint(run, loud_model(CONFIG), places_csv=PLACES, facts=facts)
    (run / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    out = export_bundle(run, tmp_path / "bundle").path
    training = read_bundle(out).manifest.training
    assert training["data"] == "manifest:drives.csv?footage=videos"
    assert (training["pretrained"], training["texts"]) == ("videomae.pth", "texts.safetensors")
    assert (training["scenes"], training["preset"]) == (None, "paper")
    assert (training["loss_text_weight"], training["optimiser_name"]) == (1.0, "adamw")
    for name in ("bundle.json", "MODEL_CARD.md"):
        assert "lovelace" not in (out / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("cityguessr:/data/CityGuessr68k", "cityguessr:CityGuessr68k"),
        ("msls:/data/msls?spatial&partial", "msls:msls?spatial&partial"),
        ("MCG-NJU/videomae-small-finetuned-kinetics", "MCG-NJU/videomae-small-finetuned-kinetics"),
        ("weights/checkpoint.pth", "checkpoint.pth"),
        ("names", "names"),
    ],
)
def test_datasets_and_weights_are_told_without_their_folder(
    given: str, kept: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", data=given, pretrained=given)
    training = read_bundle(export_bundle(run, tmp_path / "bundle").path).manifest.training
    assert (training["data"], training["pretrained"]) == (kept, kept)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (None, "never evaluated"),
        ({"policies": []}, "measured no policy"),
        ({"clips": 3}, "cannot be read"),
        ({"policies": [{"policy": "dense"}]}, "each policy needs"),
    ],
)
def test_a_run_without_measured_policies_is_refused(
    tmp_path: Path, evaluation: object, said: str
) -> None:
    run = make_run(tmp_path / "run", evaluation=evaluation)
    with pytest.raises(ExportError, match=rf"(?s){said}.*train\.evaluate"):
        export_bundle(run, tmp_path / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_weights_that_are_not_numbers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = loud_model(CONFIG)
    with torch.no_grad():
        model.heads["state"].weight[0, 0] = float("nan")
    run = make_run(tmp_path / "run", model)
    with pytest.raises(ExportError, match="away from torch's"):
        export_bundle(run, tmp_path / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_tree_of_other_classes_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", loud_model(CONFIG, {**CLASSES, "city": 4}))
    with pytest.raises(ExportError, match="holds 3 classes at the level city"):
        export_bundle(run, tmp_path / "bundle")


def test_an_existing_bundle_is_replaced_only_when_asked(run: Path, tmp_path: Path) -> None:
    out = export_bundle(run, tmp_path / "bundle").path
    before = (out / "bundle.json").read_bytes()
    with pytest.raises(ExportError, match="--overwrite"):
        export_bundle(run, out, name="other")
    assert (out / "bundle.json").read_bytes() == before
    export_bundle(run, out, name="other", overwrite=True)
    assert read_bundle(out).manifest.name == "other"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "run"]


def test_a_folder_that_is_no_bundle_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"jpeg")
    with pytest.raises(ExportError, match="it is not a bundle"):
        export_bundle(run, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"jpeg"


# --- the checkpoint ---


def test_a_checkpoint_is_loaded_as_it_was_saved(run: Path) -> None:
    model, record = load_checkpoint(run)
    original = loud_model(CONFIG)
    assert model.config == CONFIG
    assert not model.training
    assert record["training"] == FACTS
    assert record["size"] == "custom"
    for name, value in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(model.mean, original.mean)
    assert (run / "places.csv").read_text(encoding="utf-8") == PLACES


@pytest.mark.parametrize(
    "teachers",
    [
        TeacherConfig(scene="attention", text_width=12, attention_input="probs"),
        TeacherConfig(scene="none"),
        PLAIN,
    ],
)
def test_a_checkpoint_keeps_its_teachers(teachers: TeacherConfig, tmp_path: Path) -> None:
    original = loud_model(CONFIG, teachers=teachers)
    model, _ = load_checkpoint(make_run(tmp_path / "run", original))
    assert model.teachers.config == teachers
    clips = torch.from_numpy(clips_of(CONFIG, 1))
    with torch.inference_mode():
        found, wanted = model.train()(clips), original.train()(clips)
    assert set(found) == set(wanted)
    for output, scores in wanted.items():
        assert torch.equal(found[output], scores), output


def test_saving_again_drops_the_evaluation_of_the_old_weights(run: Path) -> None:
    save_checkpoint(run, loud_model(CONFIG), places_csv=run / "places.csv", facts=FACTS)
    assert sorted(entry.name for entry in run.iterdir()) == [
        "checkpoint.json",
        "model.safetensors",
        "places.csv",
    ]


def test_a_file_name_is_not_taken_for_a_class_tree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a Path"):
        save_checkpoint(tmp_path, loud_model(CONFIG), places_csv="places.csv", facts={})
    assert not any(tmp_path.iterdir())


def _rewrite(**changes: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / "checkpoint.json"
        record = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        path.write_text(json.dumps(record), encoding="utf-8")

    return change


def _flip_last_byte(run: Path) -> None:
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "checkpoint.json").unlink(), "it holds no checkpoint.json"),
        (lambda run: (run / "checkpoint.json").write_text("{"), "checkpoint.json is damaged"),
        (lambda run: (run / "checkpoint.json").write_bytes(b"\xff"), "checkpoint.json is damaged"),
        (_rewrite(schema=99), "its schema is 99"),
        (_rewrite(kind="oracle"), "the kind 'oracle', which this geotag does not know"),
        (_rewrite(classes={"city": 3}), "do not describe a model"),
        (_rewrite(config={"width": 25}), "do not describe a model"),
        (_rewrite(config={**asdict(CONFIG), "depth": 3}), "do not describe a model"),
        (_rewrite(teachers={"scene": "attention"}), "do not describe a model"),
        (_rewrite(teachers={"scene": "film"}), "do not describe a model"),
        (_rewrite(teachers={**PLAIN_RECORD, "attention_input": "odds"}), "'odds': it is one of"),
        (_rewrite(teachers={**PLAIN_RECORD, "text_width": -1}), "text_width -1"),
        (_rewrite(teachers=None), "do not describe a model"),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors cannot be read"),
        (_flip_last_byte, "is not the file that checkpoint.json describes"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    run: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(run)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(run)
    advice = ("train.fit", "Update geotag", "pip install")
    assert any(words in str(caught.value) for words in advice)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_checkpoint(tmp_path / "nowhere")
