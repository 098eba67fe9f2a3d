"""Errors of training and exporting."""

from geotag.errors import ConfigError


class ExportError(ConfigError):
    """A checkpoint that cannot become a bundle here; the text says why and what to do."""
