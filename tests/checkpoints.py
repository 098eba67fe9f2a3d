"""Small image-and-text networks in the hub's layout: random weights, real files."""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    VideoMAEConfig,
    VideoMAEModel,
)

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_TEXT = (
    "a photo i took in . a street view photo in a road in the region of a photo showing the "
    "country of a dashcam photo of birmingham , alabama united states england são paulo münchen "
    "bavaria germany north america europe asia africa oceania south new york los angeles"
)


def write_clip(
    folder: Path,
    *,
    image_px: int = 32,
    patch_px: int = 16,
    activation: str = "quick_gelu",
    seed: int = 0,
    width: int = 32,
) -> Path:
    """A CLIP with two blocks a side, its byte-pair tokenizer as vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = _byte_pairs()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges), encoding="utf-8"
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 77,
        },
    )
    ends = {"bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"]}
    torch.manual_seed(seed)
    side = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": activation,
    }
    config = CLIPConfig(
        text_config={**side, **ends, "vocab_size": len(vocab), "max_position_embeddings": 77},
        vision_config={**side, "image_size": image_px, "patch_size": patch_px},
        projection_dim=24,
    )
    _loud(CLIPModel(config)).save_pretrained(folder)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": image_px},
            "do_center_crop": True,
            "crop_size": {"height": image_px, "width": image_px},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
            "resample": 3,
        },
    )
    return folder


def write_siglip(
    folder: Path, *, image_px: int = 32, patch_px: int = 16, seed: int = 0, width: int = 32
) -> Path:
    """A SigLIP with two blocks a side and a SentencePiece tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(_TEXT.split() * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    for name in ("text.txt", "spiece.vocab"):
        (folder / name).unlink()
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "do_lower_case": True,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "model_max_length": 16,
        },
    )
    torch.manual_seed(seed)
    side = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = SiglipConfig(
        text_config={
            **side,
            "vocab_size": 130,
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**side, "image_size": image_px, "patch_size": patch_px},
    )
    model = _loud(SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-4.0)
    model.save_pretrained(folder)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True,
            "size": {"height": image_px, "width": image_px},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 3,
        },
    )
    return folder


def write_videomae(folder: Path, *, image_px: int = 32) -> Path:
    """A VideoMAE encoder of two blocks that takes 16 frames."""
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=image_px,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    VideoMAEModel(config).save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", {"image_processor_type": "VideoMAEProcessor"})
    return folder


def _loud(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh networks hardly react to their input; this one's weights are larger, biases too."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.2)
            elif value.ndim >= 2 and "embedding" not in name:
                value.mul_(6)
    return model.eval()


def _byte_pairs() -> tuple[dict[str, int], list[str]]:
    """A byte-level vocabulary that knows every byte, and some words of places whole."""

    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[str] = []
    for word in sorted(set(_TEXT.split())):
        if not word.isascii() or len(word) < 2:
            continue
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = f"{parts[0]} {parts[1]}"
            joined = parts[0] + parts[1]
            if merge not in merges:
                merges.append(merge)
                tokens.append(joined)
            parts = [joined, *parts[2:]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte (Radford et al., 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(len(others))]


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
