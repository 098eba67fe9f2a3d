"""From a published image-and-text network and a list of places to a bundle, without training.

Shape suffixes: N clips, T frames, H and W pixels, K classes, E width of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from engines.bundle import (
    LEVELS,
    WEIGHTS,
    DecodingMode,
    InputSpec,
    LevelCalibration,
    Manifest,
    PolicyAccuracy,
    SamplingSpec,
    describe_file,
    read_bundle,
    write_manifest,
)
from geotag.places.hierarchy import build_hierarchy, log_softmax
from geotag.places.lists import places_text
from train.data.world import SCENE_GROUPS
from train.errors import ExportError
from train.export import ExportReport, bundle_aside, check_target
from train.model_card import NOT_STATED, card_licence, zero_shot_card
from train.models.heads import HEADS
from train.onnx_graph import write_graph
from train.parity import PARITY, check_parity
from train.zeroshot.checkpoint import embed_pictures, embed_texts, read_checkpoint
from train.zeroshot.graph import build_zero_shot_graph
from train.zeroshot.prompts import mean_embeddings, place_names, read_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.bundle import Resize
    from geotag.places.hierarchy import Hierarchy
    from geotag.places.lists import PlaceList
    from train.zeroshot.checkpoint import Checkpoint
    from train.zeroshot.prompts import Prompts

    Floats = NDArray[np.float32]

FRAMES = 6
"""Of a clip. Frames are independent, so that each costs as much as the first."""
SPAN_S = 20.0
"""Frames far apart see more of a place than frames that look alike."""
POLICIES = (
    PolicyAccuracy(policy="keyframe", span_s=SPAN_S, city_top1=None, country_top1=None, clips=0),
    PolicyAccuracy(policy="exact", span_s=SPAN_S, city_top1=None, country_top1=None, clips=0),
    PolicyAccuracy(policy="dense", span_s=2.5, city_top1=None, country_top1=None, clips=0),
)
"""The cheapest first: a scan takes the first, as long as none is measured."""
LEAST_DIFFERENCE = 1e-5
"""Of embeddings of length 1: below it a network takes all names for the same."""
THRESHOLD_PROB = 0.5
"""A level is claimed when its place is likelier than all others together; not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a network comes from, for the record; no path of this machine."""

    name: str
    """Hub id, or the name of the folder."""
    revision: str | None = None
    licence: str = NOT_STATED
    accuracy: str | None = None
    """Published, with whose measurement it is."""


def export_zero_shot(
    folder: Path,
    places: PlaceList,
    out: Path,
    *,
    source: Source | None = None,
    name: str | None = None,
    frames: int = FRAMES,
    resize: Resize | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Make a bundle from a network's folder and a list of places.

    Args:
        folder: configuration, weights, tokenizer and preprocessor as the hub has them.
        places: the classes.
        out: the bundle's folder.
        source: where the network comes from; None: the folder, with the licence of its card.
        name: of the bundle; None takes the name of `out`.
        frames: of a clip, 1 or more.
        resize: how pictures are fitted; None: as the network's own preprocessor does.
        overwrite: replace a bundle at `out`; a folder that is not a bundle is never replaced.
        tell: is told how far it is, in words.

    Raises:
        ExportError: the folder is no such network, `out` exists, or a runtime disagrees with torch.
        BundleError: the list of places is no tree.
        OutputError: the bundle cannot be written.
    """
    if frames < 1:
        raise ExportError(f"exporting with --frames {frames}: at least 1 is needed.")
    out = out.absolute()
    check_target(out, overwrite=overwrite)
    hierarchy = build_hierarchy(places.rows, source=places.source)
    checkpoint = read_checkpoint(folder)
    if resize is not None:
        checkpoint = replace(checkpoint, picture=replace(checkpoint.picture, resize=resize))
    source = source or Source(name=folder.resolve().name, licence=card_licence(folder))
    prompts = read_prompts().affordable(hierarchy.size("city"))
    texts = embed_heads(checkpoint, hierarchy, prompts, tell)
    tell("checking the graph with ONNX Runtime and OpenVINO")
    allowed = PARITY * max(1.0, checkpoint.logit_scale / 10)
    with bundle_aside(out, doing=f"exporting {source.name}") as aside:
        graph = build_zero_shot_graph(checkpoint, texts, frames=frames)
        write_graph(graph, aside / "model.onnx", data=WEIGHTS)
        places_csv = places_text(places.rows)
        (aside / "places.csv").write_text(places_csv, encoding="utf-8", newline="\n")
        manifest = _manifest(name or out.name, checkpoint, hierarchy, source, frames)
        facts = _facts(checkpoint, source, prompts, places, places_csv, frames)
        _write_manifest(aside, replace(manifest, zero_shot=facts))
        bundle = read_bundle(aside)
        parity = check_parity(
            lambda clips: score_clips(checkpoint, texts, clips), bundle, allowed=allowed
        )
    return ExportReport(
        path=out,
        label=bundle.label,
        files=bundle.manifest.files,
        parity=parity,
        allowed=allowed,
        notes=(
            f"zero-shot over {hierarchy.size('city')} cities, {hierarchy.size('state')} states, "
            f"{hierarchy.size('country')} countries ({places.source}); accuracy not measured",
            f"licence of the weights: {source.licence}",
        ),
    )


