"""Write docs/comparison.md from a result of benchmarks/leaderboard.py.

    python benchmarks/comparison_page.py
    python benchmarks/comparison_page.py benchmarks/results/NAME.json --out page.md

The same result gives the same page. Nothing in it is written by hand but the sentences below.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import RESULTS
from engines.bundle import LEVELS
from train.evaluation.report import MODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Record = Mapping[str, Any]

PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"
SHOWN = "codependent"
COLUMNS = 98
USED = 0.02
"""Share of the clips that a part answers if it is used at all."""
CONSTANT = "always the most frequent place"

BEGIN = """\
# Comparison

Every system that the paper (CityGuessr, Kulkarni et al., ECCV 2024) compares itself with, and our
own additions, behind one contract: each is a preset that can be trained, measured, exported and
scanned with. This page holds two kinds of numbers that have nothing to do with each other: those
that were published, on real footage, and ours, on the rendered world.

**Rendered footage ranks mechanisms, not accuracy on roads.** Ours are tiny networks that begin
from nothing and see procedural drives for minutes. Who is ahead here sees more of a clip or
learns faster; on real footage published weights, size and data decide. None of the published
numbers was repeated by us.
"""

SYSTEMS = """\
## The systems

Parameters are those without classifiers and teachers, GMAC are 10^9 multiplications with an
addition of one clip, both counted (`python -m train.count`) at the size that the preset has;
published is top-1 % of city / state / country / continent on CityGuessr68k. The paper decoded its
full method codependent and does not say how it decoded the others; decoding alone moved its
continents by 4.6 points. Its PlaNet and its MAE on a random frame have the same four numbers: one
run under two names. Here PlaNet is a ResNet-50, as the original was a convolutional network.
"""

RANKED = """\
## On the rendered world

Top-1 % ({shown} decoding) on {measured_on}, {spread}; the best at cities first. Systems are called
after what they begin from at full size; here all begin from nothing, so that image MAE is a plain
ViT.

* Seen: % of a clip's patches that a training step looks at, an aid to speed. Compare systems that
  have seen alike. "All frames, averaged" learns from that share of every frame and is worse for it;
  a random frame is seen whole, so that its row measured on all frames is the fairer control.
* Conflicts: % of clips whose four levels contradict each other where each is answered alone.
* Parameters are all that the tiny network holds.
* Latency: of one clip, as a multiple of that of `{main}`, all measured in turn in one run
  ({engine}, threads: {threads}, median of {turns} turns).
"""

DECODED = """\
## Every decoding

The same networks, city / state / country / continent in top-1 %; below, % of clips whose levels
contradict each other. What each decoding does: `geotag/places/hierarchy.py`.
"""

ROUTED = """\
## Use of several parts

Where a network divides clips among experts or sets of queries: how many of them answered at least
2 % of the clips; then of each the mean share of a clip that it got, and in brackets how often it
got most, in %. Clips of the rendered world show {scenes} of the 16 groups of scenes.
"""

BUDGET = """\
## The same budget

All systems: {steps} optimiser steps of {batch} clips, {clips_seen:,} clips seen, and size,
optimiser, data and aids of the preset `{like}`. A whole clip is learned through the share of its
tokens that this preset says where the network can leave some out; a single picture is seen whole.
An aid that a network cannot take is left out.
The budget is equal in what is seen, not in multiplications: those are in the tables.{same}
"""

REPEAT = """\
## To repeat it

```bash
{data}
{command}
python benchmarks/comparison_page.py
```

