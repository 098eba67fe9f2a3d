from __future__ import annotations

import argparse
import json
import os
import pickle
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from geotag.errors import ConfigError
from geotag.models import downloads_folder
from tests.hub import COMMIT, Hub, running
from tests.tolerances import FP32_TOKEN
from train.errors import WeightsError
from train.models.pretrained import load_pretrained
from train.models.videomae import SIZES, VideoMAEConfig

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

ODD = VideoMAEConfig(
    frames=6, tubelet_frames=3, image_px=40, patch_px=8, width=36, depth=3, heads=3, mlp_width=50
)
CLASSES = {
    "model": transformers.VideoMAEModel,
    "classifier": transformers.VideoMAEForVideoClassification,
    "pretraining": transformers.VideoMAEForPreTraining,
}
HEAD = {"classifier.bias", "classifier.weight", "fc_norm.bias", "fc_norm.weight"}


def reference(
    config: VideoMAEConfig, kind: str = "classifier", *, heads: int | None = None
) -> torch.nn.Module:
    """A network of transformers with random weights and biases."""
    torch.manual_seed(0)
    shape = transformers.VideoMAEConfig(
        image_size=config.image_px,
        patch_size=config.patch_px,
        num_frames=config.frames,
        tubelet_size=config.tubelet_frames,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=heads or config.heads,
        intermediate_size=config.mlp_width,
        layer_norm_eps=config.norm_eps,
        use_mean_pooling=kind != "pretraining",
        decoder_hidden_size=24,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=30,
    )
    model = CLASSES[kind](shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def named(state: dict[str, Tensor], naming: str) -> dict[str, Tensor]:
    """A state dict under the older or the newer names of the biases."""
    pairs = (("query.bias", "q_bias"), ("value.bias", "v_bias"))
    for new, old in pairs:
        one, other = (new, old) if naming == "older" else (old, new)
        state = {name.replace(f"attention.{one}", f"attention.{other}"): state[name]
                 for name in state}  # fmt: skip
    return {name: value.clone() for name, value in state.items()}


def write_folder(
    folder: Path,
    model: torch.nn.Module,
    *,
    naming: str = "older",
    kind: str = "safetensors",
    config: dict[str, object] | None = None,
    state: dict[str, Tensor] | None = None,
) -> Path:
    """The files that the hub has of such a network."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {**model.config.to_dict(), **(config or {})}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    tensors = named(state or model.state_dict(), naming)
    if kind == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def clip(config: VideoMAEConfig) -> Tensor:
    shape = (2 if config.width < 100 else 1, config.frames, 3, config.image_px, config.image_px)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_same_features(encoder: torch.nn.Module, model: torch.nn.Module) -> None:
    pixels = clip(encoder.config)
    base = getattr(model, "videomae", model)
    with torch.inference_mode():
        found, wanted = encoder(pixels), base(pixels).last_hidden_state
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


PARTS = {
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "intermediate.dense.weight": "mlp.fc1.weight",
    "intermediate.dense.bias": "mlp.fc1.bias",
    "output.dense.weight": "mlp.fc2.weight",
    "output.dense.bias": "mlp.fc2.bias",
    "layernorm_before.weight": "norm1.weight",
    "layernorm_before.bias": "norm1.bias",
    "layernorm_after.weight": "norm2.weight",
    "layernorm_after.bias": "norm2.bias",
}
"""Names inside a block: those of transformers, and those of VideoMAE's own repository."""


def original(model: torch.nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    """The layout of VideoMAE's own repository: queries, keys and values in one matrix."""
    state = {
        name.removeprefix("videomae."): value
        for name, value in named(model.state_dict(), "newer").items()
    }
    written: dict[str, Tensor] = {}
    for end in ("weight", "bias"):
        theirs = f"embeddings.patch_embeddings.projection.{end}"
        written[f"{prefix}patch_embed.proj.{end}"] = state.pop(theirs)
    for block in range(model.config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{block}.", f"{prefix}blocks.{block}."
        for name, its in PARTS.items():
            written[ours + its] = state.pop(theirs + name)
        three = [
            state.pop(f"{theirs}attention.attention.{part}.weight")
            for part in ("query", "key", "value")
        ]
        written[f"{ours}attn.qkv.weight"] = torch.cat(three)
    for name, value in state.items():  # heads and the decoder
        written[name.replace("classifier", "head")] = value
    return written


@pytest.mark.parametrize("naming", ["older", "newer"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_gives_the_features_of_transformers(
    tmp_path: Path, naming: str, kind: str
) -> None:
    model = reference(ODD)
    folder = write_folder(tmp_path / "net", model, naming=naming, kind=kind)
    config, encoder, report = load_pretrained(folder)
    assert config == ODD
    assert_same_features(encoder, model)
    assert report.left_out.keys() == HEAD
    assert len(report.used) + len(report.left_out) == len(model.state_dict())
    assert (report.source, report.layout, report.heads) == ("net", "transformers", 3)
    assert report.notes == ()
    assert encoder.get_parameter("blocks.1.query.bias").requires_grad


def test_what_transformers_itself_saves_is_read(tmp_path: Path) -> None:
    model = reference(ODD, "model")
    model.save_pretrained(tmp_path)
    _, encoder, report = load_pretrained(tmp_path)
    assert_same_features(encoder, model)
    assert report.left_out == {}


def test_weights_in_parts_are_read_as_one(tmp_path: Path) -> None:
    model = reference(ODD)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    _, encoder, report = load_pretrained(tmp_path)
    assert_same_features(encoder, model)
    assert len(report.sha256) > 1
    sorted(tmp_path.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(WeightsError, match=r"missing beside it are model-00001-of"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("prefix", ["", "encoder."])
@pytest.mark.parametrize("entry", ["model", "module", None])
def test_a_file_of_the_original_repository_gives_the_same_features(
    tmp_path: Path, prefix: str, entry: str | None
) -> None:
    # The original's LayerNorms add 1e-6.
    config = VideoMAEConfig(
        image_px=32, frames=4, width=384, depth=2, heads=6, mlp_width=96, norm_eps=1e-6
    )
    model = reference(config, "pretraining" if prefix else "classifier")
    if prefix:
        model.videomae.layernorm = None  # compared without the norm that is left out
        state = {**original(model, prefix=prefix), f"{prefix}norm.weight": torch.ones(384)}
    else:
        state = original(model)
    arguments = argparse.Namespace(epochs=800)
    torch.save({entry: state, "args": arguments} if entry else state, tmp_path / "checkpoint.pth")
    found, encoder, report = load_pretrained(tmp_path / "checkpoint.pth", expected=config)
    assert found == config
    assert_same_features(encoder, model)
    assert (report.layout, report.config_heads) == ("original", None)
    assert len(report.used) + len(report.left_out) == len(state)
    if prefix:
        assert "mask_token" in report.left_out
        assert "encoder.norm.weight" in report.left_out
        assert "not fine-tuned" in report.notes[0]
    else:
        assert report.left_out.keys() == {"head.bias", "head.weight", "fc_norm.bias",
                                          "fc_norm.weight"}  # fmt: skip


def test_the_small_size_with_the_wrong_heads_is_corrected_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Width 384 was trained with 6 heads; the conversion to transformers wrote 16."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    small = SIZES["small"]
    right, wrong = reference(small, "model"), reference(small, "model", heads=16)
    folder = write_folder(tmp_path / "small", wrong)
    config, encoder, report = load_pretrained(folder, expected=small)
    assert config == small
    assert_same_features(encoder, right)
    assert (report.heads, report.config_heads) == (6, 16)
    assert "says 16 heads; read with 6" in report.notes[0]

    config, encoder, report = load_pretrained(folder, num_heads="config")
    assert config.heads == 16
    assert_same_features(encoder, wrong)
    assert "trained with 6 heads" in report.notes[0]


def test_a_number_of_heads_can_be_given(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", reference(ODD))
    _, encoder, report = load_pretrained(folder, num_heads=6)
    assert_same_features(encoder, reference(ODD, heads=6))
    assert report.notes == ("its config.json says 3 heads; read with 6 (num_heads=6)",)
    with pytest.raises(WeightsError, match="width 36 must be a multiple"):
        load_pretrained(folder, num_heads=5)


def test_a_pth_of_an_unknown_width_asks_for_its_heads(tmp_path: Path) -> None:
    torch.save(original(reference(ODD)), tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="does not say how many heads a width of 36 has"):
        load_pretrained(tmp_path / "odd.pth", expected=ODD)
    _, encoder, _ = load_pretrained(tmp_path / "odd.pth", expected=ODD, num_heads=3)
    assert encoder.config.heads == 3


def test_a_pretrained_encoder_names_its_decoder_as_left_out(tmp_path: Path) -> None:
    model = reference(ODD, "pretraining")
    _, encoder, report = load_pretrained(write_folder(tmp_path / "net", model))
    model.videomae.layernorm = None
    assert_same_features(encoder, model)
    reasons = {name.split(".")[0]: why for name, why in report.left_out.items()}
    assert set(reasons) == {"decoder", "encoder_to_decoder", "mask_token", "videomae"}
    assert "final norm" in report.left_out["videomae.layernorm.weight"]


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (SIZES["small"], "width 36 (wanted 384), depth 3 (wanted 12)"),
        (replace(ODD, frames=9), "another shape: frames 6 (wanted 9)."),
        (replace(ODD, image_px=64), "another shape: image_px 40 (wanted 64)."),
    ],
)
def test_another_shape_than_wanted_is_refused(
    tmp_path: Path, expected: VideoMAEConfig, says: str
) -> None:
    folder = write_folder(tmp_path / "net", reference(ODD))
    with pytest.raises(WeightsError, match=re.escape(says)):
        load_pretrained(folder, expected=expected)


def broken(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    name = "videomae.encoder.layer.2.output.dense.weight"
    if how == "missing":
        del state[name]
    elif how == "unknown":
        state["videomae.encoder.layer.2.adapter.weight"] = torch.ones(3)
    elif how == "shape":
        state[name] = state[name].T.contiguous()
    elif how == "nan":
        state[name][3, 4] = float("nan")
    elif how == "integers":
        state[name] = state[name].to(torch.int32)
    elif how == "learned positions":
        state["videomae.embeddings.position_embeddings"] = torch.zeros(1, 50, 36)
    elif how == "other positions":
        state["videomae.embeddings.position_embeddings"] = torch.zeros(1, 75, 36)
    elif how == "twice":
        inner = "videomae.encoder.layer.1.attention.attention."
        state[f"{inner}query.bias"] = state[f"{inner}q_bias"].clone()
    return state


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", r"1 tensors \(blocks\.2\.fc2\.weight\) are missing"),
        ("unknown", r"\(blocks\.2\.adapter\.weight\) are too many"),
        ("shape", r"blocks\.2\.fc2\.weight \[50, 36\] in place of \[36, 50\]"),
        ("nan", r"blocks\.2\.fc2\.weight\) are not finite"),
        ("integers", r"blocks\.2\.fc2\.weight\) are not finite"),
        ("learned positions", "not the fixed sinusoid"),
        ("other positions", r"\[1, 75, 36\]; 6 frames of 40 px have \[50, 36\]"),
        ("twice", "unknown, or there twice"),
    ],
)
def test_every_tensor_has_its_place_or_the_file_is_refused(
    tmp_path: Path, how: str, says: str
) -> None:
    model = reference(ODD)
    folder = write_folder(tmp_path / "net", model)
    state = broken(named(model.state_dict(), "older"), how)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=says):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"qv_bias": False}, "qv_bias"),
        ({"hidden_size": "wide"}, "describes no VideoMAE"),
        ({"image_size": [40, 40]}, "one size for height and width"),
        ({"patch_size": 0}, "describes no VideoMAE"),
        ({"num_frames": 7}, "describes no VideoMAE"),
        ({"num_hidden_layers": 2}, "too many"),
        ({"hidden_size": 72}, "of another shape"),
    ],
)
def test_a_config_that_is_not_the_weights_is_refused(
    tmp_path: Path, config: dict[str, object], says: str
) -> None:
    folder = write_folder(tmp_path / "net", reference(ODD), config=config)
    with pytest.raises(WeightsError, match=says):
        load_pretrained(folder)


