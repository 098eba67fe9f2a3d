"""A trained checkpoint or an exported bundle, as the one thing evaluation needs: clips to scores.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K classes of an output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args

import torch

from engines.bundle import LEVELS, MANIFEST, Bundle, Precision, Resize, read_bundle
from engines.choose import usable_cores
from engines.openvino_cpu import OpenvinoEngine
from geotag.places.hierarchy import Hierarchy, read_hierarchy
from train.checkpoint import FACTS, PLACES, load_checkpoint
from train.data.world import SCENE_GROUPS
from train.errors import TrainError
from train.models.heads import HEADS
from train.models.kinds import sized_shape
from train.stills import Still, Stills

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from train.models.base import GeoModel
    from train.stills import Looks


class Scorer(Protocol):
    """What evaluation asks of a model."""

    @property
    def label(self) -> str:
        """What tables and records call it; no path."""

    @property
    def hierarchy(self) -> Hierarchy:
        """The class tree that its scores follow."""

    @property
    def clip_shape(self) -> tuple[int, int, Resize]:
        """Frames of a clip, side of the square picture in pixels, and how a picture is fitted."""

    @property
    def nests(self) -> bool:
        """Whether the scores of coarser levels are sums over those of cities."""

    def score(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Logits of every level, [N, K], and of `scene` where the model has the scene groups."""

    def take_routing(self) -> dict[str, Any]:
        """How much was used of several parts since it was last asked; empty for most models."""


class Routes:
    """How much the clips that were scored used of several parts of a network."""

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Begin with no clip.

        Args:
            names: of the routes of each division.
        """
        self._names = names
        self.forget()

    def add(self, found: Mapping[str, torch.Tensor]) -> None:
        """Count some clips.  [N, R] each, rows of sum 1."""
        for division, shares_NR in found.items():
            routes = shares_NR.shape[1]
            self._shares[division] = self._shares.get(division, 0) + shares_NR.double().sum(0)
            chosen = torch.bincount(shares_NR.argmax(1), minlength=routes)
            self._chosen[division] = self._chosen.get(division, 0) + chosen
            self._clips[division] = self._clips.get(division, 0) + len(shares_NR)

    def record(self) -> dict[str, Any]:
        """For JSON: of each route its mean share, and how often it had the largest."""
        return {
            division: {
                "clips": clips,
                "routes": {
                    name: {
                        "mean_share": float(self._shares[division][number]) / clips,
                        "largest": float(self._chosen[division][number]) / clips,
                    }
                    for number, name in enumerate(self._names[division])
                },
            }
            for division, clips in self._clips.items()
        }

    def forget(self) -> None:
        """Begin again."""
        self._shares: dict[str, Any] = {}
        self._chosen: dict[str, Any] = {}
        self._clips: dict[str, int] = {}


class CheckpointScorer:
    """A network in torch, on whatever device its weights are on."""

    def __init__(
        self,
        model: GeoModel,
        hierarchy: Hierarchy,
        *,
        label: str,
        resize: Resize = "squash",
        still: Looks | None = None,
        frames: int | None = None,
    ) -> None:
        """Wrap a network; it is put into evaluation mode.

        Args:
            model: the network.
            hierarchy: the class tree of its scores.
            label: what records call it.
            resize: how a picture is fitted.
            still: for a network of single pictures: which frame of a clip it is shown.
            frames: of the clips that the frame is chosen from; None for as many as it takes.

        Raises:
            TrainError: the tree has other numbers of classes than the network.
        """
        found = {level: hierarchy.size(level) for level in LEVELS}
        wanted = {level: model.classes[level] for level in LEVELS}
        if found != wanted:
            raise TrainError(
                f"evaluating {label}: its network has the classes {wanted}, the class tree "
                f"{found}. The two do not belong together."
            )
        self._model = model.eval()
        self.hierarchy, self.nests = hierarchy, model.nests
        self.label = label
        frames_seen, image_px = model.clip_shape[:2]
        self._still = still
        self._stills = None if still is None or still == "every" else Stills(still)
        self._routes = Routes(model.route_names())
        self.clip_shape: tuple[int, int, Resize] = (
            frames or frames_seen,
            image_px,
            resize,
        )

    def score(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Logits of every head that was trained; the feature is left out."""
        clips = torch.from_numpy(clips_NTHWC)
        count, frames = clips.shape[:2]
        if self._still == "every":
            found = self._score(clips.flatten(0, 1)[:, None])
            return {
                name: values.log_softmax(1).unflatten(0, (count, frames)).mean(1).numpy()
                for name, values in found.items()
            }
        if self._stills is not None:
            clips = self._stills.of(clips)
        return {name: values.numpy() for name, values in self._score(clips).items()}

    def take_routing(self) -> dict[str, Any]:
        """How much was used of several parts since it was last asked; empty for most models."""
        found = self._routes.record()
        self._routes.forget()
        return found

    def _score(self, clips_NTHWC: torch.Tensor) -> dict[str, torch.Tensor]:
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            outputs = self._model(clips_NTHWC.to(device))
        self._routes.add(
            {name: shares.float().cpu() for name, shares in self._model.routing(outputs).items()}
        )
        return {name: values.float().cpu() for name, values in outputs.items() if name in HEADS}


