"""What a command line asks for: a command leaves it behind, and `geotag.cli.main` does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from geotag.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

    from geotag.runs import OpenEngine


@dataclass(slots=True)
class Invocation:
    """`ctx.obj` of every command."""

    command: tuple[str, ...]
    open_engine: OpenEngine
    work: Callable[[], int] | None = None
    console: Console = field(default_factory=Console)
