"""One build in a process of its own: here are both ends of it.

The builder gives all its memory back when it ends, and takes nothing with it if the system kills it
for memory. It never outlives the process that wants the plan: its input ends then, whatever way.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import EngineBuildError, EngineError
from engines.plans import explained, write_whole
from engines.tensorrt_api import load_backend
from engines.tensorrt_build import BuildOptions, build_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.tensorrt_api import Backend

    Say = Callable[[str], None]
    """Is told, line by line, what takes so long."""

_ROOT = Path(__file__).resolve().parents[1]
_STILL_S = 30.0
"""How often somebody who waits is told that it goes on."""


def build_aside(
    graph: Path,
    folder: Path,
    *,
    backend: Backend,
    options: BuildOptions,
    workspace_bytes: int | None,
    timing_cache: Path,
    doing: str,
    say: Say,
) -> bytes:
    """Compile a graph in another process, and wait for it.

    Args:
        graph: the ONNX file.
        folder: where the plan may lie for a moment.
        backend: which TensorRT.
        options: what the plan is for.
        workspace_bytes: how much memory TensorRT may try kernels with.
        timing_cache: file that keeps how fast kernels were.
        doing: what is being done, for the text of an error.
        say: is told now and then that it goes on.

    Raises:
        EngineBuildError: TensorRT refuses, or the process was killed; nothing is left behind.
        EngineError: the disk is full or cannot be written.
    """
    part = folder / f".plan.{os.getpid()}.part"
    request = {
        "backend": backend.name,
        "graph": str(graph),
        "out": str(part),
        "options": asdict(options),
        "workspace_bytes": workspace_bytes,
        "timing_cache": str(timing_cache),
    }
    try:
        with tempfile.TemporaryFile() as log:
            code, answer = _talk(request, log.fileno(), doing, say)
            log.seek(0)
            _check_outcome(code, answer, log.read().decode("utf-8", "replace"), doing)
        with explained(doing):
            return part.read_bytes()
    finally:
        part.unlink(missing_ok=True)


def _talk(request: Mapping[str, object], log: int, doing: str, say: Say) -> tuple[int, str]:
    """Start the process, give it its task, and wait; gone with this process, whatever way."""
    paths = [str(_ROOT), *filter(None, sys.path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "engines.build_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is for this process to judge
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        started_s = time.monotonic()
        while True:
            try:
                code = process.wait(_STILL_S)  # its answer is a line, which the pipe can hold
                break
            except subprocess.TimeoutExpired:
                say(f"{doing}: still at it after {time.monotonic() - started_s:.0f} s")
        return code, process.stdout.read()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


def _check_outcome(code: int, answer: str, log: str, doing: str) -> None:
    """Raise what the process has met."""
    try:
        outcome = json.loads(answer)
    except ValueError:
        outcome = {}
    if code == 0 and outcome.get("ok"):
        return
    if "error" in outcome:
        kinds = {"build": EngineBuildError, "other": EngineError}
        raise kinds[outcome["error"]](outcome["text"])
    last = " | ".join(line for line in log.strip().splitlines()[-3:])
    if code == -signal.SIGKILL:
        raise EngineBuildError(
            f"{doing}: the system killed the builder, most likely for memory. Close other "
            "programs; on a Jetson also stop the desktop (`sudo systemctl isolate "
            "multi-user.target`) and add swap. Nothing of it is left behind."
        )
    ended = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
    raise EngineBuildError(
        f"{doing}: the builder {ended} and gave no plan; its last words: {last or 'none'}. "
        "Does `geotag doctor` say that this engine works here?"
    )


def main() -> int:
    """The other end: read the request, build, write the plan, answer."""
    # Whatever a library prints goes to the log; the answer alone goes to the parent.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _build(request)
        outcome: dict[str, object] = {"ok": True}
    except EngineError as exc:
        kind = "build" if isinstance(exc, EngineBuildError) else "other"
        outcome = {"error": kind, "text": str(exc)}
    json.dump(outcome, answers)
    answers.flush()
    return 0 if "ok" in outcome else 1


def _build(request: dict[str, object]) -> None:
    options = dict(request["options"])  # type: ignore[call-overload]
    plan = build_plan(
        load_backend(request["backend"]),  # type: ignore[arg-type]
        Path(str(request["graph"])),
        BuildOptions(
            max_batch=options["max_batch"],
            targets=tuple(options["targets"]),
            type_flags=tuple(options["type_flags"]),
        ),
        workspace_bytes=request["workspace_bytes"],  # type: ignore[arg-type]
        timing_cache=Path(str(request["timing_cache"])),
    )
    out = Path(str(request["out"]))
    with explained(f"writing a plan of {len(plan):,} bytes to {out.parent}"):
        write_whole(out, plan)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
