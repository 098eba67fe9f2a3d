import json

import pytest

from engines import base
from geotag import errors
from geotag.types import FootageError

ERRORS = [
    cls
    for module in (errors, base)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Exception)
]


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_carries_its_text(cls: type[Exception]) -> None:
    assert (
        json.loads(json.dumps(str(cls("reading x: it is y. Do z.")))) == "reading x: it is y. Do z."
    )


def test_exit_codes_are_those_of_the_documentation() -> None:
    codes = {cls.__name__: cls.exit_code for cls in ERRORS if issubclass(cls, errors.GeotagError)}
    assert codes == {"GeotagError": 1, "ConfigError": 2, "NoVideosError": 4, "OutputError": 5}
    for cls in ERRORS:
        if issubclass(cls, errors.GeotagError):
            assert f"{cls.__name__} " in (errors.__doc__ or "")
    assert (errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_SOME_FAILED) == (0, 1, 3)
    assert (errors.EXIT_ENGINE, errors.EXIT_INTERRUPTED) == (6, 130)


def test_a_footage_error_keeps_its_fields() -> None:
    error = FootageError("open", "empty", "Zero bytes.")
    assert (error.stage, error.code, error.message) == ("open", "empty", "Zero bytes.")
    assert str(error) == "Zero bytes."
