"""What a person sees of an `evaluation.json`: a few tables, every number with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from calibration.estimates import wilson_interval
from engines.bundle import LEVELS
from train.evaluation.metrics import RADII_KM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    Record = dict[str, Any]

SHOWN_BAD = 5
"""Bad samples that are printed; evaluation.json lists all."""


def show_evaluation(evaluation: Record, console: Console) -> None:
    """Print the tables: accuracy, distance, confidences, policies, drives; then what was left out.

    Args:
        evaluation: what `train.evaluation.evaluate` returns.
        console: where to.
    """
    each = evaluation["clips_per_answer"]
    seen = "one clip each" if each == 1 else f"{each} clips each"
    samples, counted = evaluation["counted_samples"], evaluation["clips"]
    if counted != samples:
        ways = sum(row["clips"] > 0 for row in evaluation["policies"])
        seen += f" for {ways} ways of sampling"
    title = f"{_count(samples, 'sample')} of {evaluation['dataset']}, {seen}"
    console.print(_accuracy_table(evaluation, f"top-1 % (95 % interval): {title}"))
    console.print(_distance_table(evaluation, f"distance of the answered city: {title}"))
    console.print(_further_table(evaluation, f"top-5 %, and top-1 % city by city: {title}"))
    console.print(_reliability_table(evaluation, f"confidences, marginal decoding: {title}"))
    if any(row["clips"] for row in evaluation["policies"]):
        console.print(_policy_table(evaluation["policies"]))
    if "drives" in evaluation:
        drives = evaluation["drives"]
        console.print(
            _accuracy_table(drives, f"top-1 % of {drives['drives']} drives, all clips fused")
        )
        console.print(_fusion_table(drives["by_clips"]))
    for division, record in evaluation.get("routing", {}).items():
        console.print(_routing_table(division, record))
    if "against" in evaluation:
        console.print(_difference_table(evaluation["against"]))
    for line in _notes(evaluation):
        console.print(line, highlight=False, markup=False)


def _accuracy_table(evaluation: Record, title: str) -> Table:
    table = _table(title, "decoding", [*LEVELS, "conflicts %"])
    for mode, record in evaluation["metrics"].items():
        cells = [_percent(record[level]["top1"]) for level in LEVELS]
        table.add_row(mode, *cells, _percent(record["conflict_rate"], interval=False))
    return table


def _distance_table(evaluation: Record, title: str) -> Table:
    """Median, shares within radii and GeoScore; of the modes that answer alike, each its own."""
    heads = ["median km", *(f"<{radius} km %" for radius in RADII_KM), "GeoScore"]
    table = _table(title, "decoding", heads)
    for mode, record in evaluation["metrics"].items():
        distance = record["distance"]
        table.add_row(
            mode,
            _number(distance["median_km"], 0),
            *(_percent(distance[f"within_{radius}_km"], interval=False) for radius in RADII_KM),
            _number(distance["geoscore"], 0),
        )
    return table


def _further_table(evaluation: Record, title: str) -> Table:
    heads = [*(f"{level} top-5" for level in LEVELS[:-1]), "city, mean of cities"]
    table = _table(title, "decoding", heads)
    for mode, record in evaluation["metrics"].items():
        cells = [_percent(record[level]["top5"]) for level in LEVELS[:-1]]
        table.add_row(mode, *cells, _percent(record["city"]["macro_top1"]))
    return table


def _reliability_table(evaluation: Record, title: str) -> Table:
    table = _table(title, "level", ["NLL", "Brier", "ECE", "AURC"])
    for level in LEVELS:
        found = evaluation["metrics"]["marginal"][level]
        table.add_row(level, *(_number(found[name], 3) for name in ("nll", "brier", "ece", "aurc")))
    return table


def _policy_table(policies: Sequence[Record]) -> Table:
    table = _table(
        "by sampling policy (marginal decoding)", "policy", ["span s", "city", "country"]
    )
    table.add_column("clips", justify="right")
    for row in policies:
        shares = [
            _with_wilson(row[f"{level}_top1"], row["clips_by_level"][level])
            for level in ("city", "country")
        ]
        table.add_row(row["policy"], f"{row['span_s']:g}", *shares, str(row["clips"]))
    return table


def _fusion_table(rows: Sequence[Record]) -> Table:
    heads = ["drives", "city %", "one clip %", "country %", "one clip %"]
    table = _table(
        "top-1 by clips fused; one clip: single clips of the same drives", "clips", heads
    )
    for row in rows:
        cells = [_percent(row[level][name]) for level in ("city", "country") for name in row[level]]
        table.add_row(str(row["fused"]), str(row["drives"]), *cells)
    return table


def _routing_table(division: str, record: Record) -> Table:
    """How often each of several parts of a network is the most used, and its mean share."""
    table = _table(
        f"routing by {division}: {_count(record['clips'], 'clip')}",
        division,
        ["most used by % of clips", "mean share %"],
    )
    for name, shares in record["routes"].items():
        table.add_row(name, *(f"{100 * shares[part]:.1f}" for part in ("largest", "mean_share")))
    return table


def _difference_table(record: Record) -> Table:
    table = _table(f"points of top-1 more than {record['model']}, paired", "decoding", LEVELS)
    for mode, levels in record.items():
        if isinstance(levels, dict):
            table.add_row(mode, *(_percent(levels[level]) for level in LEVELS))
    return table


def _notes(evaluation: Record) -> list[str]:
    """What the tables leave out, in words."""
    lines = [f"confidences calibrated by {evaluation['calibrated_by']}"]
    samples, counted = evaluation["samples"], evaluation["counted_samples"]
    bad = len({sample["name"] for sample in evaluation["bad_samples"]["samples"]})
    if samples > counted + bad:
        lines.append(f"{counted} of the data set's {samples} samples were counted")
    unknown = evaluation["open_set"]
    if unknown["clips"]:
        clips = _count(unknown["clips"], "clip")
        lines.append(
            f"{clips} {'is' if unknown['clips'] == 1 else 'are'} of "
            f"{_count(len(unknown['cities']), 'city', 'cities')} that the model does not know "
            "(open-set), and counted at coarser levels only. Of them, right: "
            + ", ".join(
                f"{level} {_percent(unknown[level]['top1'])} % of {unknown[level]['clips']}"
                for level in LEVELS[1:]
            )
        )
    for name, what in (("bad_samples", "counted"), ("bad_val_samples", "calibrating")):
        bad = evaluation[name]
        if bad["count"]:
            lines.append(f"{bad['count']} {what} samples could not be read and are left out:")
            lines += [
                f"  {sample['name']}: {sample['reason']}" for sample in bad["samples"][:SHOWN_BAD]
            ]
            if bad["count"] > SHOWN_BAD:
                lines.append(f"  and {bad['count'] - SHOWN_BAD} more, see evaluation.json")
    return lines


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _table(title: str, first: str, others: Sequence[str]) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _percent(found: Record | None, *, interval: bool = True) -> str:
    if found is None or found["value"] is None:
        return "-"
    if not interval:
        return f"{100 * found['value']:.1f}"
    return f"{100 * found['value']:.1f} ({100 * found['low']:.0f}-{100 * found['high']:.0f})"


def _number(found: Record, digits: int) -> str:
    if found["value"] is None:
        return "-"
    ends = max(digits - 1, 0)
    return f"{found['value']:.{digits}f} ({found['low']:.{ends}f}-{found['high']:.{ends}f})"


def _with_wilson(share: float | None, count: int) -> str:
    if share is None or not count:
        return "-"
    low, high = wilson_interval(share, count)
    return f"{100 * share:.1f} ({100 * low:.0f}-{100 * high:.0f})"
