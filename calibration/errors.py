"""What can go wrong on the way to a smaller model."""

from __future__ import annotations

from geotag.errors import ConfigError


class CalibrationError(ConfigError):
    """Clips, activations or weights from which no INT8 model can be made."""


class DialectError(CalibrationError):
    """A graph that not every runtime would read, or would run as fast as it could."""


class GateError(CalibrationError):
    """A smaller model that lost too much accuracy to be shipped."""