class Code:
    """Runs when it is unpickled by a reader that trusts it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {**original(reference(ODD)), "more": Code()}
    folder = write_folder(tmp_path / "net", reference(ODD), kind="bin")
    path = tmp_path / "net.pth" if place == "file" else folder / "pytorch_model.bin"
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match=r"can run code \(.*mkdir.*safetensors"):
        load_pretrained(path if place == "file" else folder)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no weights, or cut short"),
        (b"\x80\x02}q\x00.", "no dict of tensors|no weights"),
        (pickle.dumps({"model": [1, 2]}, protocol=2), "no dict of tensors|no weights|code"),
        (b"PK\x03\x04 not a zip", "no weights, or cut short"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        load_pretrained(tmp_path / "net.pth")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", reference(ODD))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cut short"):
        load_pretrained(folder)
    torch.save(original(reference(ODD)), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cut short"):
        load_pretrained(tmp_path / "net.pth")


def test_a_single_file_with_names_of_transformers_asks_for_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", reference(ODD), kind="bin")
    with pytest.raises(WeightsError, match=r"give the folder with its config\.json"):
        load_pretrained(folder / "pytorch_model.bin")


@pytest.mark.parametrize("source", ["./nowhere", "one", "a/b/c"])
def test_a_source_that_is_nothing_is_refused(source: str) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        load_pretrained(source)


@pytest.mark.parametrize(
    ("holds", "told"), [("checkpoint.json", "a run of train.fit"), ("bundle.json", "a bundle")]
)
def test_a_folder_of_ours_is_called_what_it_is(tmp_path: Path, holds: str, told: str) -> None:
    (tmp_path / holds).write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match=f"this folder is {told}"):
        load_pretrained(tmp_path)


def test_weights_in_half_precision_become_single(tmp_path: Path) -> None:
    model = reference(ODD, "model")
    half = {name: value.half() for name, value in model.state_dict().items()}
    folder = write_folder(tmp_path / "net", model, state=half)
    _, encoder, _ = load_pretrained(folder)
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}
    model.load_state_dict(half)
    assert_same_features(encoder, model)


def test_a_network_of_the_hub_is_fetched_once_and_its_licence_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder has no tokenizer; without one its folder is whole, and no network is needed."""
    from huggingface_hub import constants

    model = reference(ODD)
    folder = write_folder(tmp_path / "net", model, kind="bin")  # has no processor's file
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    licences = {"some/encoder": "cc-by-nc-4.0"}
    with running(Hub(repositories={"some/encoder": folder}, licences=licences)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(ConfigError, match="non-commercial use only"):
            load_pretrained("some/encoder")
        said: list[str] = []
        _, encoder, report = load_pretrained("some/encoder", is_accepted=True, tell=said.append)
        assert said[0].startswith("there is no folder some/encoder here")
        assert_same_features(encoder, model)
        assert (report.source, report.revision) == ("some/encoder", COMMIT)
        assert report.licence == "cc-by-nc-4.0"
        asked = len(hub.asked)
        load_pretrained("some/encoder", is_accepted=True)
        assert len(hub.asked) == asked


def test_a_known_encoder_is_asked_about_once_and_then_found_by_its_name() -> None:
    with pytest.raises(ConfigError, match="CC-BY-NC"):
        load_pretrained("videomae-s")
    folder = write_folder(downloads_folder("videomae-s"), reference(SIZES["tiny"]))
    (folder / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    for source in ("videomae-s", "MCG-NJU/videomae-small-finetuned-kinetics"):
        config, _, report = load_pretrained(source)
        assert (config, report.source) == (SIZES["tiny"], source)
