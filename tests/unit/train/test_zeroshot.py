"""Models from published networks: against transformers' own zero-shot answers."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel, SiglipModel

from engines.base import BundleError
from engines.bundle import LEVELS, OUTPUTS, read_bundle
from engines.openvino_cpu import OpenvinoEngine
from geotag.places.hierarchy import build_hierarchy
from geotag.places.lists import PlaceList, make_places
from tests.checkpoints import write_clip, write_siglip
from train.errors import ExportError
from train.models.heads import HEADS
from train.onnx_graph import write_graph
from train.zeroshot.checkpoint import embed_texts, read_checkpoint
from train.zeroshot.export import card_licence, embed_heads, export_zero_shot
from train.zeroshot.graph import build_zero_shot_graph
from train.zeroshot.prompts import Prompts, mean_embeddings, place_names, read_prompts

ROWS = (
    ("Birmingham", "Alabama", "United States", "North America"),
    ("Birmingham", "England", "United Kingdom", "Europe"),
    ("München", "Bavaria", "Germany", "Europe"),
    ("São Paulo", "São Paulo", "Brazil", "South America"),
    ("Singapore", "Singapore", "Singapore", "Asia"),
)


def places(rows: tuple[tuple[str, ...], ...] = ROWS) -> PlaceList:
    return PlaceList(
        source="some.csv",
        rows=tuple(
            dict(zip(LEVELS, names, strict=True))
            | {f"{level}_code": "" for level in ("state", "country", "continent")}
            | {"lat_deg": "1.0", "lon_deg": "2.0", "geonameid": ""}
            for names in rows
        ),
        findings=(),
    )


def write(folder: Path, family: str, **options: int | str) -> Path:
    return (write_clip if family == "clip" else write_siglip)(folder, **options)  # type: ignore[operator]


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def clips(frames: int, image_px: int, count: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, frames, image_px, image_px, 3), dtype=np.uint8)


def own_logits(folder: Path, family: str, pictures: np.ndarray, texts: list[str]) -> np.ndarray:
    """`logits_per_image` of transformers, with nothing of ours between.  [F, K]."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    model = (CLIPModel if family == "clip" else SiglipModel).from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = {"padding": True} if family == "clip" else {"padding": "max_length"}
    if family == "siglip":
        texts, padding["max_length"] = [text.lower() for text in texts], 16
    words = tokenizer(texts, return_tensors="pt", truncation=True, **padding)
    with torch.inference_mode():
        answer = model.eval()(pixel_values=((pixels - mean) / std).float(), **words)
    return np.asarray(answer.logits_per_image.numpy())


