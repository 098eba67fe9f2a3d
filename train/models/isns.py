"""ISNs (Müller-Budack, Pustu-Iren and Ewerth, ECCV 2018): experts for scenes, chosen by the scene.

The original trains a base network, fine-tunes a copy of it on the photos of each of three kinds of
scene (indoor, natural, urban), and lets the network of a photo's scene answer; a ResNet-152 trained
on Places365 names the scene. Cells of the earth become the classes of our four levels.

Here the experts share the early stages of one ResNet and have the last stage and the classifiers to
themselves. They begin as copies of one another and learn in one run: a clip's loss goes through
the expert of its target scene (gate `hard`), or through all by their shares of it (`soft`).
`pretrained = RUN` begins from a run of `train.models.planet` instead, as the original does from its
base network.

Where this departs from the original: there is no Places365 network. The scene is predicted from the
shared features by a linear head of 16 groups that learns with all else, and groups add up to the
three superclasses of the experts. It is this prediction that gates, never a label; a label is used
in training alone. All three experts are computed for every clip, since a graph has no branches: the
cost that is counted is that of all three and of the scene head.

Superclasses: `paper` has those of the original, by the first level of Places itself. Dashcams
are hardly ever indoors, and the rendered world is nowhere indoors: that expert would see nothing.
`road` divides what roads lead through, so that each expert has clips of its own.

Shape suffixes: N clips, T frames, B pictures (N T), H and W pixels, C = 3 colours, S scene groups,
E experts, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS
from train.losses import NO_SCENE
from train.models.backbones import RESNETS, ResNetConfig, find_backbone, load_backbone, stage_of
from train.models.base import GeoModel, Kind, Loaded, Wanted
from train.models.blocks import initialise
from train.models.heads import Heads, average_frames, picked
from train.models.resnet import EXPANSION, Trunk, draw, make_stage
from train.models.teachers import OWN
from train.warmstart import Standardised

if TYPE_CHECKING:
    from train.losses import Targets
    from train.models.planet import Planet

Gate = Literal["hard", "soft"]
GROUPS = 16
"""S: scene groups of Places365, in the order of `train.data.world.SCENE_GROUPS`."""
SUPERCLASSES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "paper": {
        "indoor": (0, 1, 2, 3, 4, 5),
        "natural": (6, 7, 8, 9),
        "urban": (10, 11, 12, 13, 14, 15),
    },
    "road": {
        # Streets between buildings: old towns, industry, commerce, and whatever is indoors.
        "town": (0, 1, 2, 3, 4, 5, 11, 13, 15),
        "suburb": (12, 14),  # houses and gardens, parks and sports fields
        "country": (6, 7, 8, 9, 10),  # waters, hills, forests, bridges and the open road
    },
}
"""Name of each expert and its groups; every group has one expert."""
SOME = 1e-12
"""Least share of an expert in a mixture, whose logarithm is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsnsConfig:
    """Shape of the network."""

    frames: int = 16
    """Of a clip; each is scored alone."""
    image_px: int = 224
    backbone: str = "resnet50"
    """A ResNet of `train.models.backbones.BACKBONES`."""
    gate: Gate = "hard"
    """hard: the expert of the most probable superclass answers. soft: probabilities of all, by the
    probability of their superclass."""
    superclasses: str = "road"
    """One of SUPERCLASSES."""
    standardised: bool = False
    """Whether classifiers read features of mean 0 and variance 1, which lets a network learn from
    nothing in minutes; other kinds have that as `model.warm_start`, and lose it after training."""

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        wrong = [
            f"{name} {value!r} is none of {', '.join(allowed)}"
            for name, value, allowed in (
                ("backbone", self.backbone, RESNETS),
                ("gate", self.gate, get_args(Gate)),
                ("superclasses", self.superclasses, tuple(SUPERCLASSES)),
            )
            if value not in allowed
        ]
        if wrong:
            raise ValueError(f"scene experts: {'; '.join(wrong)}.")

    @property
    def resnet(self) -> ResNetConfig:
        """Shape of the backbone."""
        shape = find_backbone(self.backbone, self.image_px)
        assert isinstance(shape, ResNetConfig)  # checked
        return shape

    @property
    def width(self) -> int:
        """D: of an expert's feature."""
        return self.resnet.width

    @property
    def depth(self) -> int:
        """Stages that learn at rates of their own; the experts' is the last."""
        return self.resnet.depth


