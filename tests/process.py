"""The installed `geotag` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def geotag_command() -> list[str]:
    """The script beside this Python, or the module where it is not installed."""
    script = Path(sys.executable).with_name("geotag")
    return [str(script)] if script.exists() else [sys.executable, "-m", "geotag"]


def geotag_environ() -> dict[str, str]:
    """The environment, with this checkout on Python's path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::ResourceWarning"}


def run_geotag(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*geotag_command(), *arguments],
        cwd=cwd,
        env=geotag_environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
