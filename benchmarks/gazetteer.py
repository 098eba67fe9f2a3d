"""How often the gazetteer names the wrong country, and how fast it is.

    npm pack --pack-destination build/gazetteer-sources world-atlas@2.0.2
    python benchmarks/gazetteer.py

Truth: the polygons of world-atlas 2.0.2 (`countries-10m.json`: Natural Earth 1:10m, admin 0, public
domain), which are generalised themselves: most of what is wrong is within a kilometre of a border.
Points: places of the gazetteer, drawn evenly, each moved by a distance from a Rayleigh
distribution (8 km) in any direction. Points in no polygon (sea, small islands) are left out.
Overseas departments count as France, as the polygons have it. Disputed areas are counted twice,
with Natural Earth's view (who holds the ground) taken for the truth, and left out. The nearest
place without the time zone is measured for comparison.

With `--states ../us-atlas-3.0.1.tgz`, the same for the states of the US by the Census Bureau's
polygons. Those are also what the table's witnesses of state borders were made from: this measures
how well the table keeps to them, not how right they are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.affinity import scale, translate

from geotag.places.gazetteer import read_gazetteer
from geotag.places.nearest import KM_PER_DEG, nearest_places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from geotag.places.gazetteer import Gazetteer

    Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "build" / "gazetteer-sources" / "world-atlas-2.0.2.tgz"
ARCHIVE_SHA256 = "032e7765f2ce00edaeafec23ff22bc3b77e42987c257da944cc585b452c05b97"
STATES_SHA256 = "e6daba1800885868303ad3549da62f85a557b8142bb72629ec15651de62f9c5d"
NEAR_BORDER_KM = 11.0
SCATTER_KM = 8.0
NAMELESS = {
    "Baikonur": "KZ",
    "Cyprus U.N. Buffer Zone": "CY",
    "Indian Ocean Ter.": "AU",
    "Kosovo": "XK",
    "N. Cyprus": "CY",
    "Somaliland": "SO",
    "USNB Guantanamo Bay": "CU",
}
"""Polygons without an ISO number; those not listed are left out with the points in them."""
DRAWN_AS = dict.fromkeys(("GF", "GP", "MQ", "RE", "YT"), "FR") | {
    "BQ": "NL",
    "CC": "AU",
    "CX": "AU",
    "SJ": "NO",
    "TK": "NZ",
}
"""Territories that the polygons draw as part of another country."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Points and their truth.  All arrays [N]."""

    lats_deg: Floats
    lons_deg: Floats
    countries: NDArray[np.str_]
    """Code of the polygon; "" in none."""
    is_near: NDArray[np.bool_]
    """Another country is within NEAR_BORDER_KM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--polygons", type=Path, default=ARCHIVE)
    parser.add_argument("--states", type=Path, help="us-atlas-3.0.1.tgz: measure US states as well")
    parser.add_argument("--points", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    gazetteer = read_gazetteer()
    sample = draw_sample(gazetteer, read_polygons(args.polygons, gazetteer), args.points, args.seed)
    codes = gazetteer.locate(sample.lats_deg, sample.lons_deg)
    is_disputed = np.array([code.disputed is not None for code in codes])
    answers = {
        "time zone, then nearest place": np.array([code.country_code or "" for code in codes]),
        "nearest place alone": np.array([entry.code for entry in gazetteer.table.countries])[
            gazetteer.place_countries[nearest_alone(gazetteer, sample)]
        ],
    }
    wrong = {name: score(found, sample, is_disputed) for name, found in answers.items()}
    speed = measure_speed(gazetteer, args.seed)
    print_tables(wrong, speed)
    results = record(args, sample, wrong, speed)
    if args.states is not None:
        results["us_states"] = measure_us_states(gazetteer, args)
    print(json.dumps(results))
    return 0


def read_polygons(path: Path, gazetteer: Gazetteer) -> list[tuple[str, shapely.Polygon]]:
    """Country code and polygon, each part of a country for itself."""
    topology = _read_member(path, ARCHIVE_SHA256, "package/countries-10m.json")
    numbers = {f"{entry.numeric or 0:03}": entry.code for entry in gazetteer.table.countries}

    def code_of(entry: dict[str, Any]) -> str | None:
        return numbers.get(entry.get("id", "")) or NAMELESS.get(entry["properties"]["name"])

    return _parts(topology, "countries", code_of)


def _read_member(path: Path, sha256: str, name: str) -> dict[str, Any]:
    """A JSON file out of an archive, after the archive's hash is checked."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path}: SHA-256 is {found}, expected {sha256}.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise SystemExit(f"{path} has no {name}.")
        return dict(json.loads(member.read()))


