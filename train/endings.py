"""How a command of training ends where it cannot go on: what a person is told, and the exit code.

The codes are those of a scan: 2 a flag, a path or a dataset that cannot be used; 5 the result
cannot be written; 6 an engine or a bundle that cannot be used; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from engines.base import EngineError
from geotag.errors import EXIT_ENGINE, EXIT_INTERRUPTED, GeotagError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


@contextmanager
def telling(console: Console, *, stopped: str | Callable[[], str]) -> Iterator[None]:
    """Turn what ends a command into one message and its exit code; a bug of ours keeps its trace.

    Args:
        console: where people read.
        stopped: what is said after Ctrl-C: what is kept, and how to go on; or what finds that out.
    """
    try:
        yield
    except KeyboardInterrupt as exc:
        told = stopped if isinstance(stopped, str) else stopped()
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from exc
    except (GeotagError, EngineError, OSError) as exc:
        # Not wrapped: a command in it can be copied.
        console.print(f"error: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(exit_code_of(exc)) from exc


def exit_code_of(error: Exception) -> int:
    """The exit code that an error asks for."""
    if isinstance(error, GeotagError):
        return error.exit_code
    return EXIT_ENGINE if isinstance(error, EngineError) else OutputError.exit_code
