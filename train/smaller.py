"""The smaller precisions of a bundle: made, judged by held-out clips, timed, and recorded."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from calibration.gate import LEAST_AGREEMENT, MAX_DROP, refuse
from engines.bundle import GRAPHS, LEVELS, Bundle, FileRecord, describe_file
from engines.choose import usable_cores
from engines.plans import cache_folder
from geotag.places.hierarchy import read_hierarchy
from train.calibration_clips import open_calibration
from train.config import SamplingRange
from train.judging import judge_precisions, open_runtime, sensitivity
from train.latency import latencies_ms
from train.plain_facts import plain_command
from train.precisions import check_wish, lower, write_int8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from engines.base import Engine
    from engines.bundle import Precision
    from geotag.wish import PrecisionWish
    from train.calibration_clips import CalibrationSet
    from train.judging import Judged
    from train.models.base import GeoModel
    from train.precisions import Lowered

LISTING = "calibration.csv"
"""Which clips calibrated and which judged."""
_SUSPECTS = 12
"""Families with the largest errors, each tried alone when int8 is refused."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smaller:
    """What there is beside float32."""

    bundle: Bundle
    """The draft, with all files and records."""
    table: tuple[str, ...]
    """Lines: the precisions side by side."""
    notes: tuple[str, ...]


def make_smaller(
    model: GeoModel,
    draft: Bundle,
    facts: Mapping[str, Any],
    wish: PrecisionWish,
    *,
    console: Console,
) -> Smaller:
    """Write, judge and record what a wish asks for beside float32.

    Args:
        model: in float32.
        draft: its bundle, with the float32 graph.
        facts: how it was trained.
        wish: what is asked for; not fp32 alone.
        console: where progress is shown.

    Raises:
        CalibrationError: no usable footage, or a model that float16 or int8 cannot hold.
        GateError: it lost too much, and shipping it was not forced.
        EngineError: a graph does not run.
    """
    check_wish(model, wish)
    clips = _clips(draft, facts, wish, console)
    lowered = lower(model, draft.path, wish, clips, console=console)
    (draft.path / LISTING).write_text(clips.listing, encoding="utf-8", newline="\n")
    files = {
        name: describe_file(draft.file(name), precision=kind)
        for name, kind in lowered.files.items()
    }
    files[LISTING] = describe_file(draft.file(LISTING))
    bundle = _with_files(draft, files)
    judged = judge_precisions(bundle, clips.held_out, max_drop=wish.max_drop, console=console)
    failed = [name for name, verdict in judged.verdicts.items() if not verdict.passed]
    if failed and not wish.force:
        sensitive = _sensitive(bundle, lowered, wish, clips, console) if "int8" in failed else []
        refuse(judged.verdicts, sensitive=sensitive, doing="exporting")
    latency = latencies_ms(bundle, cache=cache_folder())
    bundle = _recorded(bundle, judged, latency, lowered, clips, wish)
    return Smaller(
        bundle=bundle,
        table=tuple(_table(bundle, judged, latency)),
        notes=(*clips.notes, *lowered.notes, *_notes(judged, latency, wish)),
    )


def _clips(
    draft: Bundle, facts: Mapping[str, Any], wish: PrecisionWish, console: Console
) -> CalibrationSet:
    given = facts.get("data")
    return open_calibration(
        wish.calib,
        trained_on=None if given is None else str(given),
        splitting=facts.get("splitting", "official"),
        sampling=SamplingRange(**facts.get("sampling", {})),
        input=draft.manifest.input,
        picking=facts.get("input", {}).get("picking", "uniform"),
        clips=wish.calib_clips,
        held_out=wish.judged_clips,
        seed=0,
        workers=usable_cores(),
        console=console,
        hierarchy=read_hierarchy(draft.file("places.csv")),
    )


def _with_files(bundle: Bundle, files: Mapping[str, FileRecord]) -> Bundle:
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, **files})
    return replace(bundle, manifest=manifest)


def _sensitive(
    bundle: Bundle, lowered: Lowered, wish: PrecisionWish, clips: CalibrationSet, console: Console
) -> list[str]:
    """Families that change the features most when they alone are int8, the worst first."""
    quantized = lowered.quantized
    if quantized is None:
        return []
    suspects = sorted(quantized.reports, key=lambda report: -report.error)
    names = [each.name for each in suspects if each.name not in lowered.skipped][:_SUSPECTS]
    folder = bundle.path / "alone"
    folder.mkdir()

    def candidates() -> Iterator[tuple[str, Engine]]:
        for name in names:
            others = set(quantized.state.families) - {name}
            write_int8(quantized, quantized.state.without(others), folder, wish, has_half=False)
            yield name, open_runtime(replace(bundle, path=folder), "int8")

    with Progress(console=console) as progress, closing(open_runtime(bundle, "fp32")) as reference:
        task = progress.add_task("looking for sensitive layers", total=len(names))
        found = sensitivity(
            reference, candidates(), clips.held_out, advance=lambda: progress.advance(task)
        )
    return list(found)


