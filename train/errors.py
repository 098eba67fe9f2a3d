"""Errors of training and exporting."""

from geotag.errors import ConfigError


class ExportError(ConfigError):
    """A checkpoint that cannot become a bundle here; the text says why and what to do."""


class DatasetError(ConfigError):
    """A dataset that cannot be used; the text names the file and the row, and what to do."""


class MissingPartError(DatasetError):
    """A packed folder that lacks a part: nobody packed it, and it may have none."""


class TrainError(ConfigError):
    """A training run that cannot begin or go on; the text says why and what to do."""


class WeightsError(ConfigError):
    """Published weights that cannot be used; the text names the file and the tensors."""
