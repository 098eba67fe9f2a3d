"""One training step, and all that it changes.

Shape suffixes: N clips, P patches, K classes, C cities.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

from engines.bundle import LEVELS
from train.errors import TrainError
from train.haversine import city_centres, near_shares, spread
from train.losses import NO_SCENE, Targets, loss_sums
from train.models.base import FeatureModel
from train.models.videomae import random_tokens
from train.optim import RunningMean, learning_rate, make_optimiser, set_learning_rate
from train.resume import load_optimiser, optimiser_tensors
from train.stills import draw_stills, take_stills
from train.warmstart import StandardisedHeads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy
    from train.config import TrainConfig
    from train.data.loading import Batch
    from train.models.base import GeoModel
    from train.processes import World


class Learner:
    """A model with its optimiser, its running mean and what has been measured since last asked."""

    def __init__(
        self,
        model: GeoModel,
        config: TrainConfig,
        world: World,
        *,
        hierarchy: Hierarchy,
        steps: int,
        texts_KE: NDArray[np.float32] | None = None,
        compiled: bool = False,
    ) -> None:
        """Put everything in its place.

        Args:
            model: with the weights to begin from.
            config: the recipe.
            world: this process.
            hierarchy: gives the coarser labels of a city.
            steps: of the whole run.
            texts_KE: embedding of every city's names, for a model with a text head.
            compiled: translate the network for the GPU (torch.compile).
        """
        self.model, self.config, self.world, self.steps = model, config, world, steps
        model.to(world.device).train()
        self.module: nn.Module = model
        if config.model.warm_start and isinstance(model, FeatureModel):
            self.module = StandardisedHeads(model).train()
        network: nn.Module = torch.compile(self.module) if compiled else self.module  # type: ignore[assignment]
        self.network = DistributedDataParallel(network) if world.size > 1 else network
        self.optimiser = make_optimiser(model, config.optimiser, fused=world.is_gpu)
        decay = config.optimiser.ema_decay
        self.mean = RunningMean(model, decay) if decay else None
        self.ancestors = {
            level: torch.from_numpy(hierarchy.ancestors[level]).to(world.device) for level in LEVELS
        }
        self.texts_KE = None if texts_KE is None else torch.from_numpy(texts_KE).to(world.device)
        self.counts = {level: hierarchy.size(level) for level in LEVELS}
        self.centres_C2: Tensor | None = None
        if config.loss.haversine_km:
            self.centres_C2 = city_centres(hierarchy).to(world.device)
        self.terms = ["geo"]
        self.terms += ["scene"] if config.loss.scene_weight else []
        self.terms += ["text"] if config.loss.text_weight else []
        self.terms += model.extra_terms
        self.has_scenes = False
        self._forget()

    def step(self, batch: Batch, step: int) -> None:
        """Learn from this process's share of a batch.

        Raises:
            TrainError: no clip of the batch could be read by any process.
        """
        lr = learning_rate(step, self.steps, self.config.optimiser)
        set_learning_rate(self.optimiser, lr)
        self.optimiser.zero_grad(set_to_none=True)
        is_soft = self.config.loss.scene_target == "soft"
        known = (batch.scene_NS.sum(1) > 0 if is_soft else batch.scene_N != NO_SCENE).sum()
        counts = torch.tensor([len(batch), int(known)], dtype=torch.float64)
        if self.world.size > 1:  # one process alone need not wait for its GPU
            counts = self.world.sum(counts.to(self.world.device))
        clips, scenes = counts.tolist()
        if not clips:
            names = ", ".join(bad.reason for bad in batch.bad[:3])
            raise TrainError(f"step {step}: none of its clips could be read ({names}).")
        self.has_scenes |= scenes > 0
        pieces = list(self._pieces(batch, step))
        for number, (piece, kept_NP) in enumerate(pieces):
            is_last = number == len(pieces) - 1
            with contextlib.nullcontext() if is_last else self._without_exchange():
                self._backward(piece, kept_NP, clips=clips, scenes=max(1.0, scenes))
        limit = self.config.optimiser.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimiser.step()
        if self.mean is not None:
            self.mean.update(self.model, step)
        self.measured["grad_norm"] += norm.detach() / self.world.size
        self.measured["clips"] += len(batch)
        self.measured["steps"] += 1 / self.world.size

    def report(self, step: int, *, can_go_on: bool = False) -> dict[str, float]:
        """Means over the steps since the last report, over all processes, and the learning rate.

        Args:
            step: how many are done.
            can_go_on: whether a state was kept that a person may go on from.

        Raises:
            TrainError: the loss is no longer a number, or no clip had a scene to learn.
        """
        if self.config.loss.scene_weight and not self.has_scenes:
            raise TrainError(
                "learning scenes: none of the first clips says which scene it shows. Label them "
                "with python -m train.scenes, which writes scenes.safetensors into the dataset's "
                "folder, or choose a preset without scenes, such as classifiers or text-only."
            )
        sums = self.world.sum(torch.stack(list(self.measured.values()))).tolist()
        found = dict(zip(self.measured, sums, strict=True))
        self._forget()
        clips, steps = found.pop("clips"), found.pop("steps")
        record = {
            "step": float(step),
            "loss": math.fsum(found[f"{term}_loss"] for term in self.terms) / steps,
            "lr": learning_rate(step, self.steps, self.config.optimiser),
            **{name: total / (clips if name in LEVELS else steps) for name, total in found.items()},
        }
        if not all(math.isfinite(value) for value in record.values()):
            kept = ", or go on from the last state that was kept with --resume," * can_go_on
            raise TrainError(
                f"the loss is no longer a number at step {step} ({record['loss']}): begin again"
                f"{kept} with a lower --lr (now {self.config.optimiser.lr:g})."
            )
        return record

    def tensors(self) -> dict[str, Tensor]:
        """All that training has changed."""
        parts = {"module": self.module.state_dict(), "optimiser": optimiser_tensors(self.optimiser)}
        if self.mean is not None:
            parts["mean"] = self.mean.weights
        return {
            f"{part}/{name}": value for part, held in parts.items() for name, value in held.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` took out.

        Raises:
            TrainError: they belong to another network.
        """
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimiser": {}, "mean": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        try:
            self.module.load_state_dict(parts["module"])
            load_optimiser(self.optimiser, parts["optimiser"])
            if self.mean is not None:
                self.mean.load(parts["mean"])
        except (RuntimeError, ValueError, KeyError) as exc:
            raise TrainError(
                f"going on with a run: its state is of another network ({exc})"
            ) from exc

    @contextlib.contextmanager
    def best_weights(self) -> Iterator[GeoModel]:
        """The model as it would be kept now: its running mean, if any, in evaluation mode."""
        before = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        try:
            with torch.no_grad():
                if self.mean is not None:
                    self.mean.copy_to(self.model)
                if isinstance(self.module, StandardisedHeads):
                    self.module.fold_into(self.module.model)
            yield self.model.eval()
        finally:
            self.model.load_state_dict(before)
            self.module.train()

    def _pieces(self, batch: Batch, step: int) -> Iterator[tuple[Batch, Tensor | None]]:
        """A batch in as many pieces as the recipe says, each with the tokens it is seen through."""
        model, size = self.config.model, self.config.batch
        is_early = step < (1 - model.last_share) * self.steps
        share = model.keep_tokens if is_early else model.last_keep_tokens
        kept_NP = None
        if share < 1:
            # Drawn for the clips of all processes: how many there are changes nothing.
            generator = torch.Generator().manual_seed(self.config.seed * 2**31 + step)
            kept_NP = random_tokens(size, self.model.tokens, share, generator)
            kept_NP = kept_NP[self.world.rank :: self.world.size]
        if model.still != "none":
            generator = torch.Generator().manual_seed(self.config.seed * 2**31 + step)
            chosen_N = draw_stills(size, batch.clip_NTHWC.shape[1], model.still, generator)
            chosen_N = chosen_N[self.world.rank :: self.world.size][: len(batch)]
            batch = replace(batch, clip_NTHWC=take_stills(batch.clip_NTHWC, chosen_N))
        rows = torch.arange(len(batch)).tensor_split(self.config.accumulate)
        for chosen in rows:
            piece = batch.take(chosen.tolist()).to(self.world.device)
            kept = None if kept_NP is None else kept_NP[chosen].to(self.world.device)
            yield piece, kept

    def _backward(
        self, piece: Batch, kept_NP: Tensor | None, *, clips: float, scenes: float
    ) -> None:
        """Gradients of one piece, as its part of the mean over the clips of all processes."""
        if not len(piece):  # every process takes part in every exchange
            self._backward_nothing()
            return
        device = self.world.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.world.is_gpu):
            seen = (piece.clip_NTHWC,) if kept_NP is None else (piece.clip_NTHWC, kept_NP)
            outputs = self.network(*seen)
        outputs = {name: value.float() for name, value in outputs.items()}
        targets = self._targets(piece)
        outputs = dict(self.model.taught(outputs, targets))
        sums = loss_sums(outputs, targets, self.config.loss)
        sums |= self.model.extra_losses(outputs, targets)
        terms = {
            name: value / (scenes if name == "scene" else clips) for name, value in sums.items()
        }
        # DistributedDataParallel averages over processes; what is wanted is the sum.
        (torch.stack(list(terms.values())).sum() * self.world.size).backward()
        for name, value in terms.items():
            self.measured[f"{name}_loss"] += value.detach()
        for level in LEVELS:
            self.measured[level] += (outputs[level].argmax(1) == targets.labels[level]).sum()

    def _backward_nothing(self) -> None:
        """Take part in an exchange without a clip, and learn nothing, usual pictures included."""
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        shape = (1, *self.model.clip_shape)
        outputs = self.network(torch.zeros(shape, dtype=torch.uint8, device=self.world.device))
        (0 * torch.stack([value.sum() for value in outputs.values()]).sum()).backward()
        self.module.train()

    def _targets(self, piece: Batch) -> Targets:
        labels: dict[Level, Tensor] = {
            level: self.ancestors[level][piece.city_N] for level in LEVELS
        }
        text_NE = None if self.texts_KE is None else self.texts_KE[piece.city_N]
        shares = None
        if self.centres_C2 is not None:
            tau_km = self.config.loss.haversine_km
            near_NC = near_shares(piece.city_N, piece.point_N2, self.centres_C2, tau_km)
            shares = spread(near_NC.float(), self.ancestors, self.counts)
        return Targets(
            labels=labels,
            scene_NS=piece.scene_NS,
            scene_N=piece.scene_N,
            text_NE=text_NE,
            shares=shares,
        )

    def _forget(self) -> None:
        names = ("clips", "steps", *(f"{term}_loss" for term in self.terms), "grad_norm", *LEVELS)
        self.measured = {
            name: torch.zeros((), dtype=torch.float64, device=self.world.device) for name in names
        }

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        network = self.network
        if isinstance(network, DistributedDataParallel):
            exchange: contextlib.AbstractContextManager[None] = network.no_sync()
            return exchange
        return contextlib.nullcontext()
