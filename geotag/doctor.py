"""What this installation can do: the text to paste into an issue."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import EngineError, EngineUnavailableError
from engines.choose import usable_cores
from engines.plans import cache_folder
from engines.probes import PROBED, probe_apart
from geotag import __version__
from geotag.bundles import DEMO, bundles_folder, hidden_bundle, known_bundles
from geotag.device.facts import describe_device, read_device
from geotag.device.files import MACHINE
from geotag.errors import GeotagError
from geotag.writers.run import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engines.base import EngineReport
    from engines.bundle import Bundle
    from geotag.device.facts import Device
    from geotag.runs import OpenEngine

_BUILD_GIB = 2.0
"""What building a TensorRT engine may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFinding:
    """Whether one engine works here."""

    name: str
    is_usable: bool
    version: str | None
    device: str | None
    detail: str
    """How it was tried, or why it is out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """One model folder that has a name."""

    name: str
    path: str
    is_valid: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that `geotag doctor` found."""

    geotag: str
    python: str
    system: str
    versions: dict[str, str | None]
    ffmpeg: dict[str, str]
    """Libraries inside PyAV that decode."""
    cores: int
    memory_gib: float | None
    device: Device
    free_disk_gib: float
    """Where the cache is."""
    engines: tuple[EngineFinding, ...]
    telemetry: tuple[str, ...]
    """What reads positions, and what it can read."""
    bundles: tuple[BundleReport, ...]
    bundles_folder: str
    cache_folder: str
    notes: tuple[str, ...]
    """What may surprise, such as a bundle that no name finds."""

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def examine(
    open_engine: OpenEngine,
    *,
    folder: Path | None = None,
    probe: Callable[[str], EngineReport] = probe_apart,
    root: Path = MACHINE,
) -> Report:
    """Look at the machine, try each engine, and run a model if there is one.

    Args:
        open_engine: `engines.choose.open_engine`, or what stands for it.
        folder: where the user's bundles are; None is the usual folder.
        probe: `engines.probes.probe_apart`, or what stands for it.
        root: where the machine's files are.
    """
    bundles = known_bundles(folder)
    opened = {name: _read(path) for name, path in bundles.items()}
    valid = next((found for found in opened.values() if not isinstance(found, EngineError)), None)
    cache = cache_folder()
    device = read_device(root)
    engines = tuple(_try(name, probe, open_engine, valid) for name in PROBED)
    return Report(
        geotag=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=versions(("av", "numpy", "openvino", "torch", "onnx", "onnxruntime")),
        ffmpeg=_ffmpeg_versions(),
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        device=device,
        free_disk_gib=round(shutil.disk_usage(_existing(cache)).free / 2**30, 1),
        engines=engines,
        telemetry=_telemetry(),
        bundles=tuple(_report(name, bundles[name], found) for name, found in opened.items()),
        bundles_folder=str(folder or bundles_folder()),
        cache_folder=str(cache),
        notes=(*_notes(folder), *_device_notes(device, engines, root)),
    )


def describe(report: Report) -> str:
    """The report as text, one fact a line."""
    libraries = ", ".join(f"{name} {number}" for name, number in report.ffmpeg.items())
    machine = dict(describe_device(report.device))
    memory = "unknown" if report.memory_gib is None else f"{report.memory_gib} GiB"
    lines = [
        f"geotag    {report.geotag}",
        f"python    {report.python}",
        f"system    {report.system}",
        f"cores     {report.cores}",
        f"memory    {machine.pop('memory', memory)}",
        f"disk      {report.free_disk_gib} GiB free at {report.cache_folder}",
    ]
    lines += [f"{name:9} {fact}" for name, fact in machine.items()]
    lines += [f"{name:9} {number or 'not installed'}" for name, number in report.versions.items()]
    lines.append(f"ffmpeg    {libraries or 'not available'}")
    lines += [f"engine    {_describe_engine(engine)}" for engine in report.engines]
    lines += [f"positions {line}" for line in report.telemetry]
    for bundle in report.bundles:
        lines.append(f"bundle    {bundle.name}: {bundle.detail} ({bundle.path})")
    lines.append(
        f"bundles   {len(report.bundles)} known by name; yours go to {report.bundles_folder}"
    )
    lines += [f"note      {note}" for note in report.notes]
    return "\n".join(lines)


