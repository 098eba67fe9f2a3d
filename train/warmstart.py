"""Three things that let a narrow network learn from nothing in minutes, and leave no trace after.

A transformer that starts with the usual small weights is close to linear for its first thousands of
steps, and its mean token differs from clip to clip by a few percent only. None of this changes
the network that is exported; what each of the three brought is in docs/LOG.md.

Shape suffixes: N clips, P patches, V values of a tubelet, D width, K components: as many as the
smaller of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

if TYPE_CHECKING:
    from train.models.base import FeatureModel, GeoModel

MOMENTUM = 0.05
"""Of the running mean and variance of features."""
EPSILON = 1e-5
KEPT_COMPONENT = 10
"""The strongest components start with equal weight; those weaker than this one fade out. The last
one where there are fewer."""


def warm_start(model: GeoModel, clips_NTHWC: Tensor) -> None:
    """Wide weights, and principal components as the patch embedding; see `Kind.warm_start`."""
    encoder: Any = model.encoder
    widen_weights(encoder)
    start_from_components(model, clips_NTHWC)


def widen_weights(encoder: nn.Module) -> None:
    """Draw every matrix of the blocks anew with a standard deviation of 1 / sqrt(fan-in).

    The customary 0.02 suits a width of 768 and more; at 160 it leaves GELU in its linear middle.
    Source: LeCun et al., Efficient BackProp, 1998, section 4.6.
    """
    for parameter in encoder.get_submodule("blocks").parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


def start_from_components(model: GeoModel, clips_NTHWC: Tensor) -> None:
    """Let the patch embedding begin as the principal components of real tubelets.

    Colours of neighbouring pixels are so alike that a random embedding shows little more than
    brightness. Components are scaled to even strength as far as they are strong, turned at
    random so that every coordinate carries a mixture, and doubled to stand out from the positions.

    Args:
        model: its `encoder` has `tubelets`, which cuts clips, and `patch`, which is set.
        clips_NTHWC: uint8 clips to take the components from; some fifty are enough.
    """
    encoder: Any = model.encoder
    with torch.no_grad():
        tubelets_XV = model.normalise(encoder.tubelets(clips_NTHWC)).flatten(0, 1)
        mean_V = tubelets_XV.mean(dim=0)
        centred_XV = tubelets_XV - mean_V
        strengths, directions = torch.linalg.eigh(centred_XV.T @ centred_XV / len(centred_XV))
        width, count = encoder.config.width, min(encoder.config.width, len(strengths))
        strengths_K = strengths.flip(0)[:count].clamp_min(0)
        directions_VK = directions.flip(1)[:, :count]
        floor = strengths_K[min(KEPT_COMPONENT, count - 1)]
        scaled_VK = directions_VK / torch.sqrt(strengths_K + floor)
        turn_DK = torch.linalg.qr(torch.randn(width, count)).Q
        weight_DV = 2 * turn_DK @ scaled_VK.T
        encoder.patch.weight.copy_(weight_DV)
        encoder.patch.bias.copy_(-weight_DV @ mean_V)


class Standardised(nn.Module):
    """Features of mean 0 and variance 1: of the batch while it trains, of the running ones after.

    Source: batch normalisation without affine part before a linear classifier, as in the linear
    probes of MAE (He et al., CVPR 2022, appendix A.1). Mean and variance are those of the clips of
    all processes together.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, device: torch.device | None = None) -> None:
        """Begin with mean 0 and variance 1.

        Args:
            width: D.
            device: of the two.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(width, device=device))
        self.register_buffer("variance", torch.ones(width, device=device))

    def standardise(self, feature_ND: Tensor) -> Tensor:
        """Standardise features, and learn from them what is usual.  [N, D] -> [N, D]."""
        mean_D, variance_D = self.mean, self.variance
        if self.training:
            mean_D, variance_D, count = _moments(feature_ND)
            with torch.no_grad():
                self.mean.lerp_(mean_D, MOMENTUM)
                # The running one is unbiased, the one in use is not, as in torch's BatchNorm.
                self.variance.lerp_(variance_D * count / (count - 1).clamp_min(1), MOMENTUM)
        return (feature_ND - mean_D) / torch.sqrt(variance_D + EPSILON)


class StandardisedHeads(Standardised):
    """A network whose heads see standardised features while it trains.

    `fold_into` puts the standardisation into the heads.
    """

    def __init__(self, model: FeatureModel) -> None:
        """Wrap a model; its parameters are those of the wrapper."""
        super().__init__(model.width, next(model.parameters()).device)
        self.model = model

    def forward(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of every head.  uint8 [N, T, H, W, 3] -> [N, K] each."""
        return self.model.answer(self.standardise(self.model.features(clip_NTHWC, kept_NP)))

    def fold_into(self, model: FeatureModel) -> None:
        """Write the standardisation into the heads: the bare model then scores the same."""
        deviation_D = torch.sqrt(self.variance + EPSILON)
        with torch.no_grad():
            for head in model.heads.values():
                assert isinstance(head, nn.Linear)
                head.weight.div_(deviation_D)
                head.bias.sub_(head.weight @ self.mean)
        if model.labels is not None:
            model.labels.unit.absorb(self.mean, deviation_D)


def _moments(feature_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [D], variance [D] and number of the features of all processes."""
    feature_ND = feature_ND.float()
    count = _over_all(torch.tensor(float(len(feature_ND)), device=feature_ND.device))
    mean_D = _over_all(feature_ND.sum(0)) / count
    return mean_D, _over_all((feature_ND - mean_D).square().sum(0)) / count, count


def _over_all(tensor: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow."""
    return all_reduce(tensor) if dist.is_initialized() else tensor
