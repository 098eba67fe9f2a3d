from dataclasses import fields

import jsonschema
import pytest

from geotag.types import Tag
from geotag.writers.schema import SCHEMA_FIELD, SCHEMA_FILE, schema_text, tag_schema

REGENERATE = "run python -m geotag.writers.schema"


def test_the_checked_in_schema_is_that_of_the_tag() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), REGENERATE


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(tag_schema())


def test_every_field_is_there_in_its_order_and_described() -> None:
    properties = tag_schema()["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == [SCHEMA_FIELD, *(field.name for field in fields(Tag))]
    assert all(len(entry["description"]) > 10 for entry in properties.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gps_lat", 90.1),
        ("gps_lon", "12"),
        ("clips", 1.5),
        ("clips", None),
        ("confidence_city", -0.1),
        ("level", "street"),
        ("path", None),
        ("extra", {"nested": 1}),
    ],
)
def test_what_no_tag_holds_is_refused(field: str, value: object) -> None:
    record = {name.name: getattr(Tag(id="1", path="a"), name.name) for name in fields(Tag)}
    validator = jsonschema.Draft202012Validator(tag_schema())
    assert validator.is_valid(record)
    assert not validator.is_valid(record | {field: value})


def test_fields_of_a_later_version_are_no_reason_to_refuse() -> None:
    record = {name.name: getattr(Tag(id="1", path="a"), name.name) for name in fields(Tag)}
    validator = jsonschema.Draft202012Validator(tag_schema())
    assert validator.is_valid(record | {"later": 1})
    del record["path"]
    assert not validator.is_valid(record)