def _telemetry() -> tuple[str, ...]:
    from geotag.telemetry.exiftool import describe_version, exiftool_version

    try:
        exiftool = f"ExifTool: {describe_version(exiftool_version())}"
    except GeotagError as exc:
        exiftool = f"ExifTool: {exc}"
    extras = versions(("mapillary_tools", "fitdecode"))
    missing = "not installed (pip install '.[telemetry]' in geotag's source folder)"
    return (
        exiftool,
        *(f"{name}: {number or missing}" for name, number in extras.items()),
    )


def _notes(folder: Path | None) -> tuple[str, ...]:
    hidden = hidden_bundle(folder)
    if hidden is None:
        return ()
    return (
        f"the name {DEMO} always means the bundle inside geotag, so it never finds {hidden}. "
        "Rename that folder, or name it by its path.",
    )


def _read(path: Path) -> Bundle | EngineError:
    from engines.bundle import read_bundle

    try:
        return read_bundle(path)
    except EngineError as exc:
        return exc


def _report(name: str, path: Path, found: Bundle | EngineError) -> BundleReport:
    if isinstance(found, EngineError):
        return BundleReport(name=name, path=str(path), is_valid=False, detail=f"unusable: {found}")
    detail = f"{found.label}, {found.manifest.domain}, {found.manifest.outputs['city']} cities"
    return BundleReport(name=name, path=str(path), is_valid=True, detail=detail)


def _try(
    name: str, probe: Callable[[str], EngineReport], open_engine: OpenEngine, bundle: Bundle | None
) -> EngineFinding:
    """One layer first; OpenVINO, which compiles in a second, runs a real model as well."""
    try:
        found = probe(name)
    except EngineUnavailableError as exc:
        return EngineFinding(name=name, is_usable=False, version=None, device=None, detail=str(exc))
    detail, is_usable = found.detail, True
    if name == "openvino" and bundle is not None:
        try:
            detail = f"{detail}; {_run_once(open_engine, bundle)}"
        except EngineError as exc:
            detail, is_usable = f"one layer works, {bundle.label} does not: {exc}", False
    return EngineFinding(
        name=name,
        is_usable=is_usable,
        version=found.version,
        device=found.device,
        detail=detail,
    )


def _describe_engine(engine: EngineFinding) -> str:
    if engine.version is None:
        return f"{engine.name}: no: {engine.detail}"
    works = "built and ran one layer" if engine.is_usable else "no"
    return f"{engine.name} {engine.version} on {engine.device}: {works}; {engine.detail}"


def _device_notes(device: Device, engines: tuple[EngineFinding, ...], root: Path) -> Iterator[str]:
    """What a Jetson's owner can mend."""
    if device.jetson is None:
        return
    tensorrt = next((engine for engine in engines if engine.name == "tensorrt"), None)
    packages = sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt"))
    if packages and tensorrt is not None and "not installed" in tensorrt.detail:
        yield (
            f"JetPack's TensorRT is in {packages[0].parent}, where this Python does not look. Make "
            "the virtual environment with `python3 -m venv --system-site-packages`."
        )
    memory = device.memory
    if memory is None or memory.free_gib is None or memory.available_gib is None:
        return
    if memory.free_gib < _BUILD_GIB <= memory.available_gib:
        yield (
            f"TensorRT sees the {memory.free_gib} GiB of memory that are used for nothing, not the "
            f"{memory.available_gib} that are available. Before it builds: "
            "`sync; echo 1 | sudo tee /proc/sys/vm/drop_caches`."
        )


def _run_once(open_engine: OpenEngine, bundle: Bundle) -> str:
    import numpy as np

    spec = bundle.manifest.input
    started_s = time.perf_counter()
    engine, choice = open_engine(bundle, engine="openvino")
    try:
        compiled_s = time.perf_counter()
        engine.infer(np.zeros((1, spec.frames, spec.height_px, spec.width_px, 3), dtype=np.uint8))
        ran_s = time.perf_counter()
    finally:
        engine.close()
    return (
        f"{choice}; compiled {bundle.label} in {compiled_s - started_s:.1f} s, "
        f"ran one clip in {(ran_s - compiled_s) * 1e3:.0f} ms"
    )


def _ffmpeg_versions() -> dict[str, str]:
    try:
        import av
    except ImportError:
        return {}
    return {
        name: ".".join(map(str, number))
        for name, number in av.library_versions.items()
        if name in ("libavcodec", "libavformat", "libswscale")
    }


def _memory_gib() -> float | None:
    try:
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return round(pages * page_bytes / 2**30, 1)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    found = (folder for folder in (path, *path.parents) if os.path.exists(folder))  # noqa: PTH110
    return next(found, Path())
