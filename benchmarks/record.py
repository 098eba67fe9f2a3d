"""What a result is kept with: the command, the commit, the machine, the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(*packages: str, **more: object) -> dict[str, Any]:
    """Where and with what something is measured.

    Args:
        packages: distributions whose versions matter.
        more: what else does; `versions` are added to those of the packages.
    """
    git = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    found = subprocess.run(git, cwd=here, capture_output=True, text=True, check=False)
    versions = {name: metadata.version(name) for name in packages}
    versions |= dict(more.pop("versions", {}))  # type: ignore[call-overload]
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": found.stdout.strip(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        **more,
        "python": platform.python_version(),
        "versions": versions,
    }


def cpu_name() -> str:
    """As /proc/cpuinfo has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def save(report: dict[str, Any], name: str) -> None:
    """Keep a report as `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
