"""What a training run is made of: a preset from `train/presets/`, changed by flags."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from engines.bundle import DecodingMode, Policy, Resize
from train.data.dataset import Augmentation, Picking, SamplingRange
from train.losses import LossConfig
from train.models.base import FeatureModel
from train.models.kinds import find_kind, shape_names, sized_shape
from train.models.teachers import AttentionInput, Classifier, HierarchyForm, SceneHead
from train.stills import Still

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parent / "presets"

TextTarget = Literal["none", "city", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedPolicy:
    """A way of sampling that evaluation measures."""

    policy: Policy
    span_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network."""

    kind: str = "videomae"
    """One of `train.models.kinds.KINDS`."""
    size: str
    """One of the kind's: `tiny`, `small` or `base` of VideoMAE."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """What else of the size's shape is changed, by the names of the kind's shape. In a preset they
    stand among the others."""
    scene: SceneHead = "attention"
    text: TextTarget = "none"
    """What it is aligned with: nothing, the city's name, or the mean of all four names."""
    classifier: Classifier = "linear"
    """cosine: places are directions that begin as their names; exported it is a matrix again."""
    coordinates: bool = False
    """Whether these directions begin as where the place lies, too."""
    hierarchy: HierarchyForm = "separate"
    """marginal: cities alone are classified, coarser levels are sums over their cities."""
    attention_input: AttentionInput = "logits"
    still: Still = "none"
    """The one frame of each clip that a model of single pictures sees."""
    num_heads: int | Literal["corrected", "config"] = "corrected"
    """Of the encoder's attention, where weights are loaded: 6 for 384 (corrected), or as their
    configuration says. The weights fit either way."""
    normalisation: Literal["imagenet", "half", "kinetics", "none"] = "imagenet"
    """half: mean and deviation 0.5, of Google's ViT. kinetics: mean 0.45 and deviation 0.225, which
    TimeSformer's makers name as theirs. none: pixels in [0, 1], as the released
    code trains."""
    warm_start: bool = False
    """Begin with wide weights, principal components and, where the heads read one feature,
    standardised heads: for a narrow network that learns from nothing in minutes."""
    keep_tokens: float = 1.0
    """Share of a clip's tokens that a step sees ..."""
    last_keep_tokens: float = 1.0
    """... and in the last steps."""
    last_share: float = 0.0
    """How many steps are the last, as a share of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserConfig:
    """How the weights move."""

    name: Literal["adamw", "adam"] = "adamw"
    lr: float
    """Peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    min_lr_share: float = 0.0
    """The cosine ends at this share of lr."""
    warmup_share: float = 0.05
    """Share of the steps that the learning rate rises."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    """Learning rate of a block as a share of that of the block above it."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 for none."""
    ema_decay: float = 0.0
    """Of the running mean of the weights that is kept in the end; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """What a clip looks like to the network while it trains."""

    picking: Picking = "mixed"
    """Where frames are stored without their times."""
    resize: Resize = "squash"
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of a run."""

    preset: str
    describes: str
    """One line for a person."""
    data: str
    """What `train.data.sources` opens: `rendered`, `cityguessr:FOLDER` and others."""
    splitting: Literal["official", "blocks", "drives"] = "official"
    seed: int = 0
    steps: int | None = None
    epochs: float | None = None
    """One of steps and epochs is given."""
    batch: int
    """Clips of a step, over all processes."""
    accumulate: int = 1
    """Pieces that a step's clips are worked on in: less memory, the same result, but that batch
    normalisation (in a ResNet) sees a piece at a time."""
    views: int = 1
    """How often a clip is shown before it leaves the memory: for clips that are costly to make."""
    eval_every: float = 0.0
    """Epochs between two looks at the val split, after which the best weights are kept; 0: one look
    at the end, and the last weights are kept."""
    selection: Literal["val", "test"] = "val"
    """The split that the best weights are chosen on. The released code takes test."""
    selection_decoding: DecodingMode = "codependent"
    """How the city is answered by which the best weights are chosen. The released code: without."""
    pretrained: str = ""
    """Hub id, folder or `.pth` of VideoMAE; empty to begin from nothing."""
    texts: str = ""
    """Embeddings of place names: a file of `python -m train.texts`, or `names` for embeddings of
    the spelling alone; empty for `text_table.safetensors` in the dataset's folder."""
    scenes: str = ""
    """A file of `python -m train.scenes`, where the dataset itself has no scene labels."""
    val_clips: int
    test_clips: int
    model: ModelConfig
    loss: LossConfig
    optimiser: OptimiserConfig
    input: InputConfig = field(default_factory=InputConfig)
    sampling: SamplingRange = field(default_factory=SamplingRange)
    policies: tuple[EvaluatedPolicy, ...]

    def __post_init__(self) -> None:
        """Refuse values that could only fail later; all that are wrong are named."""
        problems = [*_wrong_numbers(self), *_wrong_choices(self)]
        if (self.steps is None) == (self.epochs is None):
            problems.append(f"steps {self.steps} and epochs {self.epochs}: one of the two is given")
        if self.loss.scene_weight and self.model.scene == "none":
            problems.append("loss.scene_weight needs a scene head: model.scene is none")
        if self.loss.text_weight and self.model.text == "none":
            problems.append("loss.text_weight needs a text: model.text is none")
        # A head that nothing teaches would be exported with the weights it was drawn with.
        if not self.loss.scene_weight and self.model.scene != "none":
            problems.append(f"model.scene {self.model.scene} needs loss.scene_weight: it is 0")
        if not self.loss.text_weight and self.model.text != "none":
            problems.append(f"model.text {self.model.text} needs loss.text_weight: it is 0")
        if problems:
            raise ValueError("; ".join(problems))


