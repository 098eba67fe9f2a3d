# ruff: noqa: T201
"""Build `geotag/places/places166.csv`: the 166 classes of CityGuessr68k as places.

    python tools/build_places166.py [--check]

The folder names and which country each belongs to come from the published class mapping; city,
state and coordinates are those of GeoNames in the gazetteer's table. The row order is that of the
folder names, so that `read_hierarchy` gives every class its published number.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from geotag.places.gazetteer import CONTINENTS, Gazetteer, read_gazetteer  # noqa: E402

TARGET = ROOT / "geotag" / "places" / "places166.csv"
COLUMNS = (
    "folder,city,state,country,continent,state_code,country_code,continent_code,"
    "lat_deg,lon_deg,geonameid"
)

FOLDERS = {
    "AS": {
        "AE": "Abu_Dhabi Dubai",
        "IN": "Agra Ahmedabad Banglore Chandigarh Chennai Delhi Hyderabad Indore Jaipur Kanpur "
        "Lucknow Mumbai",
        "TR": "Ankara Antalya Istanbul",
        "CN": "Beijing Hefei Shanghai Shenzhen",
        "KR": "Busan Incheon Seoul",
        "JP": "Hiroshima Kawasaki Osaka Tokyo",
        "SA": "Jeddah Makkah Medina Riyadh",
        "TH": "Bangkok Phuket",
        "VN": "Hanoi Ho_Chi_Minh_City",
        "PK": "Islamabad Karachi",
        "JO": "Amman",
        "KZ": "Astana",
        "AZ": "Baku",
        "BN": "Bandar_Seri_Bagawan",
        "LB": "Beirut",
        "LK": "Colombo",
        "SY": "Damascus",
        "BD": "Dhaka",
        "QA": "Doha",
        "ID": "Jakarta",
        "IL": "Jerusalem",
        "AF": "Kabul",
        "NP": "Kathmandu",
        "MY": "Kuala_Lumpur",
        "KW": "Kuwait",
        "BH": "Manama",
        "PH": "Manila",
        "OM": "Muscat",
        "CY": "Nicosia",
        "KH": "Phnom_Penh",
        "KP": "Pyongyang",
        "TW": "Taipei",
        "BT": "Thimphu",
    },
    "AF": {
        "ZA": "Cape_Town Durban Johannesburg",
        "ET": "Addis_Ababa",
        "EG": "Cairo",
        "DJ": "Djibouti",
        "BW": "Gaborone",
        "ZW": "Harare",
        "UG": "Kampala",
        "SD": "Khartoum",
        "ZM": "Lusaka",
        "SO": "Mogadishu",
        "KE": "Nairobi",
        "LY": "Tripoli",
        "CM": "Yaounde",
    },
    "OC": {
        "AU": "Adelaide Brisbane Canberra Melbourne",
        "NZ": "Auckland Wellington",
    },
    "EU": {
        "GB": "Bristol Liverpool London Manchester Nottingham Edinburgh Glasgow",
        "IT": "Florence Genova Milan Venice",
        "DE": "Berlin Dortmund Hamburg",
        "ES": "Barcelona Madrid Malaga",
        "FR": "Lyon Marseille",
        "SE": "Malm Stockholm",
        "NL": "Amsterdam",
        "GR": "Athens",
        "RS": "Belgrade",
        "CH": "Bern",
        "SK": "Bratislava",
        "BE": "Brussels",
        "RO": "Bucharest",
        "HU": "Budapest",
        "DK": "Copenhagen",
        "IE": "Dublin",
        "FI": "Helsinki",
        "PT": "Lisbon",
        "SI": "Ljubljana",
        "BY": "Minsk",
        "RU": "Moscow",
        "CZ": "Prague",
        "LV": "Riga",
        "BG": "Sofia",
        "EE": "Talinn",
        "AT": "Vienna",
        "PL": "Warsaw",
        "HR": "Zagreb",
    },
    "NA": {
        "US": "Atlanta Austin Baltimore Boston Charleston Charlotte Chicago Dallas Denver Detroit "
        "Indianapolis Jacksonville Las_Vegas Memphis Miami Milwaukee Minneapolis Nashville "
        "New_Orleans Oklahoma Philadelphia San_Jose Seattle Washington_DC",
        "CA": "Calgary Edmonton Montreal",
        "MX": "Cancun Mexico_City",
        "BZ": "Belmopan",
        "BB": "Bridgetown",
        "GT": "Guatemala_City",
        "CU": "Havana",
        "BS": "Nassau",
    },
    "SA": {
        "BR": "Brasilia Rio_de_Janeiro",
        "CO": "Bogota",
        "AR": "Buenos_Aires",
        "VE": "Caracas",
        "PE": "Lima",
        "UY": "Montevideo",
    },
}
"""Folders of the dataset by the continent and country that its mapping gives them."""

SEARCHED_AS = {
    "Banglore": "Bengaluru",
    "Bandar_Seri_Bagawan": "Bandar Seri Begawan",
    "Bogota": "Bogotá",
    "Brasilia": "Brasília",
    "Cancun": "Cancún",
    "Genova": "Genoa",
    "Kuwait": "Kuwait City",
    "Makkah": "Mecca",
    "Malaga": "Málaga",
    "Malm": "Malmö",
    "Oklahoma": "Oklahoma City",
    "Talinn": "Tallinn",
    "Washington_DC": "Washington",
    "Yaounde": "Yaoundé",
}
"""Names as they are written elsewhere, the dataset's slips put right."""

