"""The machine in one value, and in lines for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.device.files import MACHINE, read_text
from geotag.device.gpus import Gpu, read_driver, read_gpus, read_toolkit
from geotag.device.jetson import Jetson, clock_mhz, gpu_clock_folder, read_jetson
from geotag.device.system import (
    Cpu,
    Memory,
    Zone,
    cpu_mhz,
    read_cpu,
    read_memory,
    read_zones,
)

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is under us, as far as the system tells."""

    model: str | None
    """Of the board or the computer."""
    jetson: Jetson | None
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    driver: str | None
    """Of NVIDIA, in the kernel."""
    toolkit: str | None
    """CUDA's, where it is installed."""
    memory: Memory | None
    zones: tuple[Zone, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What a number that was measured must stand beside; quick to read."""

    gpu_mhz: float | None
    """Of an integrated GPU: sysfs tells at once. A card's is asked with `nvidia-smi`."""
    cpu_mhz: float | None
    hottest_celsius: float | None


def read_device(root: Path = MACHINE) -> Device:
    """Look at the machine, changing nothing.

    Args:
        root: where `etc`, `proc` and `sys` are.
    """
    jetson = read_jetson(root)
    return Device(
        model=_read_model(root),
        jetson=jetson,
        cpu=read_cpu(root),
        gpus=read_gpus(root, is_jetson=jetson is not None),
        driver=read_driver(root),
        toolkit=read_toolkit(root),
        memory=read_memory(root),
        zones=read_zones(root),
    )


def read_clocks(root: Path = MACHINE) -> Clocks:
    """Clocks and heat of this moment, in well under a millisecond: no program is asked."""
    folder = gpu_clock_folder(root)
    zones = read_zones(root)
    return Clocks(
        gpu_mhz=None if folder is None else clock_mhz(folder, "cur"),
        cpu_mhz=cpu_mhz(root),
        hottest_celsius=max((zone.celsius for zone in zones), default=None),
    )


def describe_device(device: Device) -> list[tuple[str, str]]:
    """Names and facts, one a line; what is not known is left out."""
    lines = [("device", device.model or "")]
    if device.jetson is not None:
        lines += _describe_jetson(device.jetson)
    lines.append(("cpu", _describe_cpu(device.cpu)))
    lines += [("gpu", describe_gpu(gpu)) for gpu in device.gpus]
    nvidia = [f"driver {device.driver}"] if device.driver else []
    nvidia += [f"CUDA toolkit {device.toolkit}"] if device.toolkit else []
    lines.append(("nvidia", ", ".join(nvidia)))
    if device.memory is not None:
        lines.append(("memory", describe_memory(device.memory)))
    lines.append(("heat", describe_zones(device.zones)))
    return [(name, fact) for name, fact in lines if fact]


def describe_gpu(gpu: Gpu) -> str:
    """Name, capability, clock, memory."""
    facts = [gpu.name]
    if gpu.compute_capability:
        facts.append(f"compute capability {gpu.compute_capability}")
    if clock := _describe_clock(gpu.now_mhz, gpu.max_mhz):
        facts.append(clock)
    if gpu.memory_gib is not None:
        facts.append(f"{gpu.memory_gib} GiB, {gpu.free_gib} free")
    if gpu.celsius is not None:
        facts.append(f"{gpu.celsius:.0f} °C")
    if gpu.power_limit_w is not None:
        facts.append(f"limited to {gpu.power_limit_w:.0f} W")
    return ", ".join(facts)


def describe_memory(memory: Memory) -> str:
    """All, available, free."""
    facts = [f"{memory.total_gib} GiB"]
    if memory.available_gib is not None:
        facts.append(f"{memory.available_gib} available")
    if memory.free_gib is not None:
        facts.append(f"{memory.free_gib} used for nothing")
    return ", ".join(facts)


def describe_zones(zones: tuple[Zone, ...]) -> str:
    """Every zone with its temperature; the limit of those that have one and are near it."""
    return ", ".join(
        f"{zone.name} {zone.celsius:.0f} °C"
        + (f" (slows down from {zone.passive_celsius:.0f})" if _is_near(zone) else "")
        for zone in zones
    )


def _is_near(zone: Zone) -> bool:
    return zone.passive_celsius is not None and zone.celsius > zone.passive_celsius - 20


def _describe_jetson(jetson: Jetson) -> list[tuple[str, str]]:
    release = f"L4T {jetson.l4t}" if jetson.l4t else ""
    return [
        ("module", jetson.module or "not one that this version of geotag knows"),
        ("jetpack", f"{release} ({jetson.jetpack})" if jetson.jetpack else release),
        (
            "power",
            str(jetson.power_mode)
            if jetson.power_mode
            else "mode not known: nvpmodel is not here, or does not answer",
        ),
    ]


def _describe_cpu(cpu: Cpu) -> str:
    facts = [cpu.name or "unknown", *cpu.features]
    if clock := _describe_clock(cpu.now_mhz, cpu.max_mhz):
        facts.append(clock)
    if cpu.governor:
        facts.append(f"governor {cpu.governor}")
    return ", ".join(facts)


def _describe_clock(now_mhz: float | None, max_mhz: float | None) -> str:
    if now_mhz is None:
        return "" if max_mhz is None else f"at most {max_mhz:.0f} MHz"
    return f"{now_mhz:.0f}{'' if max_mhz is None else f' of {max_mhz:.0f}'} MHz now"


def _read_model(root: Path) -> str | None:
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board
    names = (
        read_text(root / f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")
    )
    return " ".join(name for name in names if name) or None
