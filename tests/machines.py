"""Machines as trees of files: what `etc`, `proc`, `sys` and a few programs say on each.

The texts have the form of real ones that people published; a number that a test looks for is
in the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARM_CPU = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimdrdm dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

processor\t: 1
Features\t: fp asimd
CPU part\t: 0xd42
"""
THOR_CPU = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd83
"""
LAPTOP_CPU = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM) i7-1370P
cpu MHz\t\t: 1893.021
flags\t\t: fpu sse sse2 avx avx2 avx_vnni

processor\t: 1
model name\t: 13th Gen Intel(R) Core(TM) i7-1370P
cpu MHz\t\t: 2412.500
flags\t\t: fpu sse sse2 avx avx2 avx_vnni
"""
MODES = """\
< PM_CONFIG DEFAULT=1 >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


def release(major: int, revision: str) -> str:
    """`/etc/nv_tegra_release`."""
    return (
        f"# R{major} (release), REVISION: {revision}, GCID: 38968081, BOARD: generic, "
        "EABI: aarch64, DATE: Wed Jan  8 01:51:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
    )


def program(prints: str, code: int = 0) -> str:
    """A program that prints a text."""
    return f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {code}\n"


ORIN_NANO: dict[str, str] = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": (
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    ),
    "etc/nv_tegra_release": release(36, "4.3"),
    "etc/nvpmodel.conf": MODES,
    "usr/sbin/nvpmodel": program("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2"),
    "proc/cpuinfo": ARM_CPU,
    "proc/loadavg": "0.08 0.12 0.09 1/312 4711\n",
    "proc/meminfo": (
        "MemTotal:        7802736 kB\nMemFree:         1048576 kB\nMemAvailable:    5242880 kB\n"
    ),
    "proc/driver/nvidia/version": (
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (b@k)\n"
        "GCC version:  collect2: error: ld returned 1 exit status\n"
    ),
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    "sys/class/devfreq/13e00000.host1x/cur_freq": "204000000\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1344000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1728000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "104500\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "99000\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "82500\n",
    "sys/class/thermal/thermal_zone1/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone1/trip_point_0_temp": "99000\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",
    "sys/class/thermal/thermal_zone10/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone10/temp": "83000\n",
}
"""JetPack 6.2, MAXN_SUPER, warm; a sensor that is off."""

AGX_ORIN: dict[str, str] = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": (
        "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0"
    ),
    "etc/nv_tegra_release": release(39, "2.0"),
    "var/lib/nvpmodel/status": "pmode:0003 fmode:fanNull",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_50W >\n",
    "proc/cpuinfo": ARM_CPU,
    "sys/class/devfreq/17000000.gpu/cur_freq": "828750000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "828750000\n",
}
"""JetPack 7.2 in a container: no nvpmodel, but its files."""

THOR: dict[str, str] = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": (
        "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0"
    ),
    "etc/nv_tegra_release": release(38, "2.0"),
    "usr/sbin/nvpmodel": program("NV Power Mode: MAXN\n0"),
    "usr/bin/nvidia-smi": program(
        "NVIDIA Thor, 580.00, 11.0, [N/A], [N/A], 48, [N/A], [N/A], [N/A]"
    ),
    "proc/cpuinfo": THOR_CPU,
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "315000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "900000000\n",
}

LAPTOP: dict[str, str] = {
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "21HDCTO1WW\n",
    "proc/cpuinfo": LAPTOP_CPU,
    "proc/loadavg": "3.21 2.00 1.10 9/812 4711\n",
    "proc/meminfo": "MemTotal:       32505856 kB\n",
    "proc/driver/nvidia/version": (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 01:56:10 UTC 2025\n"
    ),
    "usr/bin/nvidia-smi": program(
        "NVIDIA GeForce RTX 4060 Laptop GPU, 570.124.06, 8.9, 2100, 3105, 47, 8188, 7420, 80.00"
    ),
}

BROKEN: dict[str, str] = {
    "proc/device-tree/compatible": "nvidia,p9999-0001\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "not what it should be",
    "usr/sbin/nvpmodel": program("NVPM ERROR: no permission", code=1),
    "usr/bin/nvidia-smi": program("Failed to initialize NVML: Driver/library version mismatch"),
    "proc/cpuinfo": "nonsense",
    "proc/loadavg": "busy",
    "proc/meminfo": "MemTotal: a lot",
    "usr/local/cuda/version.json": "[1]",
    "sys/class/thermal/thermal_zone0/temp": "warm\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "\n",
}
"""A module that nobody has heard of, on which everything answers nonsense."""


def make_machine(root: Path, files: Mapping[str, str]) -> Path:
    """Lay the tree; what is below a folder for programs can be run."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if "bin/" in name:
            path.chmod(0o755)
    return root
