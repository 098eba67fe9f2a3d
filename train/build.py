"""What a run begins with: the dataset's parts, the texts, the network.

Shape suffixes: N clips, T frames, H and W pixels, K classes, E width of a text embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.bundle import LEVELS
from geotag.models import read_known
from train.data.clips import class_counts
from train.data.dataset import View
from train.data.sources import open_dataset, parse_place
from train.errors import MissingPartError, TrainError
from train.models.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FeatureModel,
    GeoModel,
    Loaded,
    Wanted,
)
from train.models.kinds import find_kind, sized_shape
from train.models.teachers import TeacherConfig
from train.place_texts import labels_of, texts_of
from train.stills import draw_stills, take_stills

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from engines.bundle import Level
    from train.config import ModelConfig, TrainConfig
    from train.data.dataset import ClipDataset, Picking, Split
    from train.models.published import WeightsReport

START_CLIPS = 64
"""Clips whose principal components the patch embedding starts from."""
TEXTS_FILE, SCENES_FILE = "text_table.safetensors", "scenes.safetensors"
"""What `python -m train.texts` and `python -m train.scenes` put into a dataset's folder."""
NORMALISATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "kinetics": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and deviation of R, G, B; see `ModelConfig.normalisation`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sources:
    """What a run reads."""

    train: ClipDataset
    chosen_on: ClipDataset
    """What the best weights are chosen on."""
    chosen_at: Level | None
    """The finest level at which it shows anything that is learned; None for nothing."""
    tested_on: ClipDataset | None
    """What the end is measured on; None where a packed dataset has no such part."""
    steps: int
    texts_KE: NDArray[np.float32] | None
    labels: Mapping[Level, NDArray[np.float32]] | None = None
    """What the places of every level begin as, for cosine classifiers."""