class Isns(GeoModel):
    """Shared stages of a ResNet, a scene head, and three experts."""

    kind = "isns"
    usual_teachers = OWN

    def add_layers(self, config: IsnsConfig) -> None:
        """Shared stages, scene head and experts; weights begin at random, the experts' alike.

        Raises:
            ValueError: there are other scene groups than those of Places365.
        """
        classes = self.classes
        if classes["scene"] != GROUPS:
            raise ValueError(
                f"scene experts for {classes['scene']} scene groups: their superclasses are made "
                f"of the {GROUPS} groups of Places365."
            )
        *shared, last = config.resnet.depths
        self.encoder = Trunk(shared, config.resnet.stem)
        came = self.encoder.width
        stage = make_stage(came, 2 * came // EXPANSION, last)
        draw(stage)
        heads = Heads(config.width, {level: classes[level] for level in LEVELS})
        scene = nn.Linear(came, GROUPS)
        initialise(scene, std=0.002)
        table = SUPERCLASSES[config.superclasses]
        self.names = tuple(table)
        self.experts = nn.ModuleDict({name: deepcopy(stage) for name in table})
        self.heads = nn.ModuleDict({"scene": scene, **{name: deepcopy(heads) for name in table}})
        self.usual = nn.ModuleDict()
        if config.standardised:
            self.usual.update({name: Standardised(config.width) for name in table})
        groups_SE = torch.tensor(
            [[float(group in groups) for groups in table.values()] for group in range(GROUPS)]
        )
        self.register_buffer("groups_SE", groups_SE, persistent=False)
        self.groups_SE: Tensor

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: the shared stages, the experts' stage, and the heads."""
        first, _, rest = name.partition(".")
        return {"encoder": stage_of(rest), "experts": self.depth}.get(first, self.depth + 1)

    def forward(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> log-probabilities [N, K], `scene`, `feature`.

        `gate` [N, E] is there as well: the probability of each expert's superclass. While it
        trains, so are the answers of every expert to every frame, `experts.city` [B, E, K] and the
        other levels, which `taught` weighs.
        """
        self.check_clip(clip_NTHWC)
        pixels_BHWC = self.normalise(clip_NTHWC.flatten(0, 1))
        maps_BCHW = self.encoder(pixels_BHWC.permute(0, 3, 1, 2))
        scene_BS = self.heads["scene"](maps_BCHW.mean(dim=(2, 3)))
        # The gate learns scenes and nothing else, as the original's scene network does.
        gate_BE = scene_BS.detach().softmax(dim=1) @ self.groups_SE
        feature_BED = torch.stack([self.describe(name, maps_BCHW) for name in self.names], dim=1)
        answers = [
            self.heads[name](feature_BED[:, number]) for number, name in enumerate(self.names)
        ]
        scored = {
            level: torch.stack([answer[level] for answer in answers], dim=1).log_softmax(dim=2)
            for level in LEVELS
        }
        shares_BE = self.shares(gate_BE)
        found: dict[str, Tensor] = {level: self.mix(scored[level], shares_BE) for level in LEVELS}
        found |= {"scene": scene_BS, "gate": gate_BE}
        found["feature"] = (shares_BE[..., None] * feature_BED).sum(dim=1)
        found = average_frames(found, self.config.frames)
        if self.training:
            found |= {_expert(level): scored[level] for level in LEVELS}
        return found

    def describe(self, name: str, maps_BCHW: Tensor) -> Tensor:
        """An expert's feature of each picture.  [B, C, H, W] -> [B, D]."""
        feature_BD: Tensor = self.experts[name](maps_BCHW).mean(dim=(2, 3))
        if not self.config.standardised:
            return feature_BD
        usual: Standardised = self.usual[name]  # type: ignore[assignment]
        return usual.standardise(feature_BD)

    def shares(self, gate_BE: Tensor) -> Tensor:
        """How much of each expert is heard: all of the likeliest, or of each by its probability."""
        return gate_BE if self.config.gate == "soft" else picked(gate_BE)

    def mix(self, scored_BEK: Tensor, shares_BE: Tensor) -> Tensor:
        """Log-probabilities of experts as one answer.  [B, E, K], [B, E] -> [B, K]."""
        if self.config.gate == "hard":  # one share is 1
            return (scored_BEK * shares_BE[..., None]).sum(dim=1)
        return (scored_BEK + shares_BE.clamp_min(SOME).log()[..., None]).logsumexp(dim=1)

    def taught(self, outputs: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Answers of the experts of the target scenes, in place of the predicted ones'.

        Args:
            outputs: what `forward` gave; what it gave outside of training stays as it is.
            targets: for the same clips. One without a scene is answered by the predicted one's.
        """
        if _expert(LEVELS[0]) not in outputs:
            return dict(outputs)
        gate_NE = self._target_gate(outputs["gate"], targets)
        shares_BE = self.shares(gate_NE).repeat_interleave(self.config.frames, dim=0)
        heard: dict[str, Tensor] = {
            level: self.mix(outputs[_expert(level)], shares_BE) for level in LEVELS
        }
        return {**outputs, **average_frames(heard, self.config.frames)}

    def _target_gate(self, predicted_NE: Tensor, targets: Targets) -> Tensor:
        """Shares of superclasses in the target: of the distribution, else of the one scene."""
        total_N1 = targets.scene_NS.sum(dim=1, keepdim=True)
        spread_NE = (targets.scene_NS / total_N1.clamp_min(SOME)) @ self.groups_SE
        has_one_N1 = (targets.scene_N != NO_SCENE)[:, None]
        one_NE = self.groups_SE[targets.scene_N.clamp_min(0)]
        return torch.where(total_N1 > 0, spread_NE, torch.where(has_one_N1, one_NE, predicted_NE))

    def routing(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Probability of each expert; with a hard gate the largest is the one that answers."""
        return {"expert": outputs["gate"]}

    def route_names(self) -> dict[str, tuple[str, ...]]:
        """The superclasses."""
        return {"expert": self.names}


def _expert(level: str) -> str:
    """Name of the experts' answers while training."""
    return f"experts.{level}"


# --- weights to begin from ---


def load(wanted: Wanted) -> Loaded:
    """Published weights of a ResNet, or a run of PlaNet: its last stage into every expert."""
    if (Path(wanted.source).expanduser() / "checkpoint.json").is_file():
        return _load_run(wanted)
    found = load_backbone(wanted)
    return replace(found, tensors=_deal(found.shape, found.tensors))


def _load_run(wanted: Wanted) -> Loaded:
    """A base network of ours, whose heads go into every expert too if it knows as many places.

    Raises:
        CheckpointError: it cannot be read.
        WeightsError: it is no PlaNet on a ResNet.
    """
    from train.checkpoint import WEIGHTS, load_checkpoint
    from train.errors import WeightsError
    from train.model_card import NOT_STATED
    from train.models.published import WeightsReport

    folder = Path(wanted.source).expanduser()
    model, record = load_checkpoint(folder)
    if model.kind != "planet" or model.config.backbone not in RESNETS or model.config.album:
        raise WeightsError(
            f"beginning scene experts with the run {folder.name}: it is of {model.kind} "
            f"{record['size']}; needed is a planet without album on one of {', '.join(RESNETS)}."
        )
    base: Planet = model  # type: ignore[assignment]
    # Its classifiers read features as they are.
    shape = replace(wanted.shape, backbone=base.config.backbone, standardised=False)
    state = {
        name: value
        for name, value in base.state_dict().items()
        if name.startswith("encoder.") and value.is_floating_point()
    }
    tensors, notes = _deal(shape, state), []
    form = base.teaching.classifier, base.teaching.hierarchy
    if form != ("linear", "separate"):
        notes.append(
            f"the run's classifiers are {' and '.join(form)}, those of experts are linear and "
            "separate: they begin at random"
        )
    elif any(base.classes[level] != wanted.classes.get(level) for level in LEVELS):
        notes.append("the run knows other places: the experts' classifiers begin at random")
    else:
        for level in LEVELS:
            for part, value in base.heads[level].state_dict().items():
                tensors |= {f"heads.{name}.{level}.{part}": value for name in _names(shape)}
    return Loaded(
        shape=shape,
        tensors=tensors,
        report=WeightsReport(
            source=folder.resolve().name,
            revision=None,
            sha256={WEIGHTS: record["weights_sha256"]},
            layout="original",
            used=tuple(name.removeprefix("encoder.") for name in state),
            left_out={},
            notes=tuple(notes),
            licence=str(record["training"].get("licence", NOT_STATED)),
        ),
        normalisation=(
            tuple(record["normalisation"]["mean"]),
            tuple(record["normalisation"]["std"]),
        ),
    )


def _names(shape: IsnsConfig) -> tuple[str, ...]:
    return tuple(SUPERCLASSES[shape.superclasses])


def _deal(shape: IsnsConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a whole encoder as ours: the last stage to every expert, all else shared."""
    last, found = f"encoder.layer{len(shape.resnet.depths)}.", dict[str, Any]()
    for name, value in tensors.items():
        if name.startswith(last):
            rest = name.removeprefix(last)
            found |= {f"experts.{expert}.{rest}": value for expert in _names(shape)}
        else:
            found[name] = value
    return found


KIND = Kind(
    title="ISNs",
    noun="a classifier of single pictures with experts for scenes",
    model=Isns,
    shape=IsnsConfig,
    sizes={
        "tiny": IsnsConfig(image_px=112, backbone="resnet-tiny", standardised=True),
        "resnet50": IsnsConfig(),
        "resnet101": IsnsConfig(backbone="resnet101"),
    },
    scenes=("own",),
    load=load,
)
