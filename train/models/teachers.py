"""What helps the classifiers to learn: Self-Cross Attention, the scene head and the text head.

All three read the scores of the four classifiers only. The text head is never exported; attention
and scene head are, because the scene of a clip is one of the answers.

Shape suffixes: N clips, K classes of all four levels together, E width of a text embedding, S scene
groups.

Source: CityGuessr (ECCV 2024) and its released code, as far as they can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS, Level

SceneHead = Literal["none", "linear", "attention", "own"]
"""none: the model says nothing of scenes; linear: one classifier beside the four; attention: as in
the paper, on what Self-Cross Attention makes of the four; own: what a kind of network brings."""
AttentionInput = Literal["logits", "probs"]
Classifier = Literal["linear", "cosine"]
"""linear: a weight and a bias for each place; cosine: see `train.models.labels`."""
HierarchyForm = Literal["separate", "marginal"]
"""separate: each level has classifiers of its own; marginal: cities have, and coarser levels are
sums over them, see `train.models.nested`."""

LIFTED = 6
"""Width that each score is lifted to; the released code's value."""
ATTENTION_HEADS = 2
SCENE_WIDTHS = (256, 128, 64, 32, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """Which teachers a model has, and what kind of classifiers they listen to."""

    scene: SceneHead = "attention"
    text_width: int = 0
    """E, of the table of texts that it is aligned with; 0 for no text head."""
    attention_input: AttentionInput = "logits"
    """The paper does not say; the released code takes logits."""
    classifier: Classifier = "linear"
    label_width: int = 0
    """E, of what a place begins as, for the cosine classifier; 0 for the linear one."""
    hierarchy: HierarchyForm = "separate"

    def __post_init__(self) -> None:
        """Refuse what would be taken for something else: weights fit either attention input."""
        if self.scene not in get_args(SceneHead) or self.text_width < 0:
            raise ValueError(
                f"teachers with scene {self.scene!r} and text_width {self.text_width}: scene is "
                f"one of {', '.join(get_args(SceneHead))}, text_width 0 or more."
            )
        if self.attention_input not in get_args(AttentionInput):
            raise ValueError(
                f"teachers with attention_input {self.attention_input!r}: it is one of "
                f"{', '.join(get_args(AttentionInput))}."
            )
        is_cosine = self.classifier == "cosine"
        if self.classifier not in get_args(Classifier) or (self.label_width > 0) != is_cosine:
            raise ValueError(
                f"classifiers {self.classifier!r} with label_width {self.label_width}: linear has "
                "0, cosine the width of the embeddings that places begin as."
            )
        if self.hierarchy not in get_args(HierarchyForm):
            raise ValueError(
                f"classifiers with hierarchy {self.hierarchy!r}: it is one of "
                f"{', '.join(get_args(HierarchyForm))}."
            )

    @property
    def own_levels(self) -> tuple[Level, ...]:
        """Levels that have a classifier."""
        return LEVELS if self.hierarchy == "separate" else LEVELS[:1]

    @property
    def has_attention(self) -> bool:
        """Whether anything reads attended scores."""
        return self.scene == "attention" or self.text_width > 0


PLAIN = TeacherConfig(scene="linear")
"""Five linear classifiers and no teachers."""
OWN = TeacherConfig(scene="own")
"""A network that brings a scene head of its own."""


class SelfCrossAttention(nn.Module):
    """Attention among the scores of all classes of all levels; 211 parameters.

    Each score is a token of one number. Three maps lift it to 6 numbers, two heads of 3 attend with
    projections of their own, and one map brings each token back to one number. There is no
    residual, no norm and no position, so that the classes are told apart only by what follows.
    """

    def __init__(self) -> None:
        """Build with the random weights that torch gives its own layers, as the released code."""
        super().__init__()
        self.query = nn.Linear(1, LIFTED)
        self.key = nn.Linear(1, LIFTED)
        self.value = nn.Linear(1, LIFTED)
        self.attention = nn.MultiheadAttention(LIFTED, ATTENTION_HEADS, batch_first=True)
        self.back = nn.Linear(LIFTED, 1)

    def forward(self, scores_NK: Tensor) -> Tensor:
        """Attended scores.  [N, K] -> [N, K]."""
        tokens_NK1 = scores_NK[..., None]
        mixed_NKD, _ = self.attention(
            self.query(tokens_NK1), self.key(tokens_NK1), self.value(tokens_NK1), need_weights=False
        )
        attended_NK: Tensor = self.back(mixed_NKD)[..., 0]
        return attended_NK


class Teachers(nn.Module):
    """Attention and the heads on top of it, as far as a model has them."""

    def __init__(self, config: TeacherConfig, *, classes: int, scenes: int) -> None:
        """Build with random weights.

        Args:
            config: which there are.
            classes: K, of the four levels together.
            scenes: S.
        """
        super().__init__()
        self.config = config
        if config.has_attention:
            self.attention = SelfCrossAttention()
        if config.scene == "attention":
            self.scene = feed_forward((classes, *SCENE_WIDTHS, scenes))
        if config.text_width:
            # 420 -> 466 -> 512 in the released code: the hidden layer lies half way.
            middle = (classes + config.text_width) // 2
            self.text = feed_forward((classes, middle, config.text_width))

    def forward(self, logits: Sequence[Tensor], *, text: bool = True) -> dict[str, Tensor]:
        """What there is of `scene` (logits [N, S]) and `text` (embeddings [N, E]).

        Args:
            logits: [N, K] of city, state, country and continent, in this order.
            text: whether the text head is wanted.
        """
        if not self.config.has_attention or not (text or self.config.scene == "attention"):
            return {}
        if self.config.attention_input == "probs":
            logits = [level_NK.softmax(dim=1) for level_NK in logits]
        attended_NK = self.attention(torch.cat(list(logits), dim=1))
        found = {}
        if self.config.scene == "attention":
            found["scene"] = self.scene(attended_NK)
        if self.config.text_width and text:
            found["text"] = self.text(attended_NK)
        return found


def feed_forward(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths, ReLU after each but the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