SHOWN_AS = {"Washington_DC": "Washington, D.C."}
"""Names to show, where they are not those of GeoNames."""

STATES = {
    "Bristol": ("South West England", ""),
    "Liverpool": ("North West England", ""),
    "London": ("Greater London", ""),
    "Manchester": ("North West England", ""),
    "Nottingham": ("East Midlands", ""),
    "Edinburgh": ("City of Edinburgh", "GB-EDH"),
    "Glasgow": ("Glasgow City", "GB-GLG"),
    "Incheon": ("Seoul Capital Area", ""),
    "Seoul": ("Seoul Capital Area", ""),
}
"""The dataset counts England and Scotland as countries and has states below them, and one state
for Seoul and Incheon. ISO 3166-2 has no code for the regions of England and the capital area."""

COUNTRIES = dict.fromkeys(("Bristol", "Liverpool", "London", "Manchester", "Nottingham"), "England")
COUNTRIES |= dict.fromkeys(("Edinburgh", "Glasgow"), "Scotland")


def main() -> int:
    """Build, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    text = build(read_gazetteer())
    if args.check:
        is_same = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
        print(f"{TARGET.name} {'is' if is_same else 'is NOT'} what the table gives")
        return 0 if is_same else 1
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {text.count(chr(10)) - 1} cities")
    return 0


def build(gazetteer: Gazetteer) -> str:
    """The whole file."""
    rows = [
        _row(folder, country, continent, gazetteer)
        for continent, countries in FOLDERS.items()
        for country, folders in countries.items()
        for folder in folders.split()
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS.split(","), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: str(row["folder"])))
    return out.getvalue()


def _row(
    folder: str, country_code: str, continent_code: str, gazetteer: Gazetteer
) -> dict[str, object]:
    table = gazetteer.table
    place = _find(SEARCHED_AS.get(folder, folder.replace("_", " ")), country_code, gazetteer)
    state = table.states[int(table.place_states[place])]
    state_name, state_code = STATES.get(folder, (state.name, state.code or ""))
    country = next(entry for entry in table.countries if entry.code == country_code)
    return {
        "folder": folder,
        "city": SHOWN_AS.get(folder, table.name(place)),
        "state": state_name,
        "country": COUNTRIES.get(folder, country.name),
        "continent": CONTINENTS[continent_code],
        "state_code": state_code,
        "country_code": country_code,
        "continent_code": continent_code,
        "lat_deg": f"{table.lats_deg[place]:.4f}",
        "lon_deg": f"{table.lons_deg[place]:.4f}",
        "geonameid": int(table.geonameids[place]),
    }


def _find(name: str, country_code: str, gazetteer: Gazetteer) -> int:
    """The most populous place of that name in the country."""
    table = gazetteer.table
    codes = np.array([entry.code for entry in table.countries])
    inside = np.flatnonzero(codes[gazetteer.place_countries] == country_code)
    found = [int(place) for place in inside if table.name(int(place)) == name]
    if not found:
        raise SystemExit(f"no {name!r} in {country_code}")
    return max(found, key=lambda place: int(table.populations[place]))


if __name__ == "__main__":
    raise SystemExit(main())
