"""Two pictures of an evaluation: where the answers go on the map, and what confidences are worth.

Drawn from `evaluation.json` alone, so that they can be drawn again; the same numbers give the same
bytes. matplotlib is only loaded here, and only when something is drawn.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.estimates import wilson_interval
from engines.bundle import LEVELS
from train.checkpoint import PICTURES
from train.errors import TrainError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Record = dict[str, Any]

CONFUSION, RELIABILITY = PICTURES
DPI = 120
LINES = 40
"""Confusions that are drawn: more hide the map."""
NAMED = 15
"""Cities that are named: those with the most wrong clips."""
EDGE_LON_DEG = 150.0
"""Names of cities east of it stand to their left: to their right the map ends."""
SIZES = (15.0, 110.0)
"""Areas of the smallest and of the largest disc, square points."""
LAND = "#c9cdd2"
INK = "#30343b"


def need_matplotlib() -> None:
    """Refuse to begin what could not be drawn in the end.

    Raises:
        TrainError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise TrainError(
            "drawing the plots of an evaluation: matplotlib is not installed. Install it with "
            "`pip install matplotlib`, or give --no-plots."
        )


def draw_plots(evaluation: Record, folder: Path) -> None:
    """Draw both pictures into a folder.

    Raises:
        TrainError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    need_matplotlib()
    _save(confusion_map(evaluation), folder / CONFUSION)
    _save(reliability_plot(evaluation), folder / RELIABILITY)


def confusion_map(evaluation: Record) -> Figure:
    """True cities on a world map, by clips and accuracy, and lines to where wrong answers go.

    The grey land is the places of the gazetteer themselves, so deserts are as white as seas.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.1), layout="constrained")
    axes = figure.add_subplot()
    _draw_world(axes)
    _draw_lines(axes, evaluation["confusions"][:LINES])
    colours = ScalarMappable(Normalize(0, 100), "RdYlGn")
    _draw_cities(axes, evaluation["cities"], colours)
    _name_cities(axes, evaluation["cities"])
    _explain(axes, evaluation["cities"])
    figure.colorbar(colours, ax=axes, label="city top-1, %", shrink=0.7, pad=0.01)
    top1 = evaluation["metrics"]["marginal"]["city"]["top1"]["value"]
    share = "no known city" if top1 is None else f"city top-1 {100 * top1:.1f} %"
    axes.set_title(
        f"{evaluation['model']} on {evaluation['clips']} samples of {evaluation['dataset']}: "
        f"{share} (marginal decoding)",
        loc="left",
    )
    return figure


