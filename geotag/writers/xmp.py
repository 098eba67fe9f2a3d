"""XMP sidecars: where a video was recorded, in the fields that photo managers read.

Only what a receiver measured goes into fields that mean a place: exif:GPS*, photoshop:City and the
like. What pictures or neighbouring files suggest becomes keywords below `geotag|predicted`, so that
no map shows a pin where nobody measured.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geotag.types import Tag

TOOL = "geotag"
OURS = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{TOOL}">'.encode()
"""How each of our files begins. Whatever edits one names itself there instead, and from then on the
file is not ours."""

_NAMESPACES = {
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}
"""Source: XMP specification part 2 (2022); IPTC photo metadata standard 2023.1; digiKam and
Lightroom for theirs."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Source: XML 1.0, section 2.2."""


def has_place(tag: Tag) -> bool:
    """Whether there is anything to say in XMP."""
    return tag.gps_lat is not None or tag.continent is not None


def xmp_bytes(tag: Tag) -> bytes:
    """The file: measured places as places, others as keywords.

    Source: XMP specification part 1 (ISO 16684-1:2019), section 7.
    """
    root = ET.Element("x:xmpmeta", {"xmlns:x": "adobe:ns:meta/", "x:xmptk": TOOL})
    rdf = ET.SubElement(
        root, "rdf:RDF", {"xmlns:rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#"}
    )
    about = {"rdf:about": ""} | {f"xmlns:{name}": uri for name, uri in _NAMESPACES.items()}
    description = ET.SubElement(rdf, "rdf:Description", about)
    _add(description, "xmp:CreatorTool", TOOL)
    if tag.gps_lat is not None and tag.gps_lon is not None:
        _add(description, "exif:GPSVersionID", "2.3.0.0")
        _add(description, "exif:GPSMapDatum", "WGS-84")
        _add(description, "exif:GPSLatitude", gps_text(tag.gps_lat, "NS"))
        _add(description, "exif:GPSLongitude", gps_text(tag.gps_lon, "EW"))
    if tag.location_source == "gps" and tag.continent is not None:
        _add_place(description, tag)
    _add_keywords(description, tag)
    ET.indent(root, " ")
    return (ET.tostring(root, encoding="unicode") + "\n").encode()


def gps_text(angle_deg: float, letters: str) -> str:
    """An angle as XMP writes it, `DD,MM.mmmmmmN`: whole degrees, minutes to 6 decimals (2 mm).

    Source: XMP specification part 2, section 1.2.7.4, GPSCoordinate.
    """
    micro_minutes = round(abs(angle_deg) * 60_000_000)
    degrees, micro_minutes = divmod(micro_minutes, 60_000_000)
    return f"{degrees},{micro_minutes / 1_000_000:09.6f}{letters[angle_deg < 0]}"


def _add_place(description: ET.Element, tag: Tag) -> None:
    _add(description, "photoshop:City", tag.city)
    _add(description, "photoshop:State", tag.state)
    _add(description, "photoshop:Country", tag.country)
    _add(description, "Iptc4xmpCore:CountryCode", tag.country_code)
    bag = ET.SubElement(ET.SubElement(description, "Iptc4xmpExt:LocationCreated"), "rdf:Bag")
    place = ET.SubElement(bag, "rdf:li", {"rdf:parseType": "Resource"})
    _add(place, "Iptc4xmpExt:City", tag.city)
    _add(place, "Iptc4xmpExt:ProvinceState", tag.state)
    _add(place, "Iptc4xmpExt:CountryName", tag.country)
    _add(place, "Iptc4xmpExt:CountryCode", tag.country_code)
    _add(place, "Iptc4xmpExt:WorldRegion", tag.continent)


def _add_keywords(description: ET.Element, tag: Tag) -> None:
    """The answer as a path of keywords, from the continent down."""
    names = [name for name in (tag.continent, tag.country, tag.state, tag.city) if name]
    if not names:
        return
    above = ["Places"] if tag.location_source == "gps" else [TOOL, "predicted"]
    words = above + [re.sub(r"[/|]", "-", name) for name in names]
    for field, container, separator in (
        ("digiKam:TagsList", "rdf:Seq", "/"),
        ("lr:hierarchicalSubject", "rdf:Bag", "|"),
    ):
        holder = ET.SubElement(ET.SubElement(description, field), container)
        _add(holder, "rdf:li", separator.join(words))


def _add(parent: ET.Element, name: str, text: str | None) -> None:
    if text:
        ET.SubElement(parent, name).text = _NOT_XML.sub("\ufffd", text)
