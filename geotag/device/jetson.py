"""Jetson modules: which one, its release, its power mode, its clock.  Nothing is ever set.

Sources: the names of modules and the paths of clocks as in jetson_stats (rbonghi) and NVIDIA's
device trees; multiprocessors as in NVIDIA's data sheets (CUDA cores / 128).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.device.files import ask_program, read_number, read_text

if TYPE_CHECKING:
    from pathlib import Path

_MODULES: dict[str, tuple[str, int | None]] = {
    "p3701-0000": ("Jetson AGX Orin", 16),
    "p3701-0004": ("Jetson AGX Orin 32 GB", 14),
    "p3701-0005": ("Jetson AGX Orin 64 GB", 16),
    "p3701-0008": ("Jetson AGX Orin Industrial", 16),
    "p3767-0000": ("Jetson Orin NX 16 GB", 8),
    "p3767-0001": ("Jetson Orin NX 8 GB", 8),
    "p3767-0003": ("Jetson Orin Nano 8 GB", 8),
    "p3767-0004": ("Jetson Orin Nano 4 GB", 4),
    "p3767-0005": ("Jetson Orin Nano 8 GB", 8),
    "p3834-0008": ("Jetson AGX Thor T5000", None),
}
"""Part number in the device tree -> name, and multiprocessors where the GPU is Ampere (sm_87)."""

_JETPACKS = {36: "JetPack 6", 38: "JetPack 7", 39: "JetPack 7"}
_GPU_NAMES = ("ga10b", "gpu", "gv11b")
"""Of the node in the device tree: JetPack 5, JetPack 6 on Orin, Xavier."""
_GPU_CLOCKS = ("gpu-gpc-0",)
"""Names below /sys/class/devfreq of GPUs that are no node: Thor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """What `nvpmodel` was told; it caps the clocks."""

    name: str | None
    number: int | None

    def __str__(self) -> str:
        """`MAXN_SUPER (mode 2)`."""
        number = "" if self.number is None else f"mode {self.number}"
        return f"{self.name} ({number})" if self.name and number else self.name or number


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """What is particular to a Jetson."""

    module: str | None
    """Name by its part number; None for one that this version does not know."""
    multiprocessors: int | None
    """Of an Orin's GPU, all of them switched on; None where the module is not known."""
    l4t: str | None
    """Release of Jetson Linux, such as 36.4.3."""
    jetpack: str | None
    power_mode: PowerMode | None


def read_jetson(root: Path) -> Jetson | None:
    """What Jetson this is; None if it is none."""
    compatible = read_text(root / "proc/device-tree/compatible") or ""
    l4t = _read_l4t(root)
    is_jetson = re.search(r"nvidia,(?:tegra\d|p\d{4}-\d{4})", compatible)
    if l4t is None and not is_jetson:
        return None
    # A carrier board has a number of the same form: `p3768-0000+p3767-0005-super`.
    part = next((one for one in re.findall(r"p\d{4}-\d{4}", compatible) if one in _MODULES), "")
    module, multiprocessors = _MODULES.get(part, (None, None))
    return Jetson(
        module=module,
        multiprocessors=multiprocessors,
        l4t=l4t,
        jetpack=_JETPACKS.get(int(l4t.split(".")[0])) if l4t else None,
        power_mode=_read_power_mode(root),
    )


def gpu_clock_folder(root: Path) -> Path | None:
    """Where sysfs has the clock of an integrated GPU: Orin's, Xavier's or Thor's."""
    try:
        folders = sorted((root / "sys/class/devfreq").iterdir())
    except OSError:
        return None
    for folder in folders:
        name = read_text(folder / "device/of_node/name") or folder.name.rpartition(".")[2]
        if name in _GPU_NAMES or folder.name in _GPU_CLOCKS:
            return folder
    return None


def clock_mhz(folder: Path, which: str) -> float | None:
    """A clock of a devfreq folder; `which` is cur, max or min."""
    hertz = read_number(folder / f"{which}_freq")
    return None if hertz is None else round(hertz / 1e6, 1)


def _read_l4t(root: Path) -> str | None:
    """`# R36 (release), REVISION: 4.3, GCID: ...` -> 36.4.3."""
    text = read_text(root / "etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def _read_power_mode(root: Path) -> PowerMode | None:
    told = ask_program(root, "nvpmodel", "-q") or ""
    named = re.search(r"NV Power Mode: *(\S+)", told)
    if named:
        number = re.search(r"^\d+$", told, flags=re.MULTILINE)
        return PowerMode(name=named[1], number=int(number[0]) if number else None)
    # In a container there is no such program, or it is forbidden; its memory may be mounted.
    kept = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    if not kept:
        return None
    number_kept = int(kept[1])
    modes = read_text(root / "etc/nvpmodel.conf") or ""
    entry = re.search(rf"POWER_MODEL ID={number_kept} NAME=(\S+)", modes)
    return PowerMode(name=entry[1] if entry else None, number=number_kept)
