"""The network in torch, in the forms that one would compare an engine with; part of `engine.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEModel

from engines.base import EngineError
from tests.networks import draw_weights, encoder_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.models.geolocator import Geolocator

GPU_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One form; `run` ends when the scores are in the host's memory."""

    name: str
    precision: str
    run: Callable[[], dict[str, NDArray[np.float32]]]


def torch_networks(
    model: Geolocator, device: str, clips: NDArray[np.uint8], skipped: dict[str, str]
) -> Iterator[Network]:
    """Every form that works on a device.

    Args:
        model: in float32, on the CPU.
        device: cpu or cuda.
        clips: what is run.
        skipped: is told what does not work, and why.
    """
    if device == "cpu":
        yield _eager(model, torch.from_numpy(clips), "fp32")
        for attention in ("sdpa", "eager"):
            yield _transformers(model, torch.from_numpy(clips), attention)
        return
    if not torch.cuda.is_available():
        skipped["torch"] = f"torch {torch.__version__} sees no CUDA GPU"
        return
    given = torch.from_numpy(clips).cuda()
    for precision in GPU_TYPES:
        on_gpu = copy.deepcopy(model).cuda().eval()
        yield _eager(on_gpu, given, precision)
        yield _compiled(on_gpu, given, precision)
        yield _graphed(on_gpu, given, precision)
    yield from _torch_tensorrt(model, given, skipped)


def torch_products(
    device: str, widths: Sequence[int]
) -> dict[str, list[tuple[float, Callable[[], object]]]]:
    """Torch's own product of large matrices, by precision: MACs of a run, and the run."""
    if device == "cuda" and not torch.cuda.is_available():
        return {}
    types = GPU_TYPES if device == "cuda" else {"fp32": torch.float32}
    found: dict[str, list[tuple[float, Callable[[], object]]]] = {}
    for precision, dtype in types.items():
        found[precision] = []
        for width in widths:
            one, other = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
            found[precision].append((float(4 * width**3), partial(_multiply, one, other)))
    return found


def _multiply(one: torch.Tensor, other: torch.Tensor) -> None:
    for _ in range(4):
        torch.matmul(one, other)
    if one.is_cuda:
        torch.cuda.synchronize()


def _eager(model: nn.Module, clips: torch.Tensor, precision: str) -> Network:
    def run() -> dict[str, NDArray[np.float32]]:
        return _to_host(_scored(model, clips, precision))

    return Network(name="torch eager", precision=precision, run=run)


def _compiled(model: nn.Module, clips: torch.Tensor, precision: str) -> Network:
    compiled = torch.compile(model)

    def run() -> dict[str, NDArray[np.float32]]:
        return _to_host(_scored(compiled, clips, precision))

    return Network(name="torch compiled", precision=precision, run=run)


def _graphed(model: nn.Module, clips: torch.Tensor, precision: str) -> Network:
    """Eager kernels, recorded once and launched together."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            _scored(model, clips, precision)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = _scored(model, clips, precision)

    def run() -> dict[str, NDArray[np.float32]]:
        graph.replay()
        return _to_host(scores)

    return Network(name="torch graphed", precision=precision, run=run)


def _transformers(model: Geolocator, clips: torch.Tensor, attention: str) -> Network:
    """The published implementation with the same weights and classifiers."""
    config = model.config
    weights = draw_weights(model)  # those that the model was made with
    encoder = VideoMAEModel(
        VideoMAEConfig(
            image_size=config.image_px,
            patch_size=config.patch_px,
            num_frames=config.frames,
            tubelet_size=config.tubelet_frames,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
            attn_implementation=attention,
        )
    ).eval()
    held = {
        # Since version 5 the biases are called so.
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): weights[name]
        for name in encoder_shapes(config)
    }
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in held.items()})
    mean, std = model.mean, model.std

    @torch.inference_mode()
    def run() -> dict[str, NDArray[np.float32]]:
        pixels = ((clips / 255 - mean) / std).permute(0, 1, 4, 2, 3)
        tokens = encoder(pixels).last_hidden_state
        return _to_host(model.answer(tokens.mean(dim=1)))

    return Network(name=f"transformers {attention}", precision="fp32", run=run)


def _torch_tensorrt(
    model: Geolocator, clips: torch.Tensor, skipped: dict[str, str]
) -> Iterator[Network]:
    """The network through torch-tensorrt, run by torch."""
    from train.torch_tensorrt import FlatNetwork, load_torch_tensorrt

    try:
        library = load_torch_tensorrt()
    except EngineError as exc:
        skipped["torch-tensorrt"] = str(exc)
        return
    outputs = tuple(model.outputs)
    given = clips.half()
    flat = FlatNetwork(model, outputs, torch.float16).cuda()
    try:
        program = torch.export.export(flat, (given,))
        compiled = library.dynamo.compile(program, arg_inputs=[given])
    except (RuntimeError, TypeError, ValueError) as exc:
        skipped["torch-tensorrt"] = str(exc)
        return

    @torch.inference_mode()
    def run() -> dict[str, NDArray[np.float32]]:
        return _to_host(dict(zip(outputs, compiled(given), strict=True)))

    yield Network(name="torch-tensorrt", precision="fp16", run=run)


def _scored(model: nn.Module, clips: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
    dtype = GPU_TYPES[precision]
    with (
        torch.inference_mode(),
        torch.autocast(clips.device.type, dtype=dtype, enabled=dtype != torch.float32),
    ):
        found: dict[str, torch.Tensor] = model(clips)
    return found


def _to_host(scores: dict[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(value.float().cpu()) for name, value in scores.items()}