It may be stopped and given again; three seeds take some eight hours of one core. {made}Latencies,
and the figures put together here: commit {commit}, {cpu}, {cores} cores, Python {python},
{versions}. The paper's own tables, on real footage: `python -m train.tables` (`docs/training.md`).
"""


def main() -> int:
    """Write the page.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, nargs="?", help="default: the last in results/")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    result = arguments.result or last_result()
    if result is None:
        print(
            f"writing {arguments.out}: there is no {RESULTS}/leaderboard_*.json. Make one with "
            "python benchmarks/leaderboard.py --save leaderboard_NAME, or name another.",
            file=sys.stderr,
        )
        return 2
    try:
        text = page(json.loads(result.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        print(
            f"writing {arguments.out}: {result} is no result of "
            f"benchmarks/leaderboard.py ({exc!r}). Give the JSON file that its --save wrote into "
            "benchmarks/results.",
            file=sys.stderr,
        )
        return 2
    arguments.out.write_text(text, encoding="utf-8", newline="\n")
    print(f"written to {arguments.out}")
    return 0


def last_result() -> Path | None:
    """The result that the page in the repository is of: the last by name."""
    return max(RESULTS.glob("leaderboard_*.json"), default=None)


def page(report: Record) -> str:
    """The whole page.

    Args:
        report: of benchmarks/leaderboard.py.
    """
    rows = report["rows"]
    routed = [row for row in rows if "routing" in row]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    runs = ", ".join(f"{count} on {name}" for name, count in report["made_on"].items())
    made = (
        f"Trained and measured: {runs}. A GPU trains in bfloat16, a processor in float32, which "
        "changes a run as another seed does. "
    )
    ranked = filled(
        RANKED.format(shown=SHOWN, spread=spread_of(report), **{**report, **report["latency"]})
    )
    parts = [
        BEGIN,
        SYSTEMS,
        table(
            ("system", "preset", "what it is", "M", "GMAC", "published"),
            map(_system, rows),
            words=3,
        ),
        ranked,
        table(
            ("system", *LEVELS, "seen", "conflicts", "parameters, M", "GMAC", "latency"),
            [*map(_ranked, best_first(rows)), _constant(report["floor"])],
        ),
        DECODED,
        table(("system", *MODES), [_decoded(row) for row in rows]),
        table(("conflicts", *MODES), [_conflicts(row) for row in rows]),
        *(
            [
                filled(ROUTED.format(scenes=report["scenes"])),
                "\n".join(map(_routed, routed)) + "\n",
            ]
            if routed
            else []
        ),
        filled(BUDGET.format(**report["budget"], same=same_of(report))),
        filled(REPEAT.format(**{**report, "versions": versions, "made": made})),
    ]
    return "\n".join(parts)


def best_first(rows: Sequence[Record]) -> list[Record]:
    """Rows by how often their city is right; equal ones as they came."""
    return sorted(rows, key=lambda row: -row["decodings"][SHOWN]["city"]["value"])


def spread_of(report: Record) -> str:
    """What the numbers are means of, and what their intervals hold."""
    if report["seeds"] == 1:
        return (
            "of one seed, with the 95 % interval that the chance of clips leaves: what another "
            "seed would change is not in it"
        )
    return (
        f"mean of {report['seeds']} seeds with its 95 % interval, which holds the chance of clips "
        "and of seeds"
    )


def same_of(report: Record) -> str:
    """Presets that are one row."""
    return "".join(
        f" The row of `{shown}` is that of {' and '.join(f'`{name}`' for name in more)} too: they "
        "differ in what is equal for all here."
        for shown, *more in report.get("same_runs", ())
    )


def filled(text: str) -> str:
    """The same with lines as long as the page's, where values were put into sentences."""
    parts = [
        part
        if part.startswith(("#", "```", "* "))
        else textwrap.fill(part, COLUMNS, break_long_words=False, break_on_hyphens=False)
        for part in text.rstrip().split("\n\n")
    ]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table in Markdown; of its columns the first `words` to the left, numbers to the right."""
    rules = ["---"] * words + ["--:"] * (len(heads) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rules, *rows))


def _system(row: Record) -> tuple[str, ...]:
    full, published = row["full_size"], row["published"]
    return (
        row["label"],
        f"`{row['preset']}`",
        row["about"],
        f"{full['trunk_parameters'] / 1e6:.1f}",
        f"{full['gmac_per_clip']:.1f}",
        "" if published is None else _joined(published),
    )


def _ranked(row: Record) -> tuple[str, ...]:
    found = row["decodings"][SHOWN]
    return (
        row["label"],
        *(
            f"{found[level]['value']:.1f} ({found[level]['low']:.0f}-{found[level]['high']:.0f})"
            for level in LEVELS
        ),
        f"{100 * row['keep_tokens']:.0f}",
        f"{row['decodings']['without']['conflicts']['value']:.1f}",
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['gmac_per_clip']:.3f}",
        f"{row['latency_to_main']:.2f}",
    )


def _constant(floor: Mapping[str, float]) -> tuple[str, ...]:
    return (CONSTANT, *(f"{floor[level]:.1f}" for level in LEVELS), "", "", "", "", "")


def _decoded(row: Record) -> tuple[str, ...]:
    decodings = row["decodings"]
    return (
        row["label"],
        *(_joined([decodings[mode][level]["value"] for level in LEVELS]) for mode in MODES),
    )


def _conflicts(row: Record) -> tuple[str, ...]:
    found = (row["decodings"][mode]["conflicts"]["value"] for mode in MODES)
    return (row["label"], *(f"{value:.1f}" for value in found))


def _joined(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def _routed(row: Record) -> str:
    return "\n".join(
        f"* {row['label']}, {division}, "
        f"{sum(shares['largest'] >= USED for shares in routes.values())} of {len(routes)}: "
        + "; ".join(
            f"{name} {100 * shares['mean_share']:.0f} ({100 * shares['largest']:.0f})"
            for name, shares in routes.items()
        )
        for division, routes in row["routing"].items()
    )


if __name__ == "__main__":
    sys.exit(main())
