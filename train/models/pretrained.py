"""VideoMAE's published weights for our encoder: every tensor is used, or named as left out.

Two layouts are read: a folder of transformers (from the hub or by hand), and a `.pth` file of the
original repository. Both are turned into the names of `train.models.videomae`, strictly.

The number of attention heads changes no shape, so that a wrong one loads without a word and gives
other features. Published VideoMAE has heads 64 wide (80 in the largest size), whereas the
conversion to transformers wrote 16 for width 384: `num_heads` decides, and the report says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from train.errors import WeightsError
from train.model_card import NOT_STATED, card_licence
from train.models.published import (
    CLASSIFIER,
    DECODER,
    Layout,
    WeightsReport,
    left_out,
    misfits,
    patch_matrix,
    read_config,
)
from train.models.videomae import VideoMAEConfig, VideoMAEEncoder, our_name, sinusoids
from train.networks import find_network
from train.weights import read_file, read_folder, some, to_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

HeadChoice = Literal["corrected", "config"] | int
"""corrected: what VideoMAE of this width was trained with; config: what `config.json` says; or a
number."""
TRAINED_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads by width, of the original repository's models (Tong et al., NeurIPS 2022; tiny to huge)."""
ORIGINAL_EPS = 1e-6
"""Of the original repository's LayerNorms; its files do not say so themselves."""
POSITION_TOLERANCE = 1e-5
"""Between a table of positions in a file and the formula: fixed ones agree to 1e-6 in float32."""

_FINAL_NORM = "final norm of pretraining, which fine-tuning drops"
_LEFT_OUT = {
    "decoder.": DECODER,
    "encoder_to_decoder.": DECODER,
    "mask_token": DECODER,
    "classifier.": CLASSIFIER,
    "head.": CLASSIFIER,
    "fc_norm.": "norm of the pooled feature, a part of the classifier",
    "layernorm.": _FINAL_NORM,
    "norm.": _FINAL_NORM,
}
_BLOCK_PART = r"(blocks\.\d+\.)(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_POSITIONS = ("embeddings.position_embeddings", "pos_embed")


