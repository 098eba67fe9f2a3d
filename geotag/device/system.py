"""Processor, memory and heat of any Linux machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.device.files import read_number, read_text

if TYPE_CHECKING:
    from pathlib import Path

_FEATURES = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimdhp": "FP16",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
"""Flags of /proc/cpuinfo that decide how fast a network runs; x86-64 first, then 64-bit Arm."""

_ARM_CORES = {"0xd42": "Cortex-A78AE", "0xd83": "Neoverse V3AE", "0x004": "Carmel"}
"""An Arm processor has no name in /proc/cpuinfo, only the part number of its core: those of
Orin, Thor and Xavier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor."""

    name: str | None
    features: tuple[str, ...]
    now_mhz: float | None
    max_mhz: float | None
    """As far as the power mode lets it."""
    governor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory, which a Jetson's GPU shares."""

    total_gib: float
    available_gib: float | None
    """What programs can get, memory of cached files included."""
    free_gib: float | None
    """What is used for nothing; TensorRT counts with this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A place where temperature is measured."""

    name: str
    celsius: float
    passive_celsius: float | None
    """From here on the system slows itself down."""


def read_cpu(root: Path) -> Cpu:
    """The processor, as the system describes its first core."""
    text = read_text(root / "proc/cpuinfo") or ""
    fields = dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", text.split("\n\n")[0], re.MULTILINE))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    governor = read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    ceiling = read_number(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")
    return Cpu(
        name=fields.get("model name") or _ARM_CORES.get(fields.get("CPU part", "")),
        features=tuple(words for flag, words in _FEATURES.items() if flag in flags),
        now_mhz=cpu_mhz(root),
        max_mhz=None if ceiling is None else round(ceiling / 1e3, 1),
        governor=governor,
    )


def cpu_mhz(root: Path) -> float | None:
    """The clock of the fastest core right now; None where the system does not tell."""
    cores = root / "sys/devices/system/cpu"
    kilohertz = [read_number(path) for path in cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if known := [value for value in kilohertz if value is not None]:
        return round(max(known) / 1e3, 1)
    text = read_text(root / "proc/cpuinfo") or ""
    told = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return round(max(told), 1) if told else None


def read_memory(root: Path) -> Memory | None:
    """Main memory; None where the system does not tell."""
    text = read_text(root / "proc/meminfo") or ""
    kib = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if "MemTotal" not in kib:
        return None
    gib = {name: round(size / 2**20, 1) for name, size in kib.items()}
    return Memory(
        total_gib=gib["MemTotal"],
        available_gib=gib.get("MemAvailable"),
        free_gib=gib.get("MemFree"),
    )


def read_load(root: Path) -> float | None:
    """How many programs wanted a core in the last minute."""
    words = (read_text(root / "proc/loadavg") or "").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None


def read_zones(root: Path) -> tuple[Zone, ...]:
    """Every thermal zone that can be read."""
    folders = (root / "sys/class/thermal").glob("thermal_zone*")
    zones = (_read_zone(folder) for folder in sorted(folders, key=_number_of))
    return tuple(zone for zone in zones if zone is not None)


def _read_zone(folder: Path) -> Zone | None:
    milli = read_number(folder / "temp")
    # Tegra reports a sensor that is off as -256 degrees and the like.
    if milli is None or not -100_000 < milli < 200_000:
        return None
    passive = [
        read_number(kind.with_name(kind.name.replace("_type", "_temp")))
        for kind in sorted(folder.glob("trip_point_*_type"))
        if read_text(kind) == "passive"
    ]
    limits = [value for value in passive if value is not None and value > 0]
    return Zone(
        name=read_text(folder / "type") or folder.name,
        celsius=round(milli / 1e3, 1),
        passive_celsius=round(min(limits) / 1e3, 1) if limits else None,
    )


def _number_of(folder: Path) -> int:
    return int(re.sub(r"\D", "", folder.name) or 0)