def open_sources(config: TrainConfig) -> Sources:
    """Open the dataset's parts, and the texts if the model needs any.

    All of it before the first step: what is missing is found now, not after days of training.
    """
    fresh = None
    if config.data == "rendered" and config.steps is not None:
        fresh = -(-config.steps // config.views) * config.batch
    train_part = open_part(config, "train", clips=fresh)
    samples = len(train_part.entries)
    if not samples:
        raise TrainError(f"training on {train_part.name}: it holds no clips.")
    if config.loss.scene_weight and getattr(train_part, "has_scenes", None) is False:
        raise TrainError(_without_scenes(config, train_part.name))
    steps = config.steps
    if steps is None:
        assert config.epochs is not None
        steps = max(1, round(config.epochs * samples / config.batch))
    chosen_on = open_part(config, config.selection, clips=config.val_clips)
    stored = beside_dataset(config.data, TEXTS_FILE)
    return Sources(
        train=train_part,
        chosen_on=chosen_on,
        chosen_at="city" if config.data == "rendered" else shared_level(train_part, chosen_on),
        tested_on=open_test(config),
        steps=steps,
        texts_KE=texts_of(config, train_part, stored),
        labels=labels_of(config, train_part, stored),
    )


def _without_scenes(config: TrainConfig, name: str) -> str:
    """What is said where scenes are to be learned and no clip says which it shows."""
    out = beside_dataset(config.data, SCENES_FILE)
    return (
        f"learning scenes on {name}: none of its clips says which scene it shows. Label them with "
        f"`python -m train.scenes --dataset '{config.data}' --weights resnet50_places365.pth.tar "
        f"--out {out}`, where training looks for them; or choose a preset without scenes, such as "
        "classifiers or text-only."
    )


def shared_level(learned: ClipDataset, looked_at: ClipDataset) -> Level | None:
    """The finest level at which two parts of a dataset have a class in common.

    Of a few drives, those held out may be of cities that nobody drove through in training: there
    every model is right as often, never, and only their states or countries tell them apart.
    """
    cities = [
        np.array(sorted({entry.city_id for entry in part.entries}), dtype=int)
        for part in (learned, looked_at)
    ]
    for level in LEVELS:
        ours, theirs = (learned.hierarchy.ancestors[level][found] for found in cities)
        if np.isin(theirs, ours).any():
            return level
    return None


def open_test(config: TrainConfig) -> ClipDataset | None:
    """What a recipe's model is tested on; None where a packed dataset has no such part.

    Raises:
        DatasetError: it should be there, and is not.
    """
    try:
        return open_part(config, "test", clips=config.test_clips)
    except MissingPartError:
        return None


def open_part(config: TrainConfig, split: Split, *, clips: int | None) -> ClipDataset:
    """One split of the dataset of a recipe, with scene labels to learn if they lie apart."""
    dataset = open_dataset(
        config.data, split, sampling=config.sampling, splitting=config.splitting, clips=clips
    )
    place = beside_dataset(config.data, SCENES_FILE)
    path = Path(config.scenes).expanduser() if config.scenes else place
    if split == "train" and path is not None and (config.scenes or path.is_file()):
        from train.scenes import with_scenes

        dataset = with_scenes(dataset, path)
    return dataset


def beside_dataset(spec: str, name: str) -> Path | None:
    """Where a file of a dataset lies: in its folder, or beside its file; None: it has no place."""
    place, _ = parse_place(spec.partition(":")[2])
    if not place:
        return None
    path = Path(place).expanduser()
    return (path if path.is_dir() else path.parent) / name


def build_model(
    config: TrainConfig,
    sources: Sources,
    *,
    architecture: Any = None,  # noqa: ANN401 - each kind has a dataclass of its own
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[GeoModel, dict[str, Any]]:
    """The network with the weights that training begins from, and what is to be told of them.

    Args:
        config: the recipe.
        sources: what it reads.
        architecture: of a run that goes on: its weights are about to be put back, so that nothing
            is fetched or computed.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.
    """
    kind, is_new = find_kind(config.model.kind), architecture is None
    shape = architecture or shape_of(config.model)
    loaded, facts = None, {}
    if config.pretrained and is_new:
        loaded = _load(config, shape, sources, is_accepted=is_accepted, tell=tell)
        shape, report = loaded.shape, loaded.report
        facts = {
            "pretrained": report.source,
            "pretrained_sha256": ", ".join(report.sha256.values()),
            "licence": licence_of(report),
        }
    mean, std = NORMALISATIONS[config.model.normalisation]
    model = kind.model(
        shape,
        class_counts(sources.train.hierarchy),
        mean=mean,
        std=std,
        teachers=teachers_of(
            config.model,
            text_width=0 if sources.texts_KE is None else sources.texts_KE.shape[1],
            label_width=0 if sources.labels is None else sources.labels["city"].shape[1],
        ),
    )
    if isinstance(model, FeatureModel):
        model.start_places(sources.train.hierarchy, sources.labels)
    if loaded is not None:
        found = model.load_state_dict(dict(loaded.tensors), strict=False)
        assert not found.unexpected_keys, found.unexpected_keys
    elif config.model.warm_start and is_new:
        assert kind.warm_start is not None  # the recipe was checked
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the last digits of components depend on how many there are
        kind.warm_start(model, _first_clips(config, sources, model))
        torch.set_num_threads(threads)
    return model, facts


def teachers_of(model: ModelConfig, *, text_width: int, label_width: int) -> TeacherConfig:
    """The classifiers and teachers of a recipe, for texts of these widths."""
    return TeacherConfig(
        scene=model.scene,
        text_width=text_width,
        attention_input=model.attention_input,
        classifier=model.classifier,
        label_width=label_width,
        hierarchy=model.hierarchy,
    )


def _load(
    config: TrainConfig,
    shape: Any,  # noqa: ANN401
    sources: Sources,
    *,
    is_accepted: bool,
    tell: Callable[[str], None],
) -> Loaded:
    """Published weights for a recipe, and what is told of them.

    Raises:
        TrainError: there are none for networks of this kind, or they are of another shape than the
            recipe asks for by name.
        WeightsError: they cannot be used.
    """
    kind = find_kind(config.model.kind)
    if kind.load is None:
        raise TrainError(
            f"training {config.preset}: {kind.title} begins from nothing, no published weights "
            f"are read into it, and pretrained is {config.pretrained!r}. Give --pretrained none."
        )
    loaded = kind.load(
        Wanted(
            source=config.pretrained,
            shape=shape,
            is_still=config.model.still != "none",
            num_heads=config.model.num_heads,
            classes=class_counts(sources.train.hierarchy),
            is_accepted=is_accepted,
            tell=tell,
        )
    )
    for name in config.model.options:
        found, asked = getattr(loaded.shape, name), getattr(shape, name)
        if found != asked:
            raise TrainError(
                f"training {config.preset}: the weights of {loaded.report.source} have {name} "
                f"{found}, the recipe asks for {asked}. Leave model.{name} out, or take others."
            )
    report = loaded.report
    heads = "" if report.heads is None else f", {report.heads} heads"
    tell(
        f"weights of {report.source}: {len(report.used)} tensors used, "
        f"{len(report.left_out)} left out{heads}"
    )
    for note in report.notes:
        tell(note)
    used = NORMALISATIONS[config.model.normalisation]
    if loaded.normalisation is not None and loaded.normalisation != used:
        mean, std = loaded.normalisation
        fitting = [name for name, known in NORMALISATIONS.items() if known == (mean, std)]
        tell(
            f"warning: the weights of {report.source} were trained with the mean {mean} and the "
            f"deviation {std}; model.normalisation {config.model.normalisation} is {used}"
            + "".join(f"; {name} is theirs" for name in fitting)
        )
    return loaded


def shape_of(model: ModelConfig) -> Any:  # noqa: ANN401 - each kind has a dataclass of its own
    """Shape of a network that begins from nothing."""
    shape = sized_shape(model.kind, model.size, model.options)
    return shape if model.still == "none" else find_kind(model.kind).one_frame(shape)


_BEGUN_FROM = ", as the weights that training began from"


def licence_of(report: WeightsReport) -> str:
    """Under which terms published weights may be used, as far as it is known here."""
    known = (one for one in read_known().values() if report.source in (one.name, one.hub_id))
    licence = next((one.licence for one in known), report.licence)
    return licence if licence.endswith(_BEGUN_FROM) else f"{licence}{_BEGUN_FROM}"


def training_view(config: TrainConfig, model: GeoModel) -> View:
    """How clips are read for training."""
    return View(
        # A model of single pictures chooses its frame of the clip that others see.
        frames=clip_frames(config.model) if config.model.still != "none" else model.clip_shape[0],
        image_px=model.clip_shape[1],
        resize=config.input.resize,
        picking="ends" if config.model.still != "none" else config.input.picking,
        augmentation=config.input.augmentation,
        seed=config.seed,
    )


def clip_frames(model: ModelConfig) -> int:
    """Of the clips that a recipe is about, before a model of single pictures chooses from them."""
    frames: int = sized_shape(model.kind, model.size, model.options).frames
    return frames


def scoring_view(config: TrainConfig, model: GeoModel) -> View:
    """How clips are read to see how good the model is: nothing is random."""
    view = training_view(config, model)
    picking: Picking = "uniform" if view.picking == "mixed" else view.picking
    return replace(view, picking=picking, augmentation=None, seed=None)


def _first_clips(config: TrainConfig, sources: Sources, model: GeoModel) -> torch.Tensor:
    """Some readable clips.  uint8 [N, T, H, W, 3]."""
    indices = range(min(START_CLIPS, len(sources.train.entries)))
    view = scoring_view(config, model)
    read = (sources.train.read(index, view) for index in indices)
    clips = [torch.from_numpy(found.clip_THWC) for found in read if hasattr(found, "clip_THWC")]
    if not clips:
        raise TrainError(f"{sources.train.name}: none of its first clips can be read.")
    clip_NTHWC = torch.stack(clips)
    if config.model.still == "none":
        return clip_NTHWC
    generator = torch.Generator().manual_seed(config.seed)
    count, frames = clip_NTHWC.shape[:2]
    return take_stills(clip_NTHWC, draw_stills(count, frames, config.model.still, generator))