@pytest.mark.parametrize("resizes", ["crop", "squash"])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("clip", {"image_px": 32, "patch_px": 16}),
        ("clip", {"image_px": 48, "patch_px": 12, "activation": "gelu"}),
        ("clip", {"image_px": 50, "patch_px": 14}),
        ("siglip", {"image_px": 32, "patch_px": 16}),
        ("siglip", {"image_px": 48, "patch_px": 16}),
        ("siglip", {"image_px": 50, "patch_px": 14}),
    ],
)
def test_per_frame_logits_are_those_of_transformers(
    tmp_path: Path, family: str, options: dict[str, int | str], resizes: str
) -> None:
    folder = write(tmp_path / "net", family, **options)
    size = int(options["image_px"])
    edit_json(
        folder / "preprocessor_config.json",
        do_center_crop=resizes == "crop",
        size={"shortest_edge": size} if resizes == "crop" else {"height": size, "width": size},
        crop_size={"height": size, "width": size},
    )
    checkpoint = read_checkpoint(folder)
    assert checkpoint.picture.resize == resizes
    hierarchy = build_hierarchy(places().rows, source="test")
    one = Prompts(
        templates=dict.fromkeys(HEADS, ("a photo i took in {place}.",)),
        scenes=read_prompts().scenes,
    )
    texts = embed_heads(checkpoint, hierarchy, one)
    graph = build_zero_shot_graph(checkpoint, texts, frames=3)
    write_graph(graph, tmp_path / "model.onnx", data="model.onnx.data")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output.append(onnx.ValueInfoProto(name="city.frames"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = clips(3, size)
    found, answers, feature = session.run(["city.frames", "city", "feature"], {"clip": given})
    names = [
        "Birmingham, Alabama, United States",
        "Birmingham, England, United Kingdom",
        "München, Bavaria, Germany",
        "São Paulo, Brazil",
        "Singapore",
    ]
    wanted = own_logits(
        folder,
        family,
        given.reshape(-1, size, size, 3),
        [f"a photo i took in {name}." for name in names],
    )
    assert wanted.std() > 0.1, "a test of networks that answer the same to everything"
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
    # The clip's answer: the mean of the frames' log-probabilities.
    shifted = wanted - wanted.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answers, logs.reshape(2, 3, -1).mean(axis=1), atol=1e-4, rtol=0)
    assert feature.shape[0] == 2


def test_a_mean_embedding_is_the_mean_direction_of_its_texts(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_clip(tmp_path))
    found = mean_embeddings(
        ["Europe", "Asia", "Europe"],
        ("in {place}", "a street in {place}"),
        lambda texts: embed_texts(checkpoint, texts),
    )
    one, two = embed_texts(checkpoint, ["in Europe", "a street in Europe"])
    wanted = (one + two) / np.linalg.norm(one + two)
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_names_say_what_they_lie_in() -> None:
    hierarchy = build_hierarchy(places().rows, source="test")
    assert place_names(hierarchy, "city")[:2] == [
        "Birmingham, Alabama, United States",
        "Birmingham, England, United Kingdom",
    ]
    assert place_names(hierarchy, "city")[4] == "Singapore"
    assert place_names(hierarchy, "state")[2] == "Bavaria, Germany"
    assert place_names(hierarchy, "country")[0] == "United States"
    assert place_names(hierarchy, "continent")[:2] == ["North America", "Europe"]


def test_large_lists_have_fewer_texts() -> None:
    prompts = read_prompts()
    assert prompts.affordable(166) == prompts
    few = prompts.affordable(20_000).templates
    assert few == {head: texts[:1] for head, texts in prompts.templates.items()}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_clip(tmp_path_factory.mktemp("hub") / "some-clip")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    return folder


@pytest.fixture(scope="module")
def bundle(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "mine"
    report = export_zero_shot(network, places(), out)
    assert "zero-shot over 5 cities" in str(report)
    assert max(value for value in report.parity.values() if value is not None) < 1e-4
    return out


def test_a_bundle_says_what_it_is_made_of(bundle: Path, network: Path) -> None:
    manifest = read_bundle(bundle).manifest
    facts = manifest.zero_shot
    assert facts is not None
    assert (facts["family"], facts["source"]) == ("clip", "some-clip")
    assert set(facts["weights"]) == {"model.safetensors"}
    assert facts["prompts"]["city"] == list(read_prompts().templates["city"])
    assert facts["places"]["source"] == "some.csv"
    assert manifest.licence == "cc-by-nc-4.0" == card_licence(network)
    assert (manifest.input.frames, manifest.input.resize) == (6, "crop")
    text = (bundle / "bundle.json").read_text() + (bundle / "MODEL_CARD.md").read_text()
    assert str(network.parent) not in text
    assert "cc-by-nc-4.0" in (bundle / "MODEL_CARD.md").read_text()


def test_the_same_input_gives_the_same_bundle(bundle: Path, network: Path, tmp_path: Path) -> None:
    export_zero_shot(network, places(), tmp_path / "mine")
    for path in bundle.iterdir():
        assert path.read_bytes() == (tmp_path / "mine" / path.name).read_bytes(), path.name


def test_frames_and_resizing_can_be_chosen(network: Path, tmp_path: Path) -> None:
    export_zero_shot(network, places(), tmp_path / "a", frames=1, resize="squash")
    spec = read_bundle(tmp_path / "a").manifest.input
    assert (spec.frames, spec.resize) == (1, "squash")
    with pytest.raises(ExportError, match="at least 1"):
        export_zero_shot(network, places(), tmp_path / "b", frames=0)


def test_the_166_classes_keep_their_numbering(network: Path, tmp_path: Path) -> None:
    export_zero_shot(network, make_places("166"), tmp_path / "a")
    manifest = read_bundle(tmp_path / "a").manifest
    assert [manifest.outputs[level] for level in LEVELS] == [166, 157, 91, 6]
    assert set(manifest.outputs) == set(OUTPUTS)


def test_a_list_that_is_no_tree_is_refused(network: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="listed twice"):
        export_zero_shot(network, places((ROWS[0], ROWS[0])), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def _pickle_only(folder: Path) -> None:
    model = CLIPModel.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_weights_as_a_pickle_of_tensors_are_read(network: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(network, tmp_path / "net"))
    wanted = embed_texts(read_checkpoint(folder), ["a road"])
    _pickle_only(folder)
    checkpoint = read_checkpoint(folder)
    assert set(checkpoint.weights) == {"pytorch_model.bin"}
    np.testing.assert_allclose(embed_texts(checkpoint, ["a road"]), wanted, atol=1e-6)


class Bomb:
    """Runs when it is unpickled by a reader that allows that."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("bomb-went-off"),))  # type: ignore[return-value]


def _bomb(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Bomb()}, folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 99
    (folder / "config.json").write_text(json.dumps(config))


def _deeper_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def _blind_tokenizer(folder: Path) -> None:
    """One that takes every text for the same."""
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def _half_of_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: edit_json(folder / "config.json", model_type="bert"), "'bert'"),
        (lambda folder: edit_json(folder / "config.json", model_type="siglip2"), "NaFlex"),
        (lambda folder: edit_json(folder / "config.json", model_type=["clip"]), "model_type"),
        (lambda folder: (folder / "model.safetensors").unlink(), "there are no weights"),
        (_cut, "missing or damaged"),
        (_other_config, "config.json|shape|size"),
        (_deeper_config, "lack"),
        (_half_of_shards, "1 are missing"),
        (_bomb, "reading the network"),
        (lambda folder: (folder / "vocab.json").unlink(), "its tokenizer is missing"),
        (_blind_tokenizer, "one embedding"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "processor_config.json"),
        (
            lambda folder: edit_json(folder / "preprocessor_config.json", size={"height": 7}),
            "the network's own size",
        ),
        (
            lambda folder: edit_json(folder / "preprocessor_config.json", image_std=[0, 1, 1]),
            "image_std",
        ),
        (
            lambda folder: edit_json(folder / "preprocessor_config.json", image_mean="dark"),
            "image_mean",
        ),
    ],
)
def test_a_folder_that_is_no_such_network_is_refused_and_nothing_is_left(
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: object,
    words: str,
) -> None:
    folder = Path(shutil.copytree(network, tmp_path / "net"))
    damage(folder)  # type: ignore[operator]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(ExportError, match=words):
        export_zero_shot(folder, places(), tmp_path / "work" / "out")
    assert list((tmp_path / "work").iterdir()) == []


def test_an_unknown_activation_is_refused(network: Path) -> None:
    checkpoint = read_checkpoint(network)
    checkpoint.model.config.vision_config.hidden_act = "relu6"
    texts = {head: np.ones((2, 24), np.float32) for head in HEADS}
    with pytest.raises(ExportError, match="relu6"):
        build_zero_shot_graph(replace(checkpoint), texts, frames=1)


def test_places_of_the_bundle_are_the_list(bundle: Path) -> None:
    with (bundle / "places.csv").open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row[level] for level in LEVELS) for row in csv.DictReader(stream)]
    assert tuple(rows) == ROWS


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says it there")
def test_the_engine_keeps_no_second_copy_of_the_weights(bundle: Path) -> None:
    engine = OpenvinoEngine(read_bundle(bundle), threads=1)
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    at = next(k for k, line in enumerate(lines) if line.endswith(str(bundle / "model.onnx.data")))
    resident = next(line for line in lines[at:] if line.startswith("Rss:"))
    assert resident.split()[1] == "0"
    # It may still be asked: what was given back is read again where it is needed.
    first, second = (engine.infer(clips(6, 32, count=1)) for _ in range(2))
    for output, scores in first.items():
        np.testing.assert_array_equal(scores, second[output])
    engine.close()