def _recorded(
    bundle: Bundle,
    judged: Judged,
    latency: Mapping[Precision, float],
    lowered: Lowered,
    clips: CalibrationSet,
    wish: PrecisionWish,
) -> Bundle:
    """The bundle with what was measured of each graph, and how it was made."""
    command = _command(wish)
    records = {}
    for precision in bundle.precisions:
        name = GRAPHS[precision]
        held = bundle.manifest.files[name]
        measured: dict[str, float | str] = dict(held.measured)
        if precision in judged.verdicts:
            measured = {**judged.verdicts[precision].record(), "command": command}
        measured |= {
            "judged_by": judged.engines[precision],
            "latency_ms": latency[precision],
        }
        records[name] = replace(held, measured=measured)
    listing = hashlib.sha256(clips.listing.encode()).hexdigest()
    quantization = {
        "calibration": {
            "source": clips.source,
            "clips": clips.calibration.count,
            "held_out_clips": clips.held_out.count,
            "listing_sha256": listing,
        },
        "recipe": lowered.recipe,
        "gate": {
            "max_city_drop": wish.max_drop,
            "least_agreement": LEAST_AGREEMENT,
            "passed": {name: verdict.passed for name, verdict in judged.verdicts.items()},
            "forced": wish.force and not all(each.passed for each in judged.verdicts.values()),
        },
        "command": command,
    }
    bundle = _with_files(bundle, records)
    return replace(bundle, manifest=replace(bundle.manifest, quantization=quantization))


def _command(wish: PrecisionWish) -> str:
    """What makes it again, but for folders of this machine and for where it is written."""
    words = ["geotag", "export", "--precision", wish.precision]
    if wish.calib is not None:
        words += ["--calib", wish.calib]
    words += ["--calib-clips", str(wish.calib_clips), "--gate-clips", str(wish.judged_clips)]
    if wish.max_drop != MAX_DROP:
        words += ["--max-drop", f"{100 * wish.max_drop:g}"]
    if wish.force:
        words += ["--force"]
    for name in wish.skipped:
        words += ["--int8-skip", name]
    if wish.own_graph is not None:
        words += ["--int8-onnx", str(wish.own_graph)]
    return plain_command(shlex.join(words))


def _table(bundle: Bundle, judged: Judged, latency: Mapping[Precision, float]) -> list[str]:
    """The precisions side by side, as aligned text."""
    head = [
        "precision",
        "MB",
        "ms a clip",
        *(f"same {level}" for level in LEVELS),
        "city top-1",
        "city lost",
        "clips",
    ]
    rows = [head]
    # The accuracy of float32 on all clips; a precision that saw fewer is told by what it lost.
    whole = max(judged.verdicts.values(), key=lambda verdict: verdict.clips)
    for precision in bundle.precisions:
        size = bundle.manifest.files[GRAPHS[precision]].size_bytes
        row = [precision, f"{size / 1e6:.1f}", f"{latency[precision]:.1f}"]
        verdict = judged.verdicts.get(precision)
        if verdict is None:
            accuracy = whole.reference_accuracy
            row += ["-"] * len(LEVELS)
            row += [_share(None if accuracy is None else accuracy["city"].value), "-"]
            row += [str(whole.clips)]
        else:
            accuracy = verdict.accuracy if verdict.clips == whole.clips else None
            row += [_share(verdict.agreement[level]) for level in LEVELS]
            row += [_share(None if accuracy is None else accuracy["city"].value)]
            row += [_share(None if verdict.drop is None else verdict.drop.value + 0.0)]
            row += [str(verdict.clips)]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _notes(judged: Judged, latency: Mapping[Precision, float], wish: PrecisionWish) -> list[str]:
    notes = [
        f"{precision} was judged with {judged.engines[precision]}" for precision in judged.verdicts
    ]
    if judged.verdicts and all(each.drop is None for each in judged.verdicts.values()):
        notes.append(
            f"nothing says which city is right: the limit was another city for "
            f"{1 - LEAST_AGREEMENT:.0%} of the clips, and --max-drop counted for nothing"
        )
    counted = max((each.clips for each in judged.verdicts.values()), default=wish.judged_clips)
    if counted < wish.judged_clips:
        notes.append(
            f"judged by {counted} clips, where {wish.judged_clips} were wanted: a rare loss can go "
            "unseen. More footage brings more of them"
        )
    notes += [
        f"{precision}: {verdict.doubt}"
        for precision, verdict in judged.verdicts.items()
        if verdict.doubt
    ]
    notes += [
        f"{precision} was shipped because of --force: {verdict.reason}"
        for precision, verdict in judged.verdicts.items()
        if verdict.reason and wish.force
    ]
    if "int8" in latency and latency["int8"] >= latency["fp32"]:
        notes.append(
            f"int8 is not faster than fp32 on this machine ({latency['int8']:.1f} ms and "
            f"{latency['fp32']:.1f} ms a clip)"
        )
    return notes
