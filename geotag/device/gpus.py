"""NVIDIA GPUs: a Jetson's own by sysfs, cards by `nvidia-smi`, the versions of what drives them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.device.files import ask_program, read_text
from geotag.device.jetson import clock_mhz, gpu_clock_folder

if TYPE_CHECKING:
    from pathlib import Path

_QUERY = (
    "name",
    "driver_version",
    "compute_cap",
    "clocks.sm",
    "clocks.max.sm",
    "temperature.gpu",
    "memory.total",
    "memory.free",
    "power.limit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU; None is what the system does not tell."""

    name: str
    is_integrated: bool
    compute_capability: str | None = None
    now_mhz: float | None = None
    max_mhz: float | None = None
    """As far as the power mode lets it."""
    celsius: float | None = None
    memory_gib: float | None = None
    """Of its own; an integrated GPU has none."""
    free_gib: float | None = None
    power_limit_w: float | None = None


def read_gpus(root: Path, *, is_jetson: bool) -> tuple[Gpu, ...]:
    """Every NVIDIA GPU here."""
    cards = _ask_cards(root)
    folder = gpu_clock_folder(root) if is_jetson else None
    if folder is None:
        return cards
    told = cards[0] if cards else None  # JetPack 7 brings an nvidia-smi that knows few fields
    own = Gpu(
        name=told.name if told else "integrated GPU",
        is_integrated=True,
        compute_capability=told.compute_capability if told else None,
        now_mhz=clock_mhz(folder, "cur"),
        max_mhz=clock_mhz(folder, "max"),
    )
    return (own, *cards[1:])


def read_driver(root: Path) -> str | None:
    """Version of NVIDIA's kernel driver."""
    text = read_text(root / "proc/driver/nvidia/version") or ""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d[\d.]*)\s", text, re.MULTILINE)
    return found[1] if found else None


def read_toolkit(root: Path) -> str | None:
    """Version of the CUDA toolkit that is installed, which a scan does not need."""
    try:
        record = json.loads(read_text(root / "usr/local/cuda/version.json") or "{}")
        return str(record["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _ask_cards(root: Path) -> tuple[Gpu, ...]:
    told = ask_program(
        root, "nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"
    )
    rows = [[cell.strip() for cell in line.split(",")] for line in (told or "").splitlines()]
    return tuple(_card(dict(zip(_QUERY, row, strict=True))) for row in rows if _is_card(row))


def _is_card(row: list[str]) -> bool:
    return len(row) == len(_QUERY)


def _card(row: dict[str, str]) -> Gpu:
    return Gpu(
        name=row["name"],
        is_integrated=False,
        compute_capability=row["compute_cap"] if _number(row["compute_cap"]) else None,
        now_mhz=_number(row["clocks.sm"]),
        max_mhz=_number(row["clocks.max.sm"]),
        celsius=_number(row["temperature.gpu"]),
        memory_gib=_gib(row["memory.total"]),
        free_gib=_gib(row["memory.free"]),
        power_limit_w=_number(row["power.limit"]),
    )


def _number(text: str) -> float | None:
    """None for `[N/A]` and its like."""
    try:
        return float(text)
    except ValueError:
        return None


def _gib(mebibytes: str) -> float | None:
    number = _number(mebibytes)
    return None if number is None else round(number / 1024, 1)