class BundleScorer:
    """A bundle's network, run by OpenVINO as a scan on a CPU runs it."""

    def __init__(self, bundle: Bundle, *, threads: int, precision: Precision = "fp32") -> None:
        """Compile a verified bundle.

        Args:
            bundle: the model folder.
            threads: processor cores for one inference.
            precision: one of `bundle.precisions`.

        Raises:
            EngineError: OpenVINO is missing, or cannot run the model.
            TrainError: its clips are not square, which no view of a data set is.
        """
        self.bundle = bundle
        self.label = bundle.label if precision == "fp32" else f"{bundle.label} {precision}"
        self.hierarchy = read_hierarchy(bundle.file(PLACES))
        manifest = bundle.manifest
        self.nests = manifest.training.get("model_hierarchy") == "marginal"
        wanted = manifest.input
        if wanted.height_px != wanted.width_px:
            raise TrainError(
                f"evaluating {bundle.label}: it takes clips of {wanted.width_px}x"
                f"{wanted.height_px} px; data sets give square ones. Export it with a square input."
            )
        still = manifest.training.get("model_still", "none")
        is_still = wanted.frames == 1 and still != "none" and still in get_args(Still)
        self._stills = Stills(cast("Still", still)) if is_still else None
        self.clip_shape: tuple[int, int, Resize] = (
            int(manifest.training.get("still_frames") or 1) if is_still else wanted.frames,
            wanted.height_px,
            wanted.resize,
        )
        self._engine = OpenvinoEngine(bundle, threads=threads, precision=precision)

    def score(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Logits of every level; of the scene where its groups are those of the data sets."""
        if self._stills is not None:
            clips_NTHWC = self._stills.of(torch.from_numpy(clips_NTHWC)).numpy()
        outputs = self._engine.infer(clips_NTHWC)
        wanted = HEADS if self.bundle.manifest.scenes == SCENE_GROUPS else LEVELS
        return {name: outputs[name] for name in wanted}

    def take_routing(self) -> dict[str, Any]:
        """Nothing: a graph answers with scores alone."""
        return {}


def seen_stills(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a scorer is told of the frames that a network is shown, by its recipe.

    Args:
        model: fields of `train.config.ModelConfig`.
    """
    if model.get("still", "none") == "none":
        return {}
    kind, options = model.get("kind", "videomae"), model.get("options", {})
    shape = sized_shape(kind, model["size"], options)
    return {"still": model["still"], "frames": shape.frames}


def open_model(
    folder: Path, device: torch.device | None = None, precision: Precision | None = None
) -> tuple[CheckpointScorer, dict[str, Any]] | BundleScorer:
    """Open whatever model a folder holds: a run folder, with its `checkpoint.json`, or a bundle.

    Args:
        folder: of the model.
        device: where the network of a run goes; None for the CPU.
        precision: of a bundle; None for fp32.

    Raises:
        TrainError: it holds neither, or a precision is asked of a run.
        CheckpointError, EngineError: it holds one that cannot be used.
    """
    if (folder / MANIFEST).is_file():
        return BundleScorer(
            read_bundle(folder), threads=usable_cores(), precision=precision or "fp32"
        )
    if precision is not None:
        raise TrainError(
            f"opening the model {folder} in {precision}: only a bundle has several precisions. "
            "Export it with geotag export --precision int8."
        )
    if (folder / FACTS).is_file():
        model, record = load_checkpoint(folder)
        facts = record["training"]
        scorer = CheckpointScorer(
            model if device is None else model.to(device),
            read_hierarchy(folder / PLACES),
            label=folder.resolve().name,
            resize=facts.get("input", {}).get("resize", "squash"),
            **seen_stills(facts.get("model", {})),
        )
        return scorer, record
    raise TrainError(
        f"opening the model {folder}: it holds neither {FACTS} (a run folder, which python -m "
        f"train.fit writes) nor {MANIFEST} (a bundle, which geotag export writes)."
    )
