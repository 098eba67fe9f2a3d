"""Is anything lost, or anything different, when a scan is killed at any moment?

    python benchmarks/kills.py              # 100 kills, about ten minutes on two cores
    python benchmarks/kills.py --kills 10

A small card (the one of `benchmarks/card.py`) is scanned undisturbed. Then, into other folders,
again and again: started, killed with SIGKILL at a moment drawn from `--seed`, one to three times,
and then run to its end. Looked at:

after each kill    an output that is there is complete; no process is left behind; the ledger opens
                   and is sound;
after the end      every output has the bytes of the undisturbed run, and no lock is left.

Exit status 1 if any of it does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.card import descendants, make_card, make_sources
from benchmarks.record import machine, save
from geotag.ledger import LEDGER_FILE
from tests.process import geotag_command, geotag_environ

OUTPUTS = ("tags.geojson", "tags.csv", "tracks.geojson")
FILES = 24
MOST_IN_A_ROW = 3
ORPHAN_S = 5.0
"""A child notices that its parent is gone when it reads from it next."""
SCAN_S = 300.0


@dataclass(slots=True)
class Outcome:
    """What was seen over all kills."""

    kills: int = 0
    too_late: int = 0
    """The scan had ended before its kill."""
    finished_before: list[int] = field(default_factory=list)
    """Texts in the ledger after each kill: kills fell into all parts of a scan."""
    wrong: list[str] = field(default_factory=list)
    parts_left: int = 0
    """Hidden files of unfinished outputs, which only take space."""
    finishing_s: list[float] = field(default_factory=list)


def main() -> int:
    """Kill, finish, compare; print what was seen and the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=FILES, help="videos on the card")
    parser.add_argument("--footage", type=Path, help="folder of real videos to link to")
    parser.add_argument("--bundle", default="demo", help="model to look at pictures with")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geotag-kills-") as name:
        sources = make_sources(Path(name) / "sources", arguments.footage)
        card = make_card(Path(name) / "card", sources, arguments.files)
        undisturbed_s, outcome = kill_scans(
            card, Path(name) / "runs", arguments.kills, arguments.seed, arguments.bundle
        )
    report = {
        "kills": outcome.kills,
        "seed": arguments.seed,
        "files": arguments.files,
        "wrong": outcome.wrong,
        "too_late": outcome.too_late,
        "texts_kept_quartiles": quartiles(outcome.finished_before),
        "unfinished_files_left": outcome.parts_left,
        "undisturbed_s": round(undisturbed_s, 2),
        "finishing_s": round(statistics.mean(outcome.finishing_s or [0.0]), 2),
        **machine("av", "numpy"),
        "command": " ".join(["python", "benchmarks/kills.py", *sys.argv[1:]]),
    }
    print(
        f"{outcome.kills} kills, {len(outcome.wrong)} wrong; an undisturbed scan takes "
        f"{undisturbed_s:.1f} s, one that goes on {report['finishing_s']} s"
    )
    for line in outcome.wrong:
        print(line)
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if outcome.wrong else 0


def kill_scans(card: Path, runs: Path, kills: int, seed: int, bundle: str) -> tuple[float, Outcome]:
    """Scan undisturbed, then kill and finish until there were enough kills.

    Returns:
        How long the undisturbed scan took, and what was seen.
    """
    rng = random.Random(seed)
    command = scan_command(card, bundle)
    undisturbed_s, error = finish(command, runs / "undisturbed")
    wanted = read_outputs(runs / "undisturbed")
    outcome = Outcome()
    if len(wanted) < len(OUTPUTS):
        outcome.wrong.append(f"the undisturbed scan wrote {sorted(wanted)} alone: {error}")
        return undisturbed_s, outcome
    while outcome.kills < kills:
        folder = runs / f"killed-{outcome.kills}"
        for number in range(min(rng.randint(1, MOST_IN_A_ROW), kills - outcome.kills)):
            # One that goes on is quicker, so later ones come earlier; squared: more of them early.
            most_s = undisturbed_s / (1 + number)
            kill(command, folder, most_s * rng.random() ** 2, outcome)
            check_killed(folder, wanted, outcome)
        seconds, error = finish(command, folder)
        outcome.finishing_s.append(seconds)
        check_finished(folder, wanted, error, outcome)
        shutil.rmtree(folder)
    return undisturbed_s, outcome


def scan_command(card: Path, bundle: str) -> list[str]:
    """The scan, into the folder where it is started."""
    tags, table, tracks = OUTPUTS
    outs = ["-o", tags, "-o", table, "--tracks", tracks]
    return [*geotag_command(), "scan", str(card), "-b", bundle, "-q", *outs]


def finish(command: Sequence[str], folder: Path) -> tuple[float, str]:
    """Run a scan to its end.  -> seconds, and what it said."""
    folder.mkdir(parents=True, exist_ok=True)
    started_s = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=geotag_environ(),
        capture_output=True,
        text=True,
        timeout=SCAN_S,
        check=False,
    )
    return time.perf_counter() - started_s, f"exit {done.returncode}, {done.stderr[-500:]}"


def kill(command: Sequence[str], folder: Path, after_s: float, outcome: Outcome) -> None:
    """Start a scan and end it at a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=geotag_environ(), stdout=quiet, stderr=quiet
    )
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        outcome.kills += 1
    else:
        outcome.too_late += 1
        return
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ends_s = time.monotonic() + ORPHAN_S
    while left := [child for child in children if is_running(child)]:
        if time.monotonic() > ends_s:
            outcome.wrong.append(f"kill {outcome.kills}: processes {left} are left behind")
            break
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_killed(folder: Path, wanted: dict[str, bytes], outcome: Outcome) -> None:
    """What must hold after any kill."""
    for name, content in read_outputs(folder).items():
        if content != wanted[name]:
            outcome.wrong.append(f"kill {outcome.kills}: {name} is neither absent nor complete")
    if not (folder / LEDGER_FILE).exists():
        outcome.finished_before.append(0)
        return
    try:
        with closing(sqlite3.connect(folder / LEDGER_FILE)) as ledger:
            (sound,) = ledger.execute("PRAGMA integrity_check(1)").fetchone()
            tables = ledger.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            count = ledger.execute("SELECT count(*) FROM evidence").fetchone()[0] if tables else 0
    except sqlite3.Error as exc:
        sound, count = repr(exc), 0
    outcome.finished_before.append(count)
    if sound != "ok":
        outcome.wrong.append(f"kill {outcome.kills}: the ledger is damaged: {sound}")


def check_finished(folder: Path, wanted: dict[str, bytes], error: str, outcome: Outcome) -> None:
    """What must hold after a scan that was killed and then run to its end."""
    found = read_outputs(folder)
    for name, content in wanted.items():
        if found.get(name) != content:
            outcome.wrong.append(f"after kill {outcome.kills}: {name} differs ({error})")
    if list(folder.glob(".*geotag-lock")):
        outcome.wrong.append(f"after kill {outcome.kills}: a lock is left")
    outcome.parts_left += len(list(folder.glob(".*.part")))


def read_outputs(folder: Path) -> dict[str, bytes]:
    """The outputs that are there."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}


def quartiles(values: Sequence[int]) -> list[float]:
    """Least, three quartiles, most."""
    if len(values) < 2:
        return [float(value) for value in values]
    return [min(values), *statistics.quantiles(values, n=4), max(values)]


if __name__ == "__main__":
    sys.exit(main())