def reliability_plot(evaluation: Record) -> Figure:
    """How often answers of each confidence are right, per level, and how many there are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    columns = figure.subplots(
        2, len(LEVELS), sharex=True, sharey="row", gridspec_kw={"height_ratios": (3, 1)}
    )
    for column, level in enumerate(LEVELS):
        metrics = evaluation["metrics"]["marginal"][level]
        _draw_reliability(columns[0, column], columns[1, column], evaluation["reliability"][level])
        ece = metrics["ece"]["value"]
        text = "nothing to count" if ece is None else f"ECE {100 * ece:.1f} %"
        columns[0, column].set_title(f"{level}: {text}")
        columns[1, column].set_xlabel("confidence")
    columns[0, 0].set_ylabel("share right")
    columns[1, 0].set_ylabel("clips")
    figure.suptitle(
        f"{evaluation['model']} on {evaluation['clips']} samples of {evaluation['dataset']} "
        f"(marginal decoding; calibrated by {evaluation['calibrated_by']})",
        fontsize=10,
    )
    return figure


def _draw_world(axes: Axes) -> None:
    from geotag.places.gazetteer import read_gazetteer

    table = read_gazetteer().table
    axes.scatter(
        table.lons_deg, table.lats_deg, s=0.25, color=LAND, linewidths=0, rasterized=True, zorder=1
    )
    axes.set_xlim(-180, 180)
    axes.set_ylim(-60, 80)
    # A degree of longitude as long as one of latitude at 40 degrees, where most cities are.
    axes.set_aspect(1 / np.cos(np.radians(40.0)))
    axes.set_xticks(range(-180, 181, 30))
    axes.set_yticks(range(-60, 81, 20))
    axes.grid(color="#e6e8eb", linewidth=0.5, zorder=0)
    axes.tick_params(labelsize=7, colors="#8a9099", length=0)
    for side in axes.spines.values():
        side.set_color("#e6e8eb")


def _draw_lines(axes: Axes, confusions: list[Record]) -> None:
    """From the true city to the answer; where the short way crosses the date line, both ends."""
    most = max((confusion["clips"] for confusion in confusions), default=1)
    for confusion in confusions:
        (lat, lon), (to_lat, to_lon) = confusion["city_deg"], confusion["answer_deg"]
        if None in (lat, lon, to_lat, to_lon):
            continue
        share = confusion["clips"] / most
        turn = 360.0 * round((lon - to_lon) / 360.0)
        for shift in {0.0, -turn}:
            axes.annotate(
                "",
                xy=(to_lon + turn + shift, to_lat),
                xytext=(lon + shift, lat),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": INK,
                    "alpha": 0.2 + 0.6 * share,
                    "linewidth": 0.4 + 2.2 * share,
                    "connectionstyle": "arc3,rad=0.15",
                    "shrinkA": 3,
                    "shrinkB": 3,
                },
                annotation_clip=False,
                zorder=3,
            ).set_clip_on(True)


def _draw_cities(axes: Axes, cities: list[Record], colours: Any) -> None:  # noqa: ANN401
    """Known cities as discs, unknown ones as crosses; the largest first, the small on top."""
    placed = [city for city in cities if city["lat_deg"] is not None]
    most = max((city["clips"] for city in placed), default=1)
    for city in sorted(placed, key=lambda city: (-city["clips"], city["city"])):
        axes.scatter(
            [city["lon_deg"]],
            [city["lat_deg"]],
            s=_disc(city["clips"], most),
            color=[colours.to_rgba(100 * city["right"] / city["clips"])] if city["known"] else INK,
            marker="o" if city["known"] else "x",
            edgecolors=INK if city["known"] else None,
            linewidths=0.6 if city["known"] else 1.2,
            zorder=4,
        )


def _name_cities(axes: Axes, cities: list[Record]) -> None:
    """Names of the cities with the most wrong clips; one too near to a named one stays unnamed."""
    from matplotlib.patheffects import withStroke

    placed = [city for city in cities if city["lat_deg"] is not None]
    wrong = [city for city in placed if city["clips"] > city["right"]]
    wrong.sort(key=lambda city: (city["right"] - city["clips"], city["city"]))
    named: list[Record] = []
    for city in wrong:
        is_near = any(
            abs(city["lat_deg"] - other["lat_deg"]) < 4
            and abs(city["lon_deg"] - other["lon_deg"]) < 22
            for other in named
        )
        if is_near or len(named) == NAMED:
            continue
        named.append(city)
        is_at_edge = city["lon_deg"] > EDGE_LON_DEG
        axes.annotate(
            f"{city['city']} {city['right']}/{city['clips']}",
            (city["lon_deg"], city["lat_deg"]),
            xytext=(-7 if is_at_edge else 7, 3),
            horizontalalignment="right" if is_at_edge else "left",
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
            parse_math=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=6,
        )


def _explain(axes: Axes, cities: list[Record]) -> None:
    """A legend for what size and line mean."""
    from matplotlib.lines import Line2D

    most = max((city["clips"] for city in cities), default=1)
    sizes = sorted({1, most})
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=_disc(clips, most) ** 0.5,
            markerfacecolor="white",
            markeredgecolor=INK,
            label=f"{clips} sample{'s' * (clips > 1)}",
        )
        for clips in sizes
    ]
    if not all(city["known"] for city in cities):
        handles.append(
            Line2D([], [], linestyle="", marker="x", color=INK, label="not known to the model")
        )
    handles.append(
        Line2D([], [], color=INK, alpha=0.6, linewidth=1.5, label="mistaken for (arrow)")
    )
    axes.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.9, edgecolor="#e6e8eb")


def _disc(clips: int, most: int) -> float:
    return SIZES[0] + (SIZES[1] - SIZES[0]) * clips / most


def _draw_reliability(above: Axes, below: Axes, bins: list[Record]) -> None:
    """Bars of the share right, each with the Wilson interval that its clips leave open."""
    width = [found["high"] - found["low"] for found in bins]
    left = [found["low"] for found in bins]
    accuracy = np.array([found["accuracy"] for found in bins])
    ends = [wilson_interval(found["accuracy"], found["clips"]) for found in bins]
    above.bar(left, accuracy, width, align="edge", color="#9db8d9", edgecolor="white", zorder=2)
    if bins:
        above.errorbar(
            [found["confidence"] for found in bins],
            accuracy,
            yerr=np.abs(np.array(ends).T - accuracy),
            fmt="o",
            color="#1f4e8c",
            markersize=4,
            elinewidth=1,
            zorder=4,
        )
    above.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", zorder=3)
    above.set_xlim(0, 1.01)
    above.set_ylim(0, 1.03)
    below.bar(left, [found["clips"] for found in bins], width, align="edge", color="#b8bdc5")
    below.set_yscale("symlog", linthresh=1)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # The version of matplotlib would be written into the picture.
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
