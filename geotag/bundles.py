"""Finding a model folder by path or by name.

`os.path` asks here, not `Path`: for a folder that cannot be entered, such as the home of somebody
else, it says "not there", where `Path.is_dir` raises.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import platformdirs

from engines.base import BundleError
from engines.bundle import MANIFEST
from geotag.config import suggest

DEMO = "demo"
DEFAULT = "default"


def bundles_folder() -> Path:
    """Where a user's bundles live, one folder each, found by its name."""
    return platformdirs.user_data_path("geotag") / "bundles"


def demo_folder() -> Path:
    """The bundle inside this package; it may be missing from a source checkout."""
    return Path(__file__).with_name("demo_bundle")


def known_bundles(folder: Path | None = None) -> dict[str, Path]:
    """Bundles that `find_bundle` knows by name: the demo, if it is here, the user's, sorted."""
    named = {DEMO: demo_folder()} if _is_bundle(demo_folder()) else {}
    installed = _installed(folder or bundles_folder())
    return named | {path.name: path for path in installed if path.name != DEMO}


def hidden_bundle(folder: Path | None = None) -> Path | None:
    """The user's bundle that no name finds, because `demo` always means the packaged one."""
    path = (folder or bundles_folder()) / DEMO
    return path if _is_bundle(path) else None


def find_bundle(name_or_path: str | None, *, folder: Path | None = None) -> Path:
    """Find the model folder that a user means; it is not opened yet.

    Args:
        name_or_path: an existing folder; `demo`; the name of one of the user's bundles; or None,
            which is the user's bundle `default` and never the demo.
        folder: where the user's bundles are; None is `bundles_folder()`.

    Raises:
        BundleError: there is none, with what to do about it.
    """
    folder = folder or bundles_folder()
    if name_or_path is None:
        if _is_folder(folder / DEFAULT):
            return folder / DEFAULT
        raise BundleError(no_model_text(folder))
    if name_or_path == DEMO:
        return _demo()
    given = os.path.expanduser(name_or_path)  # noqa: PTH111 - Path's raises for an unknown user
    is_name = name_or_path != "" and Path(name_or_path).name == name_or_path
    is_installed = is_name and _is_folder(folder / name_or_path)
    # A folder here that only happens to have the name of an installed model is no model.
    if _is_folder(given) and (_is_bundle(Path(given)) or not is_installed):
        return Path(given)
    if is_installed:
        return folder / name_or_path
    raise BundleError(_not_found_text(name_or_path, given, folder))


def has_default_bundle(folder: Path | None = None) -> bool:
    """Whether there is a model to use when none is named."""
    return _is_folder((folder or bundles_folder()) / DEFAULT)


def no_model_text(folder: Path | None = None) -> str:
    """That no model is installed, or none is chosen, and what to do about it."""
    folder = folder or bundles_folder()
    installed = [path.name for path in _installed(folder) if path.name not in (DEMO, DEFAULT)]
    if installed:
        return (
            "no model is chosen, and none was named with --bundle.\n"
            f"  Installed in {folder}: {', '.join(installed)}.\n"
            f"  To choose one: `geotag models default {installed[0]}`, or "
            f"`--bundle {installed[0]}` for this scan."
        )
    return (
        "no model is installed, and none was named with --bundle.\n"
        "  To get one: `geotag models pull clip`, on a machine with a network; it needs\n"
        "  `pip install '.[cpu,models]'` in geotag's source folder. `geotag models list` shows "
        "what there is.\n"
        "  To try the pipeline: `--bundle demo`, for the footage that `geotag demo` renders. It "
        "knows only that rendered world; its answers for real footage mean nothing.\n"
        "  To train one: `python -m train.fit`, then "
        "`geotag export --checkpoint RUN --out BUNDLE`.\n"
        "  To install a bundle: `geotag models add BUNDLE`, or name it with --bundle. Models are "
        f"in {folder}."
    )


def _installed(folder: Path) -> list[Path]:
    """The user's bundles, sorted; none where the folder cannot be listed."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    return [folder / name for name in names if _is_bundle(folder / name)]


def _is_bundle(path: Path) -> bool:
    return os.path.isfile(path / MANIFEST)  # noqa: PTH113 - never raises


def _is_folder(path: Path | str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - never raises


def _demo() -> Path:
    if _is_bundle(demo_folder()):
        return demo_folder()
    raise BundleError(
        "opening the demo bundle: this copy of geotag holds none. Train it with `make demo-bundle` "
        "in a source checkout, or install a released version."
    )


def _not_found_text(name: str, given: str, folder: Path) -> str:
    if os.path.exists(given):  # noqa: PTH110 - never raises
        return f"opening the bundle {name}: it is a file; a bundle is a folder with {MANIFEST}."
    known = list(known_bundles(folder))
    listed = f"Known by name: {', '.join(known)}." if known else "No bundle is installed."
    return (
        f"opening the bundle {name!r}: there is no such folder here, and no bundle of that name "
        f"in {folder}. {listed}{suggest(name, known)}"
    )
