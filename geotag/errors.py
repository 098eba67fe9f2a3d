"""Errors that stop a run, each with the exit code of the process.

    GeotagError            exit 1
      ConfigError          exit 2   a flag, a setting or a path that cannot be used
      NoVideosError        exit 4   the folder holds no video
      OutputError          exit 5   the result cannot be written
    engines.base.EngineError        exit 6   (its own root: engines never import geotag)
      BundleError                   the model folder is missing, damaged or of another schema
      EngineUnavailableError        no runtime here can execute the bundle
      EngineBuildError              the runtime is here and cannot compile the model
      EngineMismatchError           the compiled model does not do what the bundle says

What is wrong with one file is not an error but a value: `geotag.types.Failure`. Exit 0: every
video tagged. 1: a bug of ours. 3: finished, some videos failed. 130: interrupted.
"""

EXIT_OK = 0
EXIT_BUG = 1
EXIT_SOME_FAILED = 3
EXIT_ENGINE = 6
EXIT_INTERRUPTED = 130


class GeotagError(Exception):
    """A reason to stop the run; its text says what was being done, the value, the next step."""

    exit_code: int = EXIT_BUG


class ConfigError(GeotagError):
    """A flag, a setting or a path given by the user cannot be used."""

    exit_code = 2


class NoVideosError(GeotagError):
    """There is nothing to scan."""

    exit_code = 4


class OutputError(GeotagError):
    """The result cannot be written."""

    exit_code = 5
