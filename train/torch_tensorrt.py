"""A second way to a TensorRT plan: torch-tensorrt, from the torch network and not from its graph.

Thin and optional. It needs torch with CUDA, a GPU, and the version of TensorRT that it was made
for; the plan it gives is loaded by that TensorRT alone, without torch, and a scan runs it as any
other. It has never been run here, where there is no GPU: what is tested is the network that it is
given, and that every obstacle is told.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches, V values of one, D
width.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engines.base import EngineBuildError, EngineUnavailableError
from train.models.geolocator import Geolocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.bundle import Precision
    from train.models.base import GeoModel

PAIRS = {
    "2.8": "10.12",
    "2.9": "10.13",
    "2.10": "10.14",
    "2.11": "10.15",
    "2.12": "10.16",
    "2.13": "11.0",
    "2.14": "11.1",
}
"""torch-tensorrt, which goes with torch of the same number -> TensorRT.  Source: its releases."""

_TYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class FlatNetwork(nn.Module):
    """The network as torch-tensorrt can take it: one input of floats, outputs by their place.

    It takes the bytes of a clip as floats, whole numbers of 0 to 255, because a cast from bytes is
    not to be relied on there; they are exact in float16. As in our own float16 graphs everything
    from the mean over the tokens on stays float32.
    """

    scale_V: Tensor
    shift_V: Tensor

    def __init__(self, model: Geolocator, outputs: Sequence[str], dtype: torch.dtype) -> None:
        """Copy the network; the encoder computes in `dtype`."""
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.model.encoder.to(dtype)
        self.dtype = dtype
        self.outputs = tuple(outputs)
        config = model.config
        pixels = config.token_values // 3
        mean, std = model.mean.double(), model.std.double()
        self.register_buffer("scale_V", (1 / (255 * std)).repeat(pixels).to(dtype))
        self.register_buffer("shift_V", (-mean / std).repeat(pixels).to(dtype))

    def forward(self, clip_NTHWC: Tensor) -> tuple[Tensor, ...]:
        """Score clips.  `dtype` [N, T, H, W, 3] -> float32 [N, K] for each of `outputs`."""
        encoder = self.model.encoder
        tokens_NPD = encoder.encode(
            encoder.tubelets(clip_NTHWC) * self.scale_V + self.shift_V, None
        )
        found = self.model.answer(tokens_NPD.float().mean(dim=1))
        return tuple(found[name].float() for name in self.outputs)


def build_plan(
    model: GeoModel,
    outputs: Sequence[str],
    precision: Precision,
    *,
    max_batch: int = 1,
    device: str = "cuda",
) -> bytes:
    """Compile a network with torch-tensorrt.

    Args:
        model: in float32.
        outputs: what the plan's output0, output1, ... are to be.
        precision: fp32 or fp16.
        max_batch: most clips at a time.
        device: where torch-tensorrt compiles.

    Returns:
        A plan for this GPU and the TensorRT that torch-tensorrt brings.

    Raises:
        EngineUnavailableError: it is not here, or cannot work here.
        EngineBuildError: it was asked for int8, or failed; its own words.
    """
    if precision not in _TYPES:
        raise EngineBuildError(
            f"compiling with torch-tensorrt in {precision}: it does fp32 and fp16. Our int8 is "
            "written as a graph with its scales in it; compile that with --builder onnx."
        )
    if not isinstance(model, Geolocator):
        raise EngineBuildError(
            f"compiling {type(model).__name__} with torch-tensorrt: it takes VideoMAE alone. "
            "Compile the graph with --builder onnx."
        )
    library = load_torch_tensorrt()
    dtype = _TYPES[precision]
    network = FlatNetwork(model, outputs, dtype).to(device)
    config = model.config
    clip = (config.frames, config.image_px, config.image_px, 3)
    example = torch.zeros((max_batch, *clip), dtype=dtype, device=device)
    try:
        with torch.inference_mode():
            program = torch.export.export(network, (example,), dynamic_shapes=_rows(max_batch))
            convert = library.dynamo.convert_exported_program_to_serialized_trt_engine
            return bytes(
                convert(program, **_known(convert, _settings(library, example, clip, device)))
            )
    except (RuntimeError, TypeError, ValueError, AttributeError) as exc:
        raise EngineBuildError(
            f"compiling in {precision} with {describe_builder()}: {exc}. Compile the graph "
            "instead: --builder onnx."
        ) from exc


def load_torch_tensorrt() -> Any:  # noqa: ANN401 - it may not be here
    """Import torch-tensorrt.

    Raises:
        EngineUnavailableError: it is not here or cannot work here, and what would be needed.
    """
    short = ".".join(torch.__version__.split(".")[:2])
    pair = f"torch-tensorrt {short}" + (f" and TensorRT {PAIRS[short]}" if short in PAIRS else "")
    needs = f"With torch {torch.__version__} it takes {pair}, on x86-64 or Thor, with a CUDA GPU."
    # Asked first: importing it without a GPU ends in an error that says nothing of the kind.
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            f"starting torch-tensorrt: torch {torch.__version__} sees no CUDA GPU here. {needs} "
            "Use --builder onnx.",
            reason="torch sees no GPU",
        )
    try:
        return importlib.import_module("torch_tensorrt")
    except (ImportError, OSError, RuntimeError) as exc:
        raise EngineUnavailableError(
            f"starting torch-tensorrt: {exc}. {needs} Install it with `pip install "
            "'.[torch-tensorrt]'` in geotag's source folder, or use --builder onnx.",
            reason="torch-tensorrt is not installed or does not load",
        ) from exc


def describe_builder() -> str:
    """Names and versions, as a plan's record keeps them."""
    try:
        version = metadata.version("torch-tensorrt")
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    return f"torch-tensorrt {version}, torch {torch.__version__}"


def _settings(library: Any, example: Tensor, clip: tuple[int, ...], device: str) -> dict[str, Any]:  # noqa: ANN401
    most = len(example)
    given = (
        example
        if most == 1
        else library.Input(
            min_shape=(1, *clip),
            opt_shape=(most, *clip),
            max_shape=(most, *clip),
            dtype=example.dtype,
        )
    )
    return {
        "arg_inputs": [given],
        "device": torch.device(device),
        # The types of the network are those of the plan; from 2.13 on there is no other way.
        "use_explicit_typing": True,
        "require_full_compilation": True,
        "disable_tf32": True,
        "truncate_double": True,
        "min_block_size": 1,
    }


def _known(function: Any, settings: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Those that this version has: they came and went."""
    parameters = inspect.signature(function).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return settings
    return {name: value for name, value in settings.items() if name in parameters}


def _rows(max_batch: int) -> Any:  # noqa: ANN401
    return None if max_batch == 1 else ({0: torch.export.Dim("N", min=1, max=max_batch)},)
