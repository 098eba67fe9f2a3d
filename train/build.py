"""What a run begins with: the dataset's parts, the texts, the network.

Shape suffixes: N clips, T frames, H and W pixels, K classes, E width of a text embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geotag.models import read_known
from train.data.clips import class_counts
from train.data.dataset import View
from train.data.sources import open_dataset, parse_place
from train.errors import TrainError
from train.model_card import card_licence
from train.models.geolocator import IMAGENET_MEAN, IMAGENET_STD, Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import SIZES
from train.stills import draw_stills, take_stills
from train.warmstart import start_from_components, widen_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from train.config import TrainConfig
    from train.data.dataset import ClipDataset, Split
    from train.models.videomae import VideoMAEConfig

START_CLIPS = 64
"""Clips whose principal components the patch embedding starts from."""
TEXT_WIDTH = 512
"""E of CLIP ViT-B/32 and B/16, and of the released labels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sources:
    """What a run reads."""

    train: ClipDataset
    chosen_on: ClipDataset
    """What the best weights are chosen on."""
    steps: int
    texts_KE: NDArray[np.float32] | None


def open_sources(config: TrainConfig) -> Sources:
    """Open the dataset's parts, and the texts if the model is aligned with any."""
    fresh = None
    if config.data == "rendered" and config.steps is not None:
        fresh = -(-config.steps // config.views) * config.batch
    train_part = open_part(config, "train", clips=fresh)
    samples = len(train_part.entries)
    if not samples:
        raise TrainError(f"training on {train_part.name}: it holds no clips.")
    steps = config.steps
    if steps is None:
        assert config.epochs is not None
        steps = max(1, round(config.epochs * samples / config.batch))
    return Sources(
        train=train_part,
        chosen_on=open_part(config, config.selection, clips=config.val_clips),
        steps=steps,
        texts_KE=read_texts(config, train_part),
    )


def open_part(config: TrainConfig, split: Split, *, clips: int | None) -> ClipDataset:
    """One split of the dataset of a recipe, with scene labels if they lie apart."""
    dataset = open_dataset(
        config.data, split, sampling=config.sampling, splitting=config.splitting, clips=clips
    )
    if config.scenes:
        from train.scenes import with_scenes

        dataset = with_scenes(dataset, Path(config.scenes))
    return dataset


def read_texts(config: TrainConfig, dataset: ClipDataset) -> NDArray[np.float32] | None:
    """Embeddings of the names of every city, [K, E]; None where the model has no text head.

    Raises:
        TrainError: there are none; the text says how to make them.
    """
    if config.model.text == "none":
        return None
    from train.texts import name_table, read_text_table

    place = Path(parse_place(config.data.partition(":")[2])[0])
    stored = (place if place.is_dir() else place.parent) / "text_table.safetensors"
    if config.texts == "names" or (config.data == "rendered" and not config.texts):
        return name_table(dataset.hierarchy, variant=config.model.text, width=TEXT_WIDTH)
    path = Path(config.texts) if config.texts else stored
    if not path.is_file():
        # The label files of the release may hold them: those of all levels.
        if not config.texts and config.model.text == "all" and hasattr(dataset, "text_table"):
            released_KE: NDArray[np.float32] | None = dataset.text_table()
            if released_KE is not None:
                return released_KE
        raise TrainError(
            f"aligning with the names of places: there is no {path}. Make it once with "
            f"`python -m train.texts --dataset {config.data} --out {path}`, or use --texts names, "
            "which knows how names are spelled and nothing of the world."
        )
    return read_text_table(path, dataset.hierarchy, config.model.text)


def build_model(
    config: TrainConfig,
    sources: Sources,
    *,
    architecture: VideoMAEConfig | None = None,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Geolocator, dict[str, Any]]:
    """The network with the weights that training begins from, and what is to be told of them.

    Args:
        config: the recipe.
        sources: what it reads.
        architecture: of a run that goes on: its weights are about to be put back, so that nothing
            is fetched or computed.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.
    """
    is_new, encoder, facts = architecture is None, None, {}
    if config.pretrained and is_new:
        from train.models.pretrained import load_pretrained

        architecture, encoder, report = load_pretrained(
            config.pretrained,
            num_heads=config.model.num_heads,
            is_accepted=is_accepted,
            tell=tell,
        )
        tell(
            f"weights of {report.source}: {len(report.used)} tensors used, "
            f"{len(report.left_out)} left out, {report.heads} heads"
        )
        for note in report.notes:
            tell(note)
        facts = {
            "pretrained": report.source,
            "pretrained_sha256": ", ".join(report.sha256.values()),
            "licence": licence_of(config.pretrained),
        }
    width = 0 if sources.texts_KE is None else sources.texts_KE.shape[1]
    plain = config.model.normalisation == "none"
    model = Geolocator(
        architecture or shape_of(config),
        class_counts(sources.train.hierarchy),
        mean=(0.0, 0.0, 0.0) if plain else IMAGENET_MEAN,
        std=(1.0, 1.0, 1.0) if plain else IMAGENET_STD,
        teachers=TeacherConfig(
            scene=config.model.scene,
            text_width=width,
            attention_input=config.model.attention_input,
        ),
    )
    if encoder is not None:
        model.encoder.load_state_dict(encoder.state_dict())
    elif config.model.warm_start and is_new:
        widen_weights(model.encoder)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the last digits of components depend on how many there are
        start_from_components(model, _first_clips(config, sources, model))
        torch.set_num_threads(threads)
    return model, facts


def shape_of(config: TrainConfig) -> VideoMAEConfig:
    """Shape of an encoder that begins from nothing."""
    shape = SIZES[config.model.size]
    is_picture = config.model.still != "none"
    return replace(shape, frames=1, tubelet_frames=1) if is_picture else shape


def licence_of(pretrained: str) -> str:
    """Under which terms published weights may be used, as far as it is known here."""
    for known in read_known().values():
        if pretrained in (known.name, known.hub_id):
            return f"{known.licence}, as the weights that training began from"
    found = card_licence(Path(pretrained)) if Path(pretrained).is_dir() else "not stated"
    return f"{found}, as the weights that training began from"


def training_view(config: TrainConfig, model: Geolocator) -> View:
    """How clips are read for training."""
    return View(
        # A model of single pictures chooses its frame of the clip that others see.
        frames=SIZES[config.model.size].frames
        if config.model.still != "none"
        else model.config.frames,
        image_px=model.config.image_px,
        resize=config.input.resize,
        picking=config.input.picking,
        augmentation=config.input.augmentation,
        seed=config.seed,
    )


def scoring_view(config: TrainConfig, model: Geolocator) -> View:
    """How clips are read to see how good the model is: nothing is random."""
    picking = "uniform" if config.input.picking == "mixed" else config.input.picking
    return replace(training_view(config, model), picking=picking, augmentation=None, seed=None)


def _first_clips(config: TrainConfig, sources: Sources, model: Geolocator) -> torch.Tensor:
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