def _parts(
    topology: dict[str, Any], collection: str, code_of: Callable[[dict[str, Any]], str | None]
) -> list[tuple[str, shapely.Polygon]]:
    """Code and polygon of every part of every geometry that has a code."""
    arcs = [_decode_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    parts = []
    for entry in topology["objects"][collection]["geometries"]:
        code = code_of(entry)
        if code is None:
            continue
        shapes = entry["arcs"] if entry["type"] == "MultiPolygon" else [entry["arcs"]]
        for shape in shapes:
            rings = [_unwrap(_ring(ring, arcs)) for ring in shape]
            # Fewer points: an islet below the grid of the file; not closed: around a pole.
            if len(rings[0]) < 4 or not np.allclose(rings[0][0], rings[0][-1]):
                continue
            rings = [rings[0], *(hole for hole in rings[1:] if len(hole) >= 4)]
            parts += [(code, part) for part in _on_the_map(shapely.Polygon(rings[0], rings[1:]))]
    return parts


def _decode_arc(arc: list[list[int]], transform: dict[str, list[float]]) -> Floats:
    """Steps of whole units -> degrees.  Source: TopoJSON 1.0, sections 2.1.2 and 2.1.4."""
    steps = np.cumsum(np.array(arc, dtype=np.float64), axis=0)
    return np.asarray(steps * transform["scale"] + transform["translate"])


def _ring(indices: list[int], arcs: list[Floats]) -> Floats:
    """Arcs end to end; ~k is arc k the other way round."""
    lines = [arcs[k] if k >= 0 else arcs[~k][::-1] for k in indices]
    return np.concatenate([lines[0], *(line[1:] for line in lines[1:])])


def _unwrap(ring: Floats) -> Floats:
    """Longitudes without a jump at the date line, beyond 180 degrees where need be."""
    turns = np.cumsum(np.round(np.diff(ring[:, 0], prepend=ring[0, 0]) / 360))
    return np.column_stack([ring[:, 0] - 360 * turns, ring[:, 1]])


def _on_the_map(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """The parts between -180 and 180 degrees, those beyond moved to the other side."""
    polygon = shapely.make_valid(polygon)
    moved = []
    for shift in (-360, 0, 360):
        part = shapely.intersection(polygon, shapely.box(-180 - shift, -90, 180 - shift, 90))
        moved += list(shapely.get_parts(translate(part, xoff=shift)))
    return [part for part in moved if part.geom_type == "Polygon" and part.area > 0]


def draw_sample(
    gazetteer: Gazetteer,
    parts: list[tuple[str, shapely.Polygon]],
    count: int,
    seed: int,
    *,
    among: NDArray[np.int64] | None = None,
) -> Sample:
    """Seeded points around places (all, or those given), with the polygon each is in."""
    random = np.random.default_rng(seed)
    places = random.integers(0, len(gazetteer.table.lats_deg if among is None else among), count)
    places = places if among is None else among[places]
    away_deg = random.rayleigh(SCATTER_KM, count) / KM_PER_DEG
    bearings = random.uniform(0, 2 * np.pi, count)
    lats = np.clip(gazetteer.table.lats_deg[places] + away_deg * np.cos(bearings), -90, 90)
    stretch = np.cos(np.radians(lats)).clip(0.01)
    lons = gazetteer.table.lons_deg[places] + away_deg * np.sin(bearings) / stretch
    lons = (lons + 180) % 360 - 180
    codes = np.array([code for code, _ in parts])
    tree = shapely.STRtree([polygon for _, polygon in parts])
    inside = np.full(count, "", dtype=codes.dtype)
    points, polygons = tree.query(shapely.points(lons, lats), predicate="within")
    inside[points] = codes[polygons]
    return Sample(
        lats_deg=lats,
        lons_deg=lons,
        countries=inside,
        is_near=_near(tree, codes, lats, lons, inside),
    )


def _near(
    tree: shapely.STRtree,
    codes: NDArray[np.str_],
    lats: Floats,
    lons: Floats,
    inside: NDArray[np.str_],
) -> NDArray[np.bool_]:
    """Whether a polygon of another country meets the circle around each point."""
    radius_deg = NEAR_BORDER_KM / KM_PER_DEG
    circles = [
        scale(shapely.Point(lon, lat).buffer(radius_deg), xfact=1 / np.cos(np.radians(lat)))
        for lat, lon in zip(lats, lons, strict=True)
    ]
    is_near = np.zeros(len(lats), dtype=bool)
    points, polygons = tree.query(circles, predicate="intersects")
    is_near[points[codes[polygons] != inside[points]]] = True
    return is_near & (inside != "")


def nearest_alone(gazetteer: Gazetteer, sample: Sample) -> NDArray[np.int64]:
    """The nearest place, whatever the time zone."""
    count = len(sample.lats_deg)
    places, _ = nearest_places(
        gazetteer.grid,
        sample.lats_deg,
        sample.lons_deg,
        place_groups=gazetteer.table.place_states,
        sets=np.zeros(count, dtype=np.int64),
        allowed_ZG=np.ones((1, len(gazetteer.table.states)), dtype=bool),
        near_only=np.zeros(1, dtype=bool),
    )
    return places


def score(
    found: NDArray[np.str_], sample: Sample, is_disputed: NDArray[np.bool_]
) -> dict[str, float]:
    """Shares of points with a wrong country."""
    found = np.array([DRAWN_AS.get(code, code) for code in found])
    is_wrong = found != sample.countries
    known = sample.countries != ""
    return {
        "wrong": _share(is_wrong, known),
        "wrong_near_border": _share(is_wrong, known & sample.is_near),
        "wrong_undisputed": _share(is_wrong, known & ~is_disputed),
        "wrong_near_border_undisputed": _share(is_wrong, known & sample.is_near & ~is_disputed),
        "unanswered": _share(found == "", known),
    }


def _share(is_wrong: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return round(float(is_wrong[among].mean()), 6)


def measure_us_states(
    gazetteer: Gazetteer, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Shares of points in the US with a wrong state, as for countries."""
    topology = _read_member(args.states, STATES_SHA256, "package/states-10m.json")
    states = {
        state.name: state.code
        for state in gazetteer.table.states
        if (state.code or "").startswith("US-")
    }
    parts = _parts(topology, "states", lambda entry: states.get(entry["properties"]["name"]))
    rows = [k for k, state in enumerate(gazetteer.table.states) if state.code in states.values()]
    among = np.flatnonzero(np.isin(gazetteer.table.place_states, rows))
    sample = draw_sample(gazetteer, parts, args.points, args.seed, among=among)
    codes = gazetteer.locate(sample.lats_deg, sample.lons_deg)
    alone = gazetteer.table.place_states[nearest_alone(gazetteer, sample)]
    answers = {
        "gazetteer": np.array([code.state_code or "" for code in codes]),
        "nearest place alone": np.array([s.code or "" for s in gazetteer.table.states])[alone],
    }
    results = {}
    for name, found in answers.items():
        shares = score(found, sample, np.zeros(len(found), dtype=bool))
        results[name] = {key: shares[key] for key in ("wrong", "wrong_near_border")}
        print(f"{'US state, ' + name:32}" + "".join(f"{s:>18.2%}" for s in results[name].values()))
    return results


def measure_speed(gazetteer: Gazetteer, seed: int) -> dict[str, float]:
    """Look-ups per second: median of seven, after one that does not count."""
    random = np.random.default_rng(seed + 1)
    places = random.integers(0, len(gazetteer.table.lats_deg), 10_000)
    cases = {
        "around places": (gazetteer.table.lats_deg[places], gazetteer.table.lons_deg[places]),
        "anywhere on earth": (
            np.degrees(np.arcsin(random.uniform(-1, 1, 10_000))),
            random.uniform(-180, 180, 10_000),
        ),
        "all in Tokyo": (random.normal(35.68, 0.1, 10_000), random.normal(139.69, 0.1, 10_000)),
    }
    speed = {}
    for name, (lats_deg, lons_deg) in cases.items():
        times = [_time(gazetteer, lats_deg, lons_deg) for _ in range(8)]
        speed[f"10,000 {name}, s"] = round(float(np.median(times[1:])), 4)
    times = [_time(gazetteer, lats_deg[:1], lons_deg[:1]) for _ in range(8)]
    speed["one at a time, s"] = round(float(np.median(times[1:])), 6)
    speed["reading the table, s"] = _read_time()
    return speed


def _time(gazetteer: Gazetteer, lats_deg: Floats, lons_deg: Floats) -> float:
    start = time.perf_counter()
    gazetteer.locate(lats_deg, lons_deg)
    return time.perf_counter() - start


def _read_time() -> float:
    times = []
    for _ in range(3):
        read_gazetteer.cache_clear()
        start = time.perf_counter()
        read_gazetteer()
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)), 4)


def print_tables(wrong: dict[str, dict[str, float]], speed: dict[str, float]) -> None:
    """For a person."""
    heads = ("all", "near a border", "all, undisputed", "near, undisputed")
    print(f"{'wrong country':32}" + "".join(f"{head:>18}" for head in heads))
    for name, shares in wrong.items():
        print(f"{name:32}" + "".join(f"{share:>18.2%}" for share in list(shares.values())[:4]))
    for name, seconds in speed.items():
        print(f"{name:32}{seconds:>18.4f}")


def record(
    args: argparse.Namespace,
    sample: Sample,
    wrong: dict[str, dict[str, float]],
    speed: dict[str, float],
) -> dict[str, Any]:
    """What a results file keeps."""
    known = sample.countries != ""
    return {
        "what": "gazetteer",
        "command": "python benchmarks/gazetteer.py"
        + (" --states us-atlas-3.0.1.tgz" * bool(args.states)),
        "load_average": os.getloadavg()[0],
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "polygons": "world-atlas 2.0.2, countries-10m.json (Natural Earth 1:10m, public domain)",
        "polygons_sha256": ARCHIVE_SHA256,
        "points": args.points,
        "seed": args.seed,
        "points_in_a_polygon": int(known.sum()),
        "points_near_border": int((known & sample.is_near).sum()),
        "near_border_km": NEAR_BORDER_KM,
        "wrong": wrong,
        "warm_up": 1,
        "repeats": 7,
        "speed": speed,
    }


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
