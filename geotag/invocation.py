"""What a command line asks for: a command leaves it behind, and `geotag.cli.main` does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from geotag.console import Console
from geotag.runs import OpenEngine


@dataclass(slots=True)
class Invocation:
    """`ctx.obj` of every command."""

    command: tuple[str, ...]
    open_engine: OpenEngine
    work: Callable[[], int] | None = None
    console: Console = field(default_factory=Console)
