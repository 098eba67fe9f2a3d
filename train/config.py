"""What a training run is made of: a preset from `train/presets/`, changed by flags."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRange:
    """The clips that training draws."""

    min_span_s: float
    max_span_s: float
    max_keyframe_gap_s: float
    clips: int
    """Clips per video that the exported bundle asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedPolicy:
    """A way of sampling that evaluation measures."""

    policy: Literal["dense", "exact", "keyframe"]
    span_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of a run."""

    preset: str
    size: Literal["tiny", "small", "base"]
    data: Literal["rendered"]
    seed: int
    steps: int
    batch: int
    views: int
    """How often a clip is shown."""
    lr: float
    min_lr_share: float
    warmup_share: float
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    label_smoothing: float
    scene_weight: float
    keep_tokens: float
    """Share of a clip's tokens that a step sees ..."""
    last_keep_tokens: float
    """... and in the last steps."""
    last_share: float
    """How many steps are the last, as a share of all."""
    val_clips: int
    test_clips: int
    sampling: SamplingRange
    policies: tuple[EvaluatedPolicy, ...]

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.steps < 1 or self.batch < 1 or self.lr <= 0:
            raise ValueError(
                f"steps {self.steps}, batch {self.batch} and lr {self.lr} must be positive"
            )
        if self.views < 1:
            raise ValueError(f"views {self.views} must be at least 1")
        for name in ("keep_tokens", "last_keep_tokens"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie in (0, 1]")


def preset_names() -> tuple[str, ...]:
    """Presets that ship with the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load_preset(name: str, **changes: float | None) -> TrainConfig:
    """Read a preset and apply the flags that were given (those that are not None).

    Raises:
        ValueError: an unknown preset or key; the text lists what there is.
    """
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"there is no preset {name!r}; there are: {', '.join(preset_names())}")
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(TrainConfig)}
    if unknown := sorted(set(record) - known):
        raise ValueError(f"{path}: unknown keys {unknown}; known are {sorted(known)}")
    record["betas"] = tuple(record["betas"])
    record["sampling"] = SamplingRange(**record["sampling"])
    record["policies"] = tuple(EvaluatedPolicy(**entry) for entry in record["policies"])
    config = TrainConfig(preset=name, **record)
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    return replace(config, **given)