def load_pretrained(
    source: str | Path,
    *,
    num_heads: HeadChoice = "corrected",
    expected: VideoMAEConfig | None = None,
    revision: str | None = None,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[VideoMAEConfig, VideoMAEEncoder, WeightsReport]:
    """Read published weights into an encoder.

    Args:
        source: a folder in the hub's layout, a hub id, the name of a known model (`videomae-s`),
            or a `.pth` file of the original repository.
        num_heads: see `HeadChoice`; it is the only thing that the weights cannot tell.
        expected: the encoder that is wanted; another shape is refused. Its `heads` and `norm_eps`
            are not compared: they are the weights' own. A `.pth` file does not say for how many
            frames and which size of picture it is: taken from here, or 16 of 224 px.
        revision: commit, branch or tag at the hub.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Returns:
        The encoder's shape; the encoder, on the CPU in float32; and what was read.

    Raises:
        WeightsError: no such source, other weights than VideoMAE's, tensors missing, unknown or of
            another shape, or a number of heads that cannot be.
        ConfigError, OutputError: it cannot be fetched; the text says what to do.
    """
    path = Path(source).expanduser()
    layout: Layout
    if path.is_file():
        name, commit, weights, layout = path.name, None, read_file(path), "original"
        licence = NOT_STATED
        shape, said = _original_shape(weights.tensors, expected or VideoMAEConfig(), name), None
    else:
        fetched = find_network(
            source, with_tokenizer=False, revision=revision, is_accepted=is_accepted, tell=tell
        )
        name = fetched.folder.resolve().name if path.is_dir() else str(source)
        commit, weights, layout = fetched.revision, read_folder(fetched.folder), "transformers"
        licence = card_licence(fetched.folder)
        shape, said = _transformers_shape(fetched.folder, name)
    heads, notes = _choose_heads(shape.width, num_heads, said, name)
    config = replace(shape, heads=heads)
    if expected is not None:
        _compare(config, expected, name)
    parts = _sort(weights.tensors, layout, config, name)
    if any(reason == _FINAL_NORM for reason in parts.left_out.values()):
        notes.append("pretrained and not fine-tuned: the final norm of pretraining is left out")
    report = WeightsReport(
        source=name,
        revision=commit,
        sha256=weights.sha256,
        layout=layout,
        used=tuple(parts.used),
        left_out=parts.left_out,
        heads=heads,
        config_heads=said,
        notes=tuple(notes),
        licence=licence,
    )
    return config, _build(config, parts, name), report


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """The tensors of a file, sorted."""

    used: list[str]
    state: dict[str, Tensor]
    """The same in our names."""
    left_out: dict[str, str]


def _transformers_shape(folder: Path, source: str) -> tuple[VideoMAEConfig, int]:
    """What `config.json` says: the shape with one head, and the number of heads."""
    said = read_config(folder, source)
    kind = said["model_type"]
    must = {"model_type": "videomae", "hidden_act": "gelu", "qv_bias": True, "num_channels": 3}
    other = {key: said.get(key, value) for key, value in must.items()}
    if other != must:
        raise WeightsError(
            f"reading the encoder {source}: its model_type is {kind!r}, and config.json has "
            f"{other}; this encoder is VideoMAE with {must}. Take a checkpoint of that kind, such "
            "as MCG-NJU/videomae-small-finetuned-kinetics."
        )
    try:
        shape = VideoMAEConfig(
            frames=int(said.get("num_frames", 16)),
            tubelet_frames=int(said.get("tubelet_size", 2)),
            image_px=int(said.get("image_size", 224)),
            patch_px=int(said.get("patch_size", 16)),
            width=int(said["hidden_size"]),
            depth=int(said["num_hidden_layers"]),
            heads=1,
            mlp_width=int(said["intermediate_size"]),
            norm_eps=float(said.get("layer_norm_eps", 1e-12)),
        )
        return shape, int(said["num_attention_heads"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as exc:
        raise WeightsError(
            f"reading the encoder {source}: config.json describes no VideoMAE ({exc!r}). Needed "
            "are hidden_size, num_hidden_layers, num_attention_heads and intermediate_size, whole "
            "numbers above 0, and one size for height and width."
        ) from exc


def _original_shape(
    tensors: Mapping[str, Tensor], usual: VideoMAEConfig, source: str
) -> VideoMAEConfig:
    """The shape that a `.pth` file's tensors have, with one head.

    Fixed positions leave no tensor, so that frames and picture size are those of `usual`.
    """
    ours = {_stem(name, "original"): value for name, value in tensors.items()}
    kernel, layers = ours.get("patch_embed.proj.weight"), ours.get("blocks.0.mlp.fc1.weight")
    is_square = kernel is not None and kernel.ndim == 5 and kernel.shape[3] == kernel.shape[4]
    if kernel is None or layers is None or not is_square or layers.ndim != 2:
        advice = (
            "It has transformers' names: give the folder with its config.json"
            if any("patch_embeddings.projection" in name for name in tensors)
            else "Take a checkpoint of VideoMAE's own repository"
        )
        raise WeightsError(
            f"reading the encoder {source}: there is no patch_embed.proj.weight [D, 3, t, p, p] "
            f"with blocks.0.mlp.fc1.weight among its {len(tensors)} tensors. {advice}."
        )
    numbers = {int(found[1]) for name in ours if (found := re.match(r"blocks\.(\d+)\.", name))}
    try:
        return VideoMAEConfig(
            frames=usual.frames,
            tubelet_frames=int(kernel.shape[2]),
            image_px=usual.image_px,
            patch_px=int(kernel.shape[3]),
            width=int(kernel.shape[0]),
            depth=max(numbers) + 1,
            heads=1,
            mlp_width=int(layers.shape[0]),
            norm_eps=ORIGINAL_EPS,
        )
    except (ValueError, ZeroDivisionError) as exc:
        raise WeightsError(f"reading the encoder {source}: {exc}") from exc


def _choose_heads(
    width: int, choice: HeadChoice, said: int | None, source: str
) -> tuple[int, list[str]]:
    """How many heads, and what a person should know about it."""
    trained = TRAINED_HEADS.get(width)
    heads = (
        {"corrected": trained or said, "config": said}[choice]
        if isinstance(choice, str)
        else (choice)
    )
    if heads is None:
        raise WeightsError(
            f"reading the encoder {source} with num_heads={choice!r}: the file does not say how "
            f"many heads a width of {width} has. Give the number, or 'corrected' for the widths "
            f"{', '.join(map(str, TRAINED_HEADS))}."
        )
    if heads < 1 or width % heads:
        raise WeightsError(
            f"reading the encoder {source} with {heads} heads (num_heads={choice!r}): its width "
            f"{width} must be a multiple of them. Give num_heads, such as {trained or 1}."
        )
    notes = []
    if said is not None and said != heads:
        notes.append(f"its config.json says {said} heads; read with {heads} (num_heads={choice!r})")
    if trained is not None and heads != trained:
        notes.append(
            f"VideoMAE of width {width} was trained with {trained} heads; with {heads} its "
            "features are other ones"
        )
    return heads, notes


def _compare(config: VideoMAEConfig, expected: VideoMAEConfig, source: str) -> None:
    differences = [
        f"{field.name} {getattr(config, field.name)} (wanted {getattr(expected, field.name)})"
        for field in fields(config)
        if field.name not in ("heads", "norm_eps")
        and getattr(config, field.name) != getattr(expected, field.name)
    ]
    if differences:
        raise WeightsError(
            f"reading the encoder {source}: it has another shape: {', '.join(differences)}. Take "
            "weights of the wanted size, or train at the size of these."
        )


def _sort(
    tensors: Mapping[str, Tensor], layout: Layout, config: VideoMAEConfig, source: str
) -> _Parts:
    """Name the place of every tensor: in the encoder, or outside of it and why."""
    parts = _Parts(used=[], state={}, left_out={})
    unknown, rename = [], _from_transformers if layout == "transformers" else _from_original
    for name, value in tensors.items():
        stem = _stem(name, layout)
        outside = left_out(stem, _LEFT_OUT)
        if stem in _POSITIONS:
            _check_positions(value, config, name, source)
            outside = "positions: the same as the formula gives"
        if outside is not None:
            parts.left_out[name] = outside
            continue
        ours = rename(stem, value)
        if not ours or ours.keys() & parts.state.keys():
            unknown.append(name)
            continue
        parts.used.append(name)
        parts.state.update(ours)
    if unknown:
        raise WeightsError(
            f"reading the encoder {source}: {some(unknown)} unknown, or there twice; nothing is "
            "left out silently. Is this VideoMAE, and not a network built on it?"
        )
    return parts


def _stem(name: str, layout: Layout) -> str:
    """A tensor's name without what wraps the encoder."""
    wraps = ("videomae.",) if layout == "transformers" else ("module.", "backbone.", "encoder.")
    for wrap in wraps:
        name = name.removeprefix(wrap)
    return name


def _from_transformers(stem: str, value: Tensor) -> dict[str, Tensor]:
    if not stem.startswith(("embeddings.patch_embeddings.projection.", "encoder.layer.")):
        return {}
    return {our_name(stem): patch_matrix(value) if value.ndim == 5 else value}


def _from_original(stem: str, value: Tensor) -> dict[str, Tensor]:
    found = re.fullmatch(r"(blocks\.\d+\.)attn\.(qkv\.weight|q_bias|v_bias)", stem)
    if found and found[2] != "qkv.weight":
        return {f"{found[1]}{'query' if found[2] == 'q_bias' else 'value'}.bias": value}
    if found:  # rows: all queries, then all keys, then all values
        if value.ndim != 2 or len(value) % 3:
            return {}
        names = (f"{found[1]}{part}.weight" for part in ("query", "key", "value"))
        return dict(zip(names, value.chunk(3), strict=True))
    if stem.startswith("patch_embed.proj."):
        ours = stem.replace("patch_embed.proj.", "patch.")
        return {ours: patch_matrix(value) if value.ndim == 5 else value}
    found = re.fullmatch(_BLOCK_PART, stem)
    return {f"{found[1]}{found[2].split('.')[-1]}.{found[3]}": value} if found else {}


def _check_positions(table: Tensor, config: VideoMAEConfig, name: str, source: str) -> None:
    wanted = torch.from_numpy(sinusoids(config.tokens, config.width))
    if table.shape != (1, *wanted.shape):
        raise WeightsError(
            f"reading the encoder {source}: {name} has the shape {list(table.shape)}; "
            f"{config.frames} frames of {config.image_px} px have {list(wanted.shape)}. It is for "
            "clips of another length or size."
        )
    if not torch.allclose(table[0].float(), wanted, rtol=0, atol=POSITION_TOLERANCE):
        raise WeightsError(
            f"reading the encoder {source}: {name} is not the fixed sinusoid; learned positions "
            "have no place in this encoder. Take weights of VideoMAE as published."
        )


def _build(config: VideoMAEConfig, parts: _Parts, source: str) -> VideoMAEEncoder:
    with torch.device("meta"):  # no time for random weights: every one is replaced
        encoder = VideoMAEEncoder(config)
    for what, names in misfits(parts.state, encoder).items():
        if names:
            raise WeightsError(
                f"reading the encoder {source}: {some(names)} {what} for {config}. The file is not "
                "whole, or its configuration is another model's."
            )
    encoder.load_state_dict(to_float32(parts.state, source=source), strict=True, assign=True)
    return encoder.eval()
