"""Countries as people write them: names, ISO codes, and the other names in common use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.places.join import COUNTRY_PARTS, TERRITORIES, fold_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from geotag.places.table import Country

COUNTRY_ALIASES = {
    "AE": ("UAE", "Emirates"),
    "BA": ("Bosnia",),
    "BO": ("Plurinational State of Bolivia", "Bolivia, Plurinational State of"),
    "BN": ("Brunei Darussalam",),
    "CD": ("DR Congo", "DRC", "Congo-Kinshasa", "Congo, Democratic Republic of the", "Zaire"),
    "CG": ("Congo", "Congo-Brazzaville"),
    "CI": ("Ivory Coast",),
    "CN": ("People's Republic of China", "PRC"),
    "CV": ("Cabo Verde",),
    "CZ": ("Czech Republic",),
    "FK": ("Falkland Islands (Malvinas)",),
    "FM": ("Federated States of Micronesia", "Micronesia, Federated States of"),
    "GB": (
        "UK",
        "Great Britain",
        "Britain",
        "United Kingdom of Great Britain and Northern Ireland",
    ),
    "HK": ("Hong Kong SAR",),
    "IE": ("Republic of Ireland", "Eire"),
    "IR": ("Islamic Republic of Iran", "Iran, Islamic Republic of"),
    "KN": ("St. Kitts and Nevis",),
    "KP": ("DPRK", "Korea, North", "Democratic People's Republic of Korea"),
    "KR": ("Republic of Korea", "Korea, South", "Korea, Republic of"),
    "LA": ("Lao PDR", "Lao People's Democratic Republic"),
    "LC": ("St. Lucia",),
    "MD": ("Republic of Moldova", "Moldova, Republic of"),
    "MK": ("Macedonia", "FYROM"),
    "MM": ("Burma",),
    "MO": ("Macao",),
    "NL": ("Holland",),
    "PS": ("State of Palestine", "Palestinian Territory", "Palestinian Territories"),
    "RU": ("Russian Federation",),
    "ST": ("Sao Tome",),
    "SY": ("Syrian Arab Republic",),
    "SZ": ("Swaziland",),
    "TL": ("East Timor",),
    "TR": ("Türkiye",),
    "TW": ("Republic of China", "Taiwan, Province of China"),
    "TZ": ("United Republic of Tanzania", "Tanzania, United Republic of"),
    "US": ("USA", "U.S.", "United States of America", "America"),
    "VA": ("Vatican", "Holy See"),
    "VC": ("St. Vincent and the Grenadines",),
    "VE": ("Bolivarian Republic of Venezuela", "Venezuela, Bolivarian Republic of"),
    "VI": ("US Virgin Islands", "United States Virgin Islands"),
    "VN": ("Viet Nam",),
}
"""Names of ISO 3166, of the news and of yesterday, beside those of the gazetteer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """What a way to write a country means."""

    code: str
    """ISO 3166-1 alpha-2."""
    part: str | None = None
    """ISO 3166-2 code, where the word means a part of the country (England)."""
    is_code: bool = False
    """The word is an ISO code and nothing that people say."""


def read_spellings(countries: Iterable[Country]) -> dict[str, Spelling]:
    """All known ways to write a country, folded."""
    countries = tuple(countries)
    spellings = {
        fold_name(code): Spelling(code=entry.code, is_code=True)
        for entry in countries
        for code in (entry.code, entry.code3)
    }
    spellings |= {fold_name(entry.name): Spelling(code=entry.code) for entry in countries}
    for code, names in COUNTRY_ALIASES.items():
        spellings |= {fold_name(name): Spelling(code=code) for name in names}
    for name, (code, part) in COUNTRY_PARTS.items():
        spellings[fold_name(name)] = Spelling(code=code, part=part)
    return spellings


def find_country(text: str, spellings: Mapping[str, Spelling]) -> Spelling | None:
    """What a person means by a country, None where nobody knows."""
    folded = fold_name(text.replace("&", " and "))
    return spellings.get(folded) or spellings.get(folded.removeprefix("the"))


def country_words(countries: Iterable[Country]) -> list[str]:
    """The names to suggest from."""
    aliases = [name for names in COUNTRY_ALIASES.values() for name in names]
    return [*(entry.name for entry in countries), *COUNTRY_PARTS, *aliases]


def belongs(code: str, owner: str) -> bool:
    """Whether a country is another one, or a territory of it."""
    return code == owner or code in TERRITORIES.get(owner, ())
