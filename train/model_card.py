"""Model cards: ours say what a model is, how good, what for and what not; others' are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.bundle import GRAPHS, LEVELS

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Manifest


NOT_STATED = "not stated"
"""The licence of weights of which nobody says any."""
_PRECISIONS, _USE = "## Precisions", "## Use"


def model_card(
    manifest: Manifest, evaluation: dict[str, Any], *, network: str = "a video transformer"
) -> str:
    """The text of MODEL_CARD.md: what the model is, how good, what for and what not.

    Args:
        manifest: of the bundle.
        evaluation: of the run.
        network: what kind it is.
    """
    rendered = manifest.domain == "rendered"
    counted = _counted(evaluation)
    return "\n".join(
        (
            f"# {manifest.name}",
            "",
            (
                "This model answers only for the rendered world of `train.data.rendered`; its "
                "answers for real footage mean nothing."
                if rendered
                else "This model guesses the city where dashcam footage was recorded."
            ),
            f"{manifest.description}: {network} with {_classifiers(manifest)} "
            f"{manifest.outputs['city']} cities, {manifest.outputs['state']} states, "
            f"{manifest.outputs['country']} countries, {manifest.outputs['continent']} continents"
            + (f", and a head for {len(manifest.scenes)} scene groups" if manifest.scenes else "")
            + ".",
            "",
            "## Training",
            "",
            *(f"- {key}: {value}" for key, value in manifest.training.items() if value is not None),
            "",
            "## Accuracy",
            "",
            f"Top-1 in per cent, one clip a video, on {counted}; measured by "
            f"`{evaluation.get('command', 'python -m train.evaluate')}`.",
            *_calibrated(evaluation),
            "",
            *_mode_table(evaluation),
            *_policy_table(manifest),
            *_precisions(manifest),
            _USE,
            "",
            (
                "Trying, testing and teaching the pipeline, on footage that `geotag demo` renders."
                if rendered
                else "Sorting footage whose place was lost, by continent, country, state and city."
            ),
            "It knows the places of `places.csv` and no other: footage from elsewhere still gets "
            "scores, so use the confidences and their thresholds in `bundle.json`.",
            "",
            "Not for finding or following people, not as evidence of where somebody was, and not "
            "for decisions about people without other evidence.",
            "",
            "## Licence",
            "",
            f"Weights: {manifest.licence}.",
            "",
        )
    )


def _classifiers(manifest: Manifest) -> str:
    """What stands between the feature and the places."""
    is_cosine = manifest.training.get("model_classifier") == "cosine"
    one = "one classifier by cosine" if is_cosine else "one linear classifier"
    if manifest.training.get("model_hierarchy") == "marginal":
        return f"{one} of cities, and coarser levels as sums over theirs; it knows"
    return f"{one} each for"


def _counted(evaluation: dict[str, Any]) -> str:
    """What the accuracies are of: a sample that is seen in three ways is one sample."""
    split = f"{evaluation.get('split', '')} clips".strip()
    if "counted_samples" not in evaluation:
        return f"{evaluation.get('clips', 'an unknown number of')} {split}"
    counted, clips = evaluation["counted_samples"], evaluation.get("clips")
    ways = "" if clips == counted else f" ({clips} clips, in all ways of choosing frames)"
    return f"{counted} samples of {evaluation.get('dataset', 'its data')}{ways}"


def _calibrated(evaluation: dict[str, Any]) -> list[str]:
    by = evaluation.get("calibrated_by")
    return [] if by is None else [f"Confidences calibrated by {by}."]


def with_precisions(card: str, manifest: Manifest) -> str:
    """A card that is there, with the table of precisions put in or replaced."""
    before, _, after = card.partition(_USE)
    before = before.partition(_PRECISIONS)[0]
    return before + "\n".join(_precisions(manifest)) + "\n" + _USE + after


def _mode_table(evaluation: dict[str, Any]) -> list[str]:
    modes = evaluation.get("modes", {})
    rows = [
        f"| {mode} | " + " | ".join(_percent(shares.get(level)) for level in LEVELS) + " |"
        for mode, shares in modes.items()
    ]
    head = f"| decoding | {' | '.join(LEVELS)} |"
    return [head, "| --- |" + " --: |" * len(LEVELS), *rows, ""] if rows else []


def _policy_table(manifest: Manifest) -> list[str]:
    rows = [
        f"| {policy.policy} | {policy.span_s:g} | {_percent(policy.city_top1)} | "
        f"{_percent(policy.country_top1)} | {policy.clips} |"
        for policy in manifest.sampling.policies
    ]
    head = "| frames chosen | span, s | city | country | clips |"
    return [head, "| --- |" + " --: |" * 4, *rows, ""]


def _precisions(manifest: Manifest) -> list[str]:
    """The smaller forms of the network, beside float32 on the same clips."""
    if manifest.quantization is None:
        return []
    clips = manifest.quantization["calibration"]
    rows = []
    for precision, name in GRAPHS.items():
        if name not in manifest.files:
            continue
        record = manifest.files[name]
        measured = record.measured
        rows.append(
            f"| {precision} | {name} | {record.size_bytes / 1e6:.1f} | "
            + " | ".join(
                _percent(measured.get(f"agreement_{level}")) if precision != "fp32" else "-"
                for level in LEVELS
            )
            + f" | {measured.get('latency_ms', '-')} | {measured.get('judged_by', '-')} |"
        )
    forced = manifest.quantization["gate"]["forced"]
    return [
        _PRECISIONS,
        "",
        f"{_made(manifest)} by at most {clips['held_out_clips']} held-out clips; `calibration.csv` "
        "lists all of them.",
        *(["It lost more than allowed, and was written all the same (`--force`)."] * bool(forced)),
        "",
        f"| precision | file | MB | {' | '.join(f'same {level} %' for level in LEVELS)} "
        "| ms a clip | judged with |",
        "| --- | --- | --: |" + " --: |" * (len(LEVELS) + 1) + " --- |",
        *rows,
        "",
    ]


def _made(manifest: Manifest) -> str:
    """Where the smaller forms come from; a sentence that ends with how they were judged."""
    held = manifest.quantization or {}
    recipe, clips = held.get("recipe", {}), held["calibration"]
    count, source = clips["clips"], clips["source"]
    if not recipe:
        return (
            f"Beside float32 there is float16, which holds every value that {count} clips "
            f"({source}) bring about. It was judged"
        )
    if recipe.get("made_by") != "geotag":
        made = "The int8 graph was quantized elsewhere and brought ready."
    else:
        made = f"int8 was calibrated on {count} clips ({source})."
    has_half = GRAPHS["fp16"] in manifest.files
    return f"{made} {'Both smaller forms were' if has_half else 'It was'} judged"


def _percent(share: Any) -> str:  # noqa: ANN401 - of a record, where anything may stand
    return "not measured" if share is None else f"{100 * share:.1f}"


def zero_shot_card(manifest: Manifest, licence: str) -> str:
    """The text of MODEL_CARD.md for a model made from texts, without training."""
    facts = manifest.zero_shot or {}
    prompts = {
        head: ", ".join(f"`{text}`" for text in texts)
        for head, texts in facts.get("prompts", {}).items()
    }
    weights = ", ".join(
        f"{name} ({digest[:12]}...)" for name, digest in facts.get("weights", {}).items()
    )
    return "\n".join(
        (
            f"# {manifest.name}",
            "",
            "This model guesses where footage was recorded by comparing pictures with texts such "
            'as "a photo i took in Birmingham, Alabama, United States". Nobody trained it for '
            "these places (zero-shot).",
            "",
            f"- network: {facts.get('source')}, revision {facts.get('revision') or 'not known'}",
            f"- weights: {weights}",
            f"- places: {facts.get('places', {}).get('source')}: {manifest.outputs['city']} "
            f"cities, {manifest.outputs['state']} states, {manifest.outputs['country']} countries, "
            f"{manifest.outputs['continent']} continents",
            f"- frames of a clip: {manifest.input.frames}, each looked at on its own; the mean of "
            "their log-probabilities is the clip's answer",
            "",
            "## Texts",
            "",
            *(f"- {head}: {text}" for head, text in prompts.items()),
            "",
            "## Accuracy",
            "",
            "Not measured by this bundle: no temperature was fitted and no threshold chosen, so "
            "its confidences say which answer is likelier, not how often it is right.",
            *(
                [f"Published for this network: {facts['accuracy']}"]
                if facts.get("accuracy")
                else []
            ),
            "",
            "## Use",
            "",
            "Sorting footage whose place was lost, by continent, country, state and city. It knows "
            "the places of `places.csv` and no other: footage from elsewhere still gets scores.",
            "",
            "Not for finding or following people, not as evidence of where somebody was, and not "
            "for decisions about people without other evidence.",
            "",
            "## Licence",
            "",
            f"Weights: {licence}.",
            "",
        )
    )


def card_licence(folder: Path) -> str:
    """The licence that the front matter of a model's README.md names."""
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()[:200]
    except (OSError, UnicodeDecodeError):
        return NOT_STATED
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("license", "licence") and value.strip():
            return value.strip().strip("'\"")[:80]
    return NOT_STATED
