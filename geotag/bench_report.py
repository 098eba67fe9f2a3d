"""What `geotag bench` found: a row for each engine, and what the rows rest on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.bundle import Precision
    from geotag.device.facts import Device
    from geotag.peaks import Peak

HEAD = (
    "engine",
    "batch",
    "median ms",
    "min",
    "p95",
    "clips/s",
    "GMAC/s",
    "share of peak",
    "clock",
    "power mode",
)

BUSY = 0.5
"""A load above it disturbs what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One engine at one precision."""

    engine: str
    """Such as `openvino-cpu-fp32`."""
    precision: Precision
    device: str | None
    threads: int
    batch: int
    runs: int
    median_ms: float
    """Of one batch, copies to and from the device included."""
    min_ms: float
    p95_ms: float
    clips_a_second: float
    """One batch after the other, by the median."""
    gmacs_a_second: float | None
    peak: Peak | None
    share_of_peak: float | None
    gpu_mhz: float | None
    """Median while this was running; None for what runs on the processor."""
    cpu_mhz: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """All that `geotag bench` found."""

    bundle: str
    gmac_per_clip: float | None
    gmac_source: str | None
    power_mode: str | None
    """Of a Jetson; other machines have none that could be asked for."""
    device: Device
    load: float | None
    """Programs that wanted a core in the minute before."""
    hottest_celsius: tuple[float | None, float | None]
    """Before and after."""
    measurements: tuple[Measurement, ...]
    skipped: tuple[tuple[str, str], ...]
    """What was asked for and does not run here, with the reason."""

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def table_rows(report: BenchReport) -> list[tuple[str, ...]]:
    """One row a measurement, under HEAD."""
    return [_row(measured, report.power_mode) for measured in report.measurements]


def describe_bench(report: BenchReport) -> str:
    """What the table rests on, for below it."""
    lines = [f"bundle    {report.bundle}, {_describe_macs(report)}"]
    names = (measured.engine for measured in report.measurements)
    for name, measured in zip(names, report.measurements, strict=True):
        where = measured.device or f"{measured.threads} threads"
        lines.append(f"engine    {name} on {where}, {measured.runs} runs")
        if measured.peak is not None:
            giga = measured.peak.macs_a_second / 1e9
            lines.append(f"peak      {name}: {giga:,.0f} GMAC/s, {measured.peak.how}")
    lines += [f"not here  {name}: {reason}" for name, reason in report.skipped]
    if any(measured.precision == "int8" for measured in report.measurements):
        lines.append(
            "note      int8 multiplies in the linear layers alone; attention is slower, so that "
            "no network of this kind reaches the int8 peak"
        )
    if any(measured.batch > 1 for measured in report.measurements):
        lines.append(
            "note      a batch is handed over at once and run clip by clip: that is how a scan's "
            "engines are compiled"
        )
    if report.load is not None and report.load > BUSY:
        lines.append(
            f"note      other programs are at work (load {report.load:.1f} when this began): times "
            "are too long and shares too small"
        )
    before, after = report.hottest_celsius
    if before is not None and after is not None:
        lines.append(f"heat      {before:.0f} °C before, {after:.0f} °C after, at the hottest zone")
    return "\n".join(lines)


def _row(measured: Measurement, power_mode: str | None) -> tuple[str, ...]:
    mhz = measured.gpu_mhz or measured.cpu_mhz
    share = "unknown"
    if measured.share_of_peak is not None and measured.peak is not None:
        kind = "of the measured peak" if measured.peak.is_measured else "of the dense peak"
        share = f"{measured.share_of_peak:.0%} {kind}"
    return (
        measured.engine,
        str(measured.batch),
        f"{measured.median_ms:.2f}",
        f"{measured.min_ms:.2f}",
        f"{measured.p95_ms:.2f}",
        f"{measured.clips_a_second:.1f}",
        "unknown" if measured.gmacs_a_second is None else f"{measured.gmacs_a_second:,.0f}",
        share,
        "unknown" if mhz is None else f"{mhz:.0f} MHz ({'GPU' if measured.gpu_mhz else 'CPU'})",
        power_mode or "none",
    )


def _describe_macs(report: BenchReport) -> str:
    if report.gmac_per_clip is None:
        return "GMAC a clip unknown: bundle.json does not say, and there is no OpenVINO to count"
    return f"{report.gmac_per_clip:.3g} GMAC a clip ({report.gmac_source})"