def preset_names() -> tuple[str, ...]:
    """Presets that ship with the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load_preset(name: str, **changes: object) -> TrainConfig:
    """Read a preset and apply the flags that were given (those that are not None).

    Args:
        name: of the preset, or the path of a `.toml` file.
        changes: fields of TrainConfig; those of a part are written `optimiser_lr`, and giving one
            of steps and epochs takes the place of the other.

    Raises:
        ValueError: an unknown preset or key, or a wrong value; the text says what there is.
    """
    is_own = name.endswith(".toml")
    path = Path(name).expanduser() if is_own else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise ValueError(
            f"there is no preset {name!r}; there are: {', '.join(preset_names())}, or a .toml file "
            "of your own, made from one of theirs"
        )
    name = path.stem
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path}: {exc}") from exc
    config = config_from_record({**record, "preset": name}, source=str(path))
    return change_config(config, **changes)


def config_from_record(record: dict[str, Any], *, source: str) -> TrainConfig:
    """A configuration from nested tables, as a preset or a checkpoint holds them.

    Raises:
        ValueError: an unknown or missing key, or a wrong value; the text names `source`.
    """
    try:
        record = dict(record)
        inputs = dict(record.pop("input", {}))
        inputs["augmentation"] = _part(Augmentation, inputs.get("augmentation", {}), source)
        optimiser = dict(record["optimiser"])
        optimiser["betas"] = tuple(optimiser.get("betas", (0.9, 0.999)))
        parts = {
            "model": _model(record["model"], source),
            "loss": _part(LossConfig, record["loss"], source),
            "optimiser": _part(OptimiserConfig, optimiser, source),
            "input": _part(InputConfig, inputs, source),
            "sampling": _part(SamplingRange, record.get("sampling", {}), source),
            "policies": tuple(_part(EvaluatedPolicy, each, source) for each in record["policies"]),
        }
        config: TrainConfig = _part(TrainConfig, {**record, **parts}, source)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{source}: a key is missing or of a wrong kind ({exc})") from exc
    return config


def change_config(config: TrainConfig, **changes: object) -> TrainConfig:
    """The configuration with some values changed; see `load_preset`.

    Raises:
        ValueError: an unknown name or a wrong value.
    """
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in given:
            given.setdefault(other, None)
    parts: dict[str, dict[str, Any]] = {}
    for key in list(given):
        part, _, name = key.partition("_")
        if part in ("model", "loss", "optimiser", "input") and name:
            parts.setdefault(part, {})[name] = given.pop(key)
    if "model" in parts:
        own = {entry.name for entry in fields(ModelConfig)}
        options = {key: parts["model"].pop(key) for key in list(parts["model"]) if key not in own}
        known = shape_names(str(parts["model"].get("kind", config.model.kind)))
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(
                f"changing the preset {config.preset}: model has no {unknown}; there are "
                f"{sorted({*own, *known})}"
            )
        parts["model"]["options"] = {**config.model.options, **options}
    try:
        changed = {part: replace(getattr(config, part), **parts[part]) for part in parts}
        return replace(config, **given, **changed)
    except TypeError as exc:
        raise ValueError(f"changing the preset {config.preset}: {exc}") from exc


def _part(kind: type[Any], record: dict[str, Any], source: str) -> Any:  # noqa: ANN401
    known = {entry.name for entry in fields(kind)}
    if unknown := sorted(set(record) - known):
        raise ValueError(f"{source}: unknown keys {unknown}; known are {sorted(known)}")
    return kind(**record)


def _model(record: dict[str, Any], source: str) -> ModelConfig:
    """The network: keys of every kind, and those of the shape of its own kind."""
    own = {entry.name for entry in fields(ModelConfig)}
    known = shape_names(str(record.get("kind", "videomae")))
    given = {**record, **record.get("options", {})}
    given.pop("options", None)
    if unknown := sorted(set(given) - own - set(known)):
        raise ValueError(f"{source}: unknown keys {unknown}; known are {sorted({*own, *known})}")
    options = {key: given.pop(key) for key in list(given) if key not in own}
    return ModelConfig(**given, options=options)


def _wrong_numbers(config: TrainConfig) -> list[str]:
    problems = [
        f"{name} {value} must {wanted}"
        for wanted, (holds, values) in _ranges(config).items()
        for name, value in values
        if value is not None and not holds(value)  # not a number holds nowhere
    ]
    if config.seed >= 2**31:
        problems.append(f"seed {config.seed} must be below 2147483648")
    if not config.policies:
        problems.append("policies must name at least one way of sampling")
    if config.accumulate > 1 and config.model.warm_start:
        problems.append(
            "accumulate needs model.warm_start = false: heads are standardised over whole steps"
        )
    if config.accumulate > 0 and config.batch % config.accumulate:
        problems.append(
            f"batch {config.batch} must be a multiple of accumulate {config.accumulate}"
        )
    return problems


def _ranges(
    config: TrainConfig,
) -> dict[str, tuple[Callable[[float], bool], Sequence[tuple[str, float | None]]]]:
    """What numbers must do, how that is told, and which must."""
    model, loss, optimiser = config.model, config.loss, config.optimiser
    positive = [
        ("steps", config.steps),
        ("epochs", config.epochs),
        ("batch", config.batch),
        ("lr", optimiser.lr),
        ("views", config.views),
        ("accumulate", config.accumulate),
    ]
    at_least_0 = [
        ("seed", config.seed),
        ("eval_every", config.eval_every),
        ("scene_weight", loss.scene_weight),
        ("text_weight", loss.text_weight),
        ("haversine_km", loss.haversine_km),
        ("weight_decay", optimiser.weight_decay),
        ("clip_norm", optimiser.clip_norm),
        ("colour_jitter", config.input.augmentation.colour_jitter),
    ]
    above_0_to_1 = [
        ("keep_tokens", model.keep_tokens),
        ("last_keep_tokens", model.last_keep_tokens),
        ("layer_decay", optimiser.layer_decay),
        ("least_crop", config.input.augmentation.least_crop),
    ]
    from_0_to_1 = [
        ("last_share", model.last_share),
        ("mask_prob", config.input.augmentation.mask_prob),
        ("label_smoothing", loss.label_smoothing),
        ("warmup_share", optimiser.warmup_share),
        ("min_lr_share", optimiser.min_lr_share),
    ]
    below_1 = [("ema_decay", optimiser.ema_decay), *(("betas", beta) for beta in optimiser.betas)]
    return {
        "be positive": (lambda value: value > 0, positive),
        "not be below 0": (lambda value: value >= 0, at_least_0),
        "lie in (0, 1]": (lambda value: 0 < value <= 1, above_0_to_1),
        "lie in [0, 1]": (lambda value: 0 <= value <= 1, from_0_to_1),
        "lie in [0, 1)": (lambda value: 0 <= value < 1, below_1),
    }


def _wrong_choices(config: TrainConfig) -> list[str]:
    heads = config.model.num_heads
    chosen: dict[str, tuple[object, tuple[object, ...]]] = {
        "model.scene": (config.model.scene, get_args(SceneHead)),
        "model.text": (config.model.text, get_args(TextTarget)),
        "model.still": (config.model.still, get_args(Still)),
        "model.classifier": (config.model.classifier, get_args(Classifier)),
        "model.hierarchy": (config.model.hierarchy, get_args(HierarchyForm)),
        "model.attention_input": (config.model.attention_input, get_args(AttentionInput)),
        "model.normalisation": (
            config.model.normalisation,
            ("imagenet", "half", "kinetics", "none"),
        ),
        "loss.scene_target": (config.loss.scene_target, ("soft", "majority")),
        "optimiser.name": (config.optimiser.name, ("adamw", "adam")),
        "optimiser.schedule": (config.optimiser.schedule, ("cosine", "constant")),
        "input.picking": (config.input.picking, get_args(Picking)),
        "input.resize": (config.input.resize, get_args(Resize)),
        "splitting": (config.splitting, ("official", "blocks", "drives")),
        "selection_decoding": (config.selection_decoding, get_args(DecodingMode)),
        "selection": (config.selection, ("val", "test")),
    }
    problems = [
        f"{name} {value!r} is none of {', '.join(map(str, allowed))}"
        for name, (value, allowed) in chosen.items()
        if value not in allowed
    ]
    if not (heads in ("corrected", "config") or (isinstance(heads, int) and heads > 0)):
        problems.append(f"model.num_heads {heads!r} is none of corrected, config or a number")
    return problems + _wrong_kind(config.model, config.accumulate)


def _wrong_kind(model: ModelConfig, accumulate: int) -> list[str]:
    """What a network of this kind cannot have."""
    try:
        shape = sized_shape(model.kind, model.size, model.options)
        kind = find_kind(model.kind)
        if model.still != "none":
            kind.one_frame(shape)
    except ValueError as exc:
        return [str(exc)]
    usual = {"keep_tokens": 1.0, "last_keep_tokens": 1.0, "num_heads": "corrected"}
    asked = {name for name, value in usual.items() if getattr(model, name) != value}
    asked |= {"warm_start"} if model.warm_start else set()
    asked = {name.removeprefix("last_") for name in asked}
    problems = [
        f"model.{name} is nothing that {kind.title} has" for name in sorted(asked - kind.takes)
    ]
    if model.scene in get_args(SceneHead) and model.scene not in kind.scenes:
        problems.append(f"model.scene {model.scene}: {kind.title} has {', '.join(kind.scenes)}")
    if model.text != "none" and not issubclass(kind.model, FeatureModel):
        problems.append(f"model.text {model.text}: {kind.title} has no text head")
    for name, usual_form in (("classifier", "linear"), ("hierarchy", "separate")):
        form = getattr(model, name)
        if form != usual_form and not issubclass(kind.model, FeatureModel):
            problems.append(f"model.{name} {form}: {kind.title} has classifiers of its own")
    if model.coordinates and model.classifier == "linear":
        problems.append("model.coordinates needs model.classifier = cosine: it is linear")
    if accumulate > 1 and getattr(shape, "standardised", False):
        problems.append(
            "accumulate needs model.standardised = false: it standardises over whole steps"
        )
    return problems
