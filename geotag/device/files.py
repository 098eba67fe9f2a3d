"""Files and programs below a root, which is `/` but in tests; what is not there is None."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MACHINE = Path("/")

_PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "usr/local/bin", "bin", "sbin", "usr/lib/wsl/lib")
_PATIENCE_S = 10.0


def read_text(path: Path) -> str | None:
    """A small text file, stripped; the zero byte that ends names in a device tree goes too.

    A file of sysfs may be there and refuse to be read: a thermal zone that is switched off does.
    """
    try:
        return path.read_bytes().decode("utf-8", errors="replace").strip(" \t\r\n\0") or None
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """A file that holds one whole number."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def ask_program(root: Path, name: str, *arguments: str) -> str | None:
    """What a program of the system prints; None where it is missing, hangs or prints nothing."""
    for folder in _PROGRAM_FOLDERS:
        program = root / folder / name
        if os.access(program, os.X_OK) and program.is_file():
            return _ask(program, arguments)
    return None


def _ask(program: Path, arguments: tuple[str, ...]) -> str | None:
    try:
        answer = subprocess.run(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", errors="replace").strip() or None
