"""What training, evaluation, checkpoints, export and calibration ask of a network.

`GeoModel` is the contract; `FeatureModel` fulfils most of it for networks that make one feature of
a clip and are linear from there on. `Kind` is what the table in `train.models.kinds` says of each.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P tokens, D width, K classes,
R routes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS
from train.models.heads import HEADS, Heads
from train.models.labels import CosineLabels, FixedLabels
from train.models.nested import NestedLevels, SummedLevels
from train.models.teachers import PLAIN, TeacherConfig, Teachers

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from calibration.ranges import Family
    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy
    from train.losses import Targets
    from train.models.published import WeightsReport
    from train.models.teachers import SceneHead

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of R, G, B in [0, 1]: what most published weights were trained with."""
Model = TypeVar("Model", bound="GeoModel")
Feature = TypeVar("Feature", bound="FeatureModel")


class GeoModel(nn.Module):
    """Clips of bytes to the scores of four place levels, and maybe of scene groups.

    A subclass sets `kind`, says `width`, makes its layers in `add_layers`, and answers `forward`.
    Its `config` is a frozen dataclass of plain values with `frames` and `image_px` among them: a
    checkpoint keeps it, and a recipe's `[model]` may change any of them.
    """

    kind: ClassVar[str]
    """Its name in the table of kinds."""
    usual_teachers: ClassVar[TeacherConfig] = PLAIN
    """Of a network that is built without a word about teachers."""
    undecayed: ClassVar[frozenset[str]] = frozenset()
    """Last parts of names of parameters that are no matrices, though they have two axes."""
    extra_terms: ClassVar[tuple[str, ...]] = ()
    """Names of the losses that `extra_losses` gives."""
    tokens: int = 0
    """Of a clip, that training may drop some of: `forward` then takes `kept_NP`; 0 for none."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - each kind has a dataclass of its own
        classes: Mapping[str, int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        teachers: TeacherConfig | None = None,
    ) -> None:
        """Build with random weights.

        Args:
            config: shape of the network.
            classes: how many classes each of city, state, country, continent and scene has.
            mean: of R, G, B in [0, 1]; subtracted inside the network.
            std: of R, G, B in [0, 1]; divided by inside the network.
            teachers: which of them there are, and what kind of scene head; None for the usual.

        Raises:
            ValueError: `classes` does not name exactly the five heads, or has an empty one.
        """
        if set(classes) != set(HEADS) or min(classes.values()) < 1:
            raise ValueError(
                f"building a {type(self).__name__} with classes {dict(classes)}: "
                f"needed is a positive count for each of {', '.join(HEADS)}."
            )
        super().__init__()
        self.config = config
        self.classes = {head: int(classes[head]) for head in HEADS}
        self.teaching = self.usual_teachers if teachers is None else teachers
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.add_layers(config)

    def add_layers(self, config: Any) -> None:  # noqa: ANN401
        """Make the layers of a network of this shape; what every kind has is there already."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Of the feature."""
        return int(self.config.width)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Of one clip: frames, height, width, colours."""
        return self.config.frames, self.config.image_px, self.config.image_px, 3

    @property
    def nests(self) -> bool:
        """Whether its coarser levels are sums over its cities, and no evidence of their own."""
        return self.teaching.hierarchy == "marginal"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the exported network answers, in their order."""
        scene = () if self.teaching.scene == "none" else ("scene",)
        return (*LEVELS, *scene, "feature")

    @property
    def widths(self) -> dict[str, int]:
        """Width of every head and of the feature."""
        return {**self.classes, "feature": self.width}

    @property
    def depth(self) -> int:
        """How many layers learn at rates of their own; see `layer_of`."""
        return int(self.config.depth)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: 0 for what reads pixels, 1 to `depth`, and one more for heads."""
        if name.startswith("encoder.blocks."):
            return 1 + int(name.split(".")[2])
        return 0 if name.startswith("encoder.") else self.depth + 1

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay pulls at a parameter: matrices, no biases, norms and positions."""
        return parameter.ndim > 1 and name.rpartition(".")[2] not in self.undecayed

    def families(self) -> tuple[Family, ...]:
        """Linear layers that read one tensor, for int8; empty: this kind has no int8."""
        return ()

    def extra_losses(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Sums over clips of losses of this kind alone, by the names in `extra_terms`.

        Args:
            outputs: what `forward` gave while training; it may give more than is exported.
            targets: for the same clips.
        """
        return {}

    def taught(self, outputs: Mapping[str, Tensor], targets: Targets) -> Mapping[str, Tensor]:
        """The answers that losses are taken of, where targets decide who answers in training.

        Args:
            outputs: what `forward` gave.
            targets: for the same clips.
        """
        return outputs

    def routing(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How much each clip uses of several parts, which evaluation reports.  Each [N, R], of 1.

        Args:
            outputs: what `forward` gave.
        """
        return {}

    def route_names(self) -> dict[str, tuple[str, ...]]:
        """What the R routes of each of `routing` are called."""
        return {}

    def folded(self: Model) -> Model:
        """The network as it is exported: what only learning needs is worked into its weights."""
        return self

    def check_clip(self, clip_NTHWC: Tensor) -> None:
        """Refuse what is no batch of its clips.

        Raises:
            ValueError: another type or shape.
        """
        expected = self.clip_shape
        if clip_NTHWC.dtype != torch.uint8 or tuple(clip_NTHWC.shape[1:]) != expected:
            raise ValueError(
                f"a {type(self).__name__} takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clip_NTHWC.dtype} {list(clip_NTHWC.shape)}."
            )

    def normalise(self, values: Tensor) -> Tensor:
        """Bytes to (value / 255 - mean) / std; the last axis is whole pixels, colour by colour."""
        pixels = values.shape[-1] // 3
        scale_V = (1 / (255 * self.std)).repeat(pixels)
        shift_V = (-self.mean / self.std).repeat(pixels)
        return values * scale_V + shift_V


class FeatureModel(GeoModel):
    """A network whose classifiers and teachers read one feature of the clip.

    In `add_layers` a subclass makes what comes before the feature, then calls `add_heads`. It
    answers `features`.
    """

    def add_heads(self) -> None:
        """Make the classifiers and teachers; after the encoder, whose weights are drawn first."""
        teaching, linear = self.teaching, list[str]()
        self.labels: CosineLabels | FixedLabels | None = None
        self.nested: NestedLevels | SummedLevels | None = None
        if teaching.classifier == "linear":
            linear += teaching.own_levels
        if teaching.scene == "linear":
            linear.append("scene")
        self.heads = Heads(self.width, {head: self.classes[head] for head in linear})
        if teaching.classifier == "cosine":
            self.labels = CosineLabels(
                self.width, teaching.label_width, self.classes, teaching.own_levels
            )
        if teaching.hierarchy == "marginal":
            self.nested = NestedLevels(self.classes)
        places = sum(self.classes[level] for level in LEVELS)
        self.teachers = Teachers(self.teaching, classes=places, scenes=self.classes["scene"])

    def start_places(
        self, hierarchy: Hierarchy, vectors: Mapping[Level, NDArray[np.float32]] | None
    ) -> None:
        """Tell classifiers that know of the class tree what it is; a checkpoint keeps it.

        Args:
            hierarchy: the tree.
            vectors: what the places of every level begin as, [K, E], for classifiers by cosine.
        """
        if isinstance(self.labels, CosineLabels) and vectors is not None:
            self.labels.start(hierarchy, vectors)
        if isinstance(self.nested, NestedLevels):
            self.nested.start(hierarchy)

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """One feature of each clip.  uint8 [N, T, H, W, 3] -> float [N, D]; see `forward`."""
        raise NotImplementedError

    def answer(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """What the classifiers and teachers make of a feature; see `forward`."""
        found = self.heads(feature_ND)
        if self.labels is not None:
            found |= self.labels(feature_ND)
        found = self.nest(found)
        taught = self.teachers([found[level] for level in LEVELS], text=self.training)
        return {**found, **taught, "feature": feature_ND}

    def nest(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answers with coarser levels as sums over the cities, where the recipe wants them so.

        A network that makes one answer of several does it once more at the end.
        """
        return dict(found) if self.nested is None else {**found, **self.nested(found["city"])}

    def folded(self: Feature) -> Feature:
        """See `GeoModel.folded`."""
        if self.labels is None and self.nested is None:
            return self
        model = copy.deepcopy(self)
        if isinstance(model.labels, CosineLabels):
            model.labels = model.labels.fixed()
        if isinstance(model.nested, NestedLevels):
            model.nested = model.nested.fixed()
        return model

    def forward(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> logits [N, K] per head, and `feature` [N, D].

        `text` [N, E] is there as well while a model with a text head trains.

        Args:
            clip_NTHWC: clips.
            kept_NP: tokens that each clip is seen through, as `random_tokens` draws them, for a
                network that has `tokens`: half of them train in less than half the time
                (PatchDropout, Liu et al., WACV 2023). None for all.

        Raises:
            ValueError: another type or shape.
        """
        return self.answer(self.features(clip_NTHWC, kept_NP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of published weights."""

    source: str
    """Hub id, folder, or file."""
    shape: Any
    """Of the network, as size and recipe have it; for single pictures, one frame."""
    is_still: bool
    """Whether the network is shown one frame of each clip."""
    num_heads: Any = "corrected"
    """See `train.models.pretrained.HeadChoice`."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """How many classes each head has, for weights that hold classifiers."""
    is_accepted: bool = False
    """Fetch weights for non-commercial use alone, too."""
    tell: Callable[[str], None] = lambda text: None
    """Is told what is done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """Published weights, ready to be put into a network."""

    shape: Any
    """Of the network that they fit."""
    tensors: Mapping[str, Tensor]
    """By the names of the network's state; what is not among them begins at random."""
    report: WeightsReport
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None
    """Mean and deviation of R, G, B that they were trained with, where their folder says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of network is configured, built, loaded and exported."""

    title: str
    """What papers call it."""
    noun: str
    """What it is, for a model card: `a video transformer`."""
    model: type[GeoModel]
    """Built with (shape, classes, mean=, std=, teachers=)."""
    shape: type[Any]
    """Dataclass of `GeoModel.config`. A recipe's `[model]` may name its fields."""
    sizes: Mapping[Any, Any]
    """Shapes by name; `tiny` is for the rendered world on two cores."""
    one_frame: Callable[[Any], Any] = lambda shape: replace(shape, frames=1)
    """The shape for one frame of each clip."""
    scenes: tuple[SceneHead, ...] = ("none", "linear", "attention")
    """Scene heads that it can have."""
    takes: frozenset[str] = field(default_factory=frozenset)
    """Which of `keep_tokens`, `num_heads` and `warm_start` a recipe may give."""
    load: Callable[[Wanted], Loaded] | None = None
    """Published weights; None: there are none to begin from."""
    warm_start: Callable[[Any, Tensor], None] | None = None
    """Given the network and some clips, sets weights from which a narrow one learns in minutes."""
    graph: Callable[[Any], onnx.GraphProto] | None = None
    """Writes the network as ONNX by hand; None: it is traced."""
