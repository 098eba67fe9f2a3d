"""What `build_gazetteer.py` corrects in its sources, each with its reason."""

from __future__ import annotations

import re

MORE_ZONE_COUNTRIES = {
    "America/New_York": ["CU"],  # the base in Guantanamo Bay keeps the time of New York
    "Asia/Bangkok": ["VN"],  # the north of Vietnam keeps Hanoi time, which tzdata folds in here
    "Europe/Belgrade": ["XK"],  # tzdata follows ISO 3166, which has no Kosovo
}
"""Countries of a zone that zone.tab does not list."""

MORE_ZONE_STATES = {
    "America/Adak": "US.AK",  # the outer Aleutians, where no place has 500 people
}
"""States of a zone without a place in the table, by GeoNames code."""

KNOWN_SECTIONS = {
    "BR": {"Plano Piloto"},
    "CA": {
        "Etobicoke",
        "Le Plateau-Mont-Royal",
        "North York",
        "Rosemont\u2013La Petite-Patrie",
        "Scarborough",
        "Ville-Marie",
    },
    "CN": {"Pudong", "Puxi"},
    "EE": {"Haabersti", "Kesklinn", "Kristiine", "Lasnamäe", "Mustamäe", "Põhja-Tallinn"},
    "HU": {"Buda", "Pest"},
    "IN": {"Dhārāvi"},
    "IT": {"Campo di Marte", "Giudecca", "Lido di Venezia", "Murano"},
    "PL": {
        "Mokotów",
        "Ochota",
        "Praga Południe",
        "Praga Północ",
        "Śródmieście",
        "Wola",
        "Żoliborz",
    },
    "PT": {"Alvalade"},
    "SK": {"Petržalka"},
    "TR": {"Çankaya", "Keçiören", "Muratpaşa"},
    "US": {
        "Brooklyn",
        "Manhattan",
        "New South Memphis",
        "Queens",
        "Staten Island",
        "The Bronx",
        "University of Texas",
    },
}
"""Quarters of cities that GeoNames does not mark as such, by country; small places of the same
name elsewhere lose nothing, for a section without a city around it stays a city of its own."""

NUMBERED = re.compile(r"(.+?) \d{1,2}( .*)?")
"""Quarters with the name of their city and a number: Paris 18 Buttes-Montmartre, Lyon 03."""

CITY_STATE_SHARE = 0.9
"""Share of a state's places that must lie within one and a half times the reach of its largest
city for the state to be taken for a city."""

TZFPY = "2.1.1"
"""Version of the time zones that places are sorted by."""

COUNTRY_NAMES = {
    "AX": "Åland Islands",
    "BL": "Saint Barthélemy",
    "BQ": "Bonaire, Sint Eustatius and Saba",
    "CC": "Cocos (Keeling) Islands",
    "CI": "Côte d'Ivoire",
    "CV": "Cape Verde",
    "CW": "Curaçao",
    "MO": "Macau",
    "NL": "Netherlands",
    "PN": "Pitcairn Islands",
    "PS": "Palestine",
    "RE": "Réunion",
    "ST": "São Tomé and Príncipe",
    "TL": "Timor-Leste",
    "VA": "Vatican City",
}
"""Where GeoNames drops accents or writes a name that an English text would not."""

GONE = {"AN", "CS"}
"""Codes of countries that no longer are."""

STATE_NAMES = {
    "AR-C": "Buenos Aires City",
    "AZ-BA": "Baku",
    "BA-BIH": "Federation of Bosnia and Herzegovina",
    "BA-SRP": "Republika Srpska",
    "BY-BR": "Brest",
    "BY-HO": "Gomel",
    "BY-HR": "Grodno",
    "BY-VI": "Vitebsk",
    "CO-DC": "Bogotá",
    "DE-BE": "Berlin",
    "DE-RP": "Rhineland-Palatinate",
    "ES-CL": "Castile and León",
    "ES-CM": "Castile-La Mancha",
    "IT-57": "Marche",
    "KR-26": "Busan",
    "KR-28": "Incheon",
    "LY-BA": "Benghazi",
    "MX-MEX": "State of Mexico",
    "NG-FC": "Federal Capital Territory",
    "PE-LIM": "Lima Region",
    "PE-LMA": "Lima",
    "PL-04": "Kuyavian-Pomeranian",
    "PL-10": "Łódź",
    "PL-14": "Masovian",
    "QA-DA": "Doha",
    "RU-ARK": "Arkhangelsk Oblast",
    "RU-LEN": "Leningrad Oblast",
    "RU-SPE": "Saint Petersburg",
    "RU-STA": "Stavropol Krai",
    "RU-ZAB": "Zabaykalsky Krai",
    "SE-AB": "Stockholm County",
    "TW-CYI": "Chiayi City",
    "TW-CYQ": "Chiayi County",
    "TW-HSQ": "Hsinchu County",
    "TW-HSZ": "Hsinchu City",
    "UA-30": "Kyiv",
    "VN-CT": "Can Tho",
    "VN-DN": "Da Nang",
    "VN-SG": "Ho Chi Minh City",
}
"""Where the name of GeoNames is not the usual English one, by ISO 3166-2 code."""

PLACE_STATES = {
    294981: "IL.02",  # Giv'at Shmuel is in the Central District, across the road from Tel Aviv's
}
"""Places that GeoNames has in the wrong state: id and GeoNames code of the right one."""

PLACE_NAMES = {
    104515: "Mecca",
    109223: "Medina",
    293918: "Petah Tikva",
    2624652: "Aarhus",
    6077243: "Montreal",
}
"""Cities whose usual English name is another than that of GeoNames, by id."""

STATE_CODES = {
    "CG.15": "CG-16",
    "IN.41": "IN-LA",
    "KE.30": "KE-21",
    "KE.40": "KE-32",
    "NO.01": "NO-32",
    "NO.04": "NO-33",
    "NO.05": "NO-56",
    "NO.13": "NO-31",
    "NO.17": "NO-40",
    "NO.18": "NO-55",
    "NO.20": "NO-39",
    "TJ.04": "TJ-DU",
}
"""ISO 3166-2 codes that the join lacks, by GeoNames code; those of Norway are newer (online
browsing platform of ISO, 2023-11-23) than the list they would be checked with."""