def embed_heads(
    checkpoint: Checkpoint,
    hierarchy: Hierarchy,
    prompts: Prompts,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Floats]:
    """Mean text embeddings of every class of every head.  -> [K, E] each, of length 1."""
    names: dict[str, list[str]] = {level: place_names(hierarchy, level) for level in LEVELS}
    names["scene"] = [prompts.scenes[group] for group in SCENE_GROUPS]
    total = sum(len(set(words)) * len(prompts.templates[head]) for head, words in names.items())
    done = 0

    def count(texts: int) -> None:
        nonlocal done
        done += texts
        tell(f"embedding texts: {done} of {total}")

    found = {
        head: mean_embeddings(
            words,
            prompts.templates[head],
            lambda texts: embed_texts(checkpoint, texts),
            count,
        )
        for head, words in names.items()
    }
    for head, words in names.items():
        if len(set(words)) > 1 and float(np.ptp(found[head], axis=0).max()) < LEAST_DIFFERENCE:
            raise ExportError(
                f"embedding the texts of {head}: {len(words)} different names have one embedding. "
                "The tokenizer does not belong to this network, or is damaged; take the whole "
                "folder again."
            )
    return found


def score_clips(
    checkpoint: Checkpoint, texts: Mapping[str, Floats], clips_NTHWC: NDArray[np.uint8]
) -> dict[str, Floats]:
    """What the graph computes, by the network's own code.  uint8 [N, T, H, W, 3] -> [N, K] each."""
    shape = clips_NTHWC.shape
    pictures = embed_pictures(checkpoint, clips_NTHWC.reshape(-1, *shape[2:])).numpy()
    scores = {}
    for head in HEADS:
        logits = checkpoint.logit_scale * pictures @ texts[head].T + checkpoint.logit_bias
        logs = log_softmax(logits).reshape(*shape[:2], -1).mean(axis=1)
        scores[head] = np.asarray(logs, dtype=np.float32)
    return scores


def _facts(
    checkpoint: Checkpoint,
    source: Source,
    prompts: Prompts,
    places: PlaceList,
    places_csv: str,
    frames: int,
) -> dict[str, Any]:
    return {
        "family": checkpoint.family,
        "source": source.name,
        "revision": source.revision,
        "weights": checkpoint.weights,
        "prompts": {head: list(texts) for head, texts in prompts.templates.items()},
        "prompts_sha256": prompts.digest,
        "lower_case": checkpoint.is_lower_case,
        "places": {
            "source": places.source,
            "sha256": sha256(places_csv.encode("utf-8")).hexdigest(),
        },
        "frames": frames,
        "logit_scale": round(checkpoint.logit_scale, 6),
        "logit_bias": round(checkpoint.logit_bias, 6),
        "accuracy": source.accuracy,
    }


def _manifest(
    name: str, checkpoint: Checkpoint, hierarchy: Hierarchy, source: Source, frames: int
) -> Manifest:
    picture = checkpoint.picture
    sizes: dict[str, int] = {level: hierarchy.size(level) for level in LEVELS}
    width = int(
        checkpoint.model.config.projection_dim
        if checkpoint.family == "clip"
        else checkpoint.model.config.vision_config.hidden_size
    )
    plain: dict[str, LevelCalibration] = {
        level: LevelCalibration(temperature=1.0, threshold_prob=THRESHOLD_PROB) for level in LEVELS
    }
    return Manifest(
        name=name,
        description=f"{source.name}, zero-shot, {frames} frames of {picture.size_px} px, "
        f"{sizes['city']} cities",
        domain="road",
        input=InputSpec(
            frames=frames,
            height_px=picture.size_px,
            width_px=picture.size_px,
            resize=picture.resize,
        ),
        outputs={**sizes, "scene": len(SCENE_GROUPS), "feature": width},
        scenes=SCENE_GROUPS,
        sampling=SamplingSpec(
            min_span_s=0.0, max_span_s=60.0, max_keyframe_gap_s=10.0, clips=3, policies=POLICIES
        ),
        calibration={mode: dict(plain) for mode in get_args(DecodingMode)},
        files={},
        training={},
        licence=source.licence,
    )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    card = zero_shot_card(manifest, manifest.licence)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8", newline="\n")
    files = {
        "MODEL_CARD.md": describe_file(folder / "MODEL_CARD.md"),
        "model.onnx": describe_file(folder / "model.onnx", precision="fp32"),
        WEIGHTS: describe_file(folder / WEIGHTS, precision="fp32"),
        "places.csv": describe_file(folder / "places.csv"),
    }
    write_manifest(folder, replace(manifest, files=files))
