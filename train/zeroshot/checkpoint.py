"""A published image-and-text network, read from its folder: CLIP and SigLIP in their hub layout.

Nothing in such a folder is run: weights are read as safetensors, or as a pickle restricted to
tensors, and code that comes with a model is never loaded.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPModel, SiglipModel
from transformers.utils import logging

from engines.bundle import Resize, sha256_of
from train.errors import ExportError
from train.zeroshot.text import TEXT_BATCH, clip_text_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

Family = Literal["clip", "siglip"]
_MODELS: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order in which they are taken; each may be cut into several, which an index names."""
_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSpec:
    """What the image side takes: bytes become (byte * scale - mean) / std, colour by colour."""

    size_px: int
    resize: Resize
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A network with its tokenizer."""

    family: Family
    model: Any
    """A CLIPModel or SiglipModel of transformers, in float32."""
    tokenizer: Any
    picture: PictureSpec
    weights: dict[str, str]
    """SHA-256 by file name."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def logit_bias(self) -> float:
        """What is added to every logit; 0 for CLIP."""
        return float(self.model.logit_bias.detach()) if self.family == "siglip" else 0.0

    @property
    def is_lower_case(self) -> bool:
        """Whether texts are put in lower case: SigLIP and SigLIP 2 were trained on such alone."""
        return self.family == "siglip"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a network from a folder in the hub's layout.

    Raises:
        ExportError: a file is missing or damaged, the architecture is another one, weights are
            missing or of another shape, or pictures are prepared in a way that a scan cannot.
    """
    family = _family(folder)
    weights = _weight_files(folder)
    _need_tokenizer(folder)
    try:
        with _quiet():
            # Reads tensors only: of a pickle weights_only takes nothing else, and neither class
            # runs code of the folder.
            model, notes = _MODELS[family].from_pretrained(
                folder, local_files_only=True, output_loading_info=True, weights_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as exc:  # the many ways in which a damaged folder breaks a library
        raise ExportError(
            f"reading the network in {folder}: {type(exc).__name__}: {exc}. If it was downloaded, "
            "part of it may be missing or damaged: fetch it again, with its tokenizer's files."
        ) from exc
    lacking = sorted(notes["missing_keys"]) + [str(key) for key in notes["mismatched_keys"]]
    if lacking:
        raise ExportError(
            f"reading the network in {folder}: its weights lack {len(lacking)} tensors or have "
            f"them in another shape, first {lacking[0]}. The download is not whole, or config.json "
            "belongs to another model."
        )
    model = model.float().eval().requires_grad_(requires_grad=False)
    return Checkpoint(
        family=family,
        model=model,
        tokenizer=tokenizer,
        picture=_picture_spec(folder, int(model.config.vision_config.image_size)),
        weights={path.name: sha256_of(path) for path in weights},
    )


def embed_pictures(checkpoint: Checkpoint, pictures_NHWC: NDArray[np.uint8]) -> Tensor:
    """Embeddings of length 1, by the network's own code.  uint8 [N, H, W, 3] -> [N, D]."""
    spec = checkpoint.picture
    pixels = torch.from_numpy(pictures_NHWC).float() * spec.scale
    pixels = (pixels - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    with torch.inference_mode():
        found = checkpoint.model.get_image_features(pixel_values=pixels.permute(0, 3, 1, 2))
    return _unit(found)


def embed_texts(checkpoint: Checkpoint, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of texts.  -> [N, D], each of length 1.

    CLIP reads from left to right, which `train.zeroshot.text` makes use of; SigLIP was trained on
    padded texts, and gets them.
    """
    if checkpoint.is_lower_case:
        texts = [text.lower() for text in texts]
    config = checkpoint.model.config.text_config
    limits: dict[str, Any] = {"truncation": True, "max_length": int(config.max_position_embeddings)}
    if checkpoint.family == "clip":
        ids = checkpoint.tokenizer(list(texts), **limits)["input_ids"]
        if all(_ends_with_end(tokens, config) for tokens in ids):
            found = clip_text_features(checkpoint.model, ids)
            return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))
        limits["padding"] = True
    else:
        limits["padding"] = "max_length"
    rows = []
    for at in range(0, len(texts), TEXT_BATCH):
        some = list(texts[at : at + TEXT_BATCH])
        rows.append(
            _text_features(checkpoint, checkpoint.tokenizer(some, return_tensors="pt", **limits))
        )
    return np.concatenate(rows)


def _ends_with_end(tokens: Sequence[int], config: Any) -> bool:  # noqa: ANN401
    """Whether the token that CLIP reads its answer from is the last one."""
    if config.eos_token_id == 2:  # old configurations name a wrong one: it is the highest
        return max(tokens) == tokens[-1] and tokens.count(tokens[-1]) == 1
    end = config.eos_token_id
    return end in tokens and tokens.index(end) == len(tokens) - 1


def _text_features(checkpoint: Checkpoint, inputs: Any) -> NDArray[np.float32]:  # noqa: ANN401
    with torch.inference_mode():
        found = _unit(checkpoint.model.get_text_features(**inputs))
    return np.asarray(found.numpy(), dtype=np.float32)


def _unit(found: Any) -> Tensor:  # noqa: ANN401
    """The pooled output, whatever a version of transformers wraps it in, at length 1."""
    pooled: Tensor = getattr(found, "pooler_output", found)
    return pooled / pooled.norm(dim=-1, keepdim=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice to itself."""
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def _family(folder: Path) -> Family:
    config = _json(folder, "config.json")
    kind = config.get("model_type")
    if kind == "clip" or kind == "siglip":
        if "vision_config" not in config or "text_config" not in config:
            raise ExportError(
                f"reading the network in {folder}: config.json describes no image side or no text "
                "side; both are needed. Take the whole model, not one half of it."
            )
        return "clip" if kind == "clip" else "siglip"
    advice = (
        "SigLIP 2 with flexible sizes (NaFlex) is not supported; take one of fixed size, such as "
        "google/siglip2-base-patch16-224."
        if kind == "siglip2"
        else "Needed is a network for images and texts: model_type clip (CLIP, StreetCLIP, "
        "OpenCLIP in transformers' layout) or siglip (SigLIP, SigLIP 2 of fixed size)."
    )
    raise ExportError(f"reading the network in {folder}: its model_type is {kind!r}. {advice}")


def _weight_files(folder: Path) -> list[Path]:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            parts = _json(folder, f"{name}.index.json").get("weight_map", {})
            paths = [folder / str(part) for part in sorted(set(parts.values()))]
            missing = [path.name for path in paths if not path.is_file()]
            if missing or not paths:
                raise ExportError(
                    f"reading the network in {folder}: {name}.index.json names {len(paths)} files "
                    f"of weights, {len(missing)} are missing: {', '.join(missing[:3])}. The "
                    "download is not whole; fetch it again."
                )
            return paths
    raise ExportError(
        f"reading the network in {folder}: there are no weights; needed is one of "
        f"{', '.join(_WEIGHTS)}. The download is not whole, or the model is of another library."
    )


def _need_tokenizer(folder: Path) -> None:
    """Without its files transformers makes a tokenizer that takes every text for the same."""
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise ExportError(
            f"reading the network in {folder}: its tokenizer is missing. Needed is one of "
            f"{'; '.join(' and '.join(names) for names in _TOKENIZERS)}."
        )


def _picture_spec(folder: Path, image_px: int) -> PictureSpec:
    """How pictures are prepared, from preprocessor_config.json or what newer versions write."""
    if (folder / "preprocessor_config.json").is_file():
        config = _json(folder, "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        config = _json(folder, "processor_config.json").get("image_processor") or {}
    else:
        raise ExportError(
            f"reading the network in {folder}: preprocessor_config.json is missing (newer ones "
            "have processor_config.json). Needed is the whole folder as the hub has it."
        )
    try:
        crops = bool(config.get("do_center_crop", False))
        sizes = _sides(config["size"])
        cropped = _sides(config["crop_size"]) if crops else sizes
        mean = tuple(float(value) for value in config["image_mean"])
        std = tuple(float(value) for value in config["image_std"])
        scale = float(config.get("rescale_factor", 1 / 255))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ExportError(
            f"reading how {folder} prepares pictures: {exc!r} in preprocessor_config.json. Needed "
            "are size, image_mean and image_std, and crop_size where do_center_crop is set."
        ) from exc
    is_crop = crops or "shortest_edge" in (config["size"] if _is_map(config["size"]) else {})
    if {*sizes, *cropped} != {image_px}:
        raise ExportError(
            f"reading how {folder} prepares pictures: size {config['size']}, crop_size "
            f"{config.get('crop_size')}; a scan gives pictures of exactly the network's own size, "
            f"{image_px} px."
        )
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise ExportError(
            f"reading how {folder} prepares pictures: image_mean {mean}, image_std {std}; needed "
            "are three numbers each, those of image_std positive."
        )
    if not config.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    return PictureSpec(
        size_px=image_px,
        resize="crop" if is_crop else "squash",
        scale=scale if config.get("do_rescale", True) else 1.0,
        mean=mean,
        std=std,
    )


def _sides(size: Any) -> set[int]:  # noqa: ANN401
    """The lengths that a size speaks of, in whichever of its three forms."""
    return {int(value) for value in size.values()} if _is_map(size) else {int(size)}


def _is_map(size: Any) -> bool:  # noqa: ANN401
    return isinstance(size, dict)


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ExportError(
            f"reading the network in {folder}: {name} is missing. Needed is the whole folder as "
            "the hub has it: configuration, weights, tokenizer, preprocessor."
        ) from exc
    except (OSError, ValueError) as exc:
        raise ExportError(
            f"reading the network in {folder}: {name} cannot be read ({exc})."
        ) from exc
    if not isinstance(found, dict):
        raise ExportError(f"reading the network in {folder}: {name} holds no JSON object.")
    return found
