"""What a model is to be made of, as a command line asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Precision, Resize

WeightForm = Literal["dq", "qdq"]
"""How TensorRT's int8 file holds weights: as int8, or as floats that it rounds itself."""
PixelForm = Literal["uint8", "float16"]
"""What TensorRT's files take: bytes, or the same numbers as float16."""
Builder = Literal["onnx", "torch-tensorrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionWish:
    """Flags of `geotag export --checkpoint` that make a smaller model."""

    precision: Precision = "fp32"
    calib: str | None = None
    """A folder of footage, a manifest of `geotag label` or a data set; None: the training data."""
    calib_clips: int = 512
    judged_clips: int = 256
    max_drop: float = 0.005
    """Largest fall of city accuracy that passes, as a share."""
    force: bool = False
    """Ship it even where it lost more."""
    skipped: tuple[str, ...] = ()
    """Layers that stay in floating point, such as `blocks.11.fc2` or `blocks.11`."""
    own_graph: Path | None = None
    """A quantized ONNX file to take in place of ours."""
    weights: WeightForm = "dq"
    pixels: PixelForm = "uint8"
    builder: Builder = "onnx"
    has_plan: bool = True
    """Compile for TensorRT too, where it is here."""

    @property
    def is_asked(self) -> bool:
        """Whether anything of it is wished for."""
        return self != PrecisionWish()


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotWish:
    """Flags of `geotag export --from-clip` and `geotag models pull`."""

    places: str | None = None
    """`166`, `world` or a file; None with no `cities_over`: the command's usual list."""
    cities_over: int | None = None
    frames: int | None = None
    resize: Resize | None = None
    name: str | None = None
    is_accepted: bool = False
    """The licence, where it forbids commercial use."""

    @property
    def is_asked(self) -> bool:
        """Whether anything but a name is wished for."""
        wishes = (self.places, self.cities_over, self.frames, self.resize)
        return self.is_accepted or any(wish is not None for wish in wishes)
