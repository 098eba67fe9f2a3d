"""Finding a model folder by path or by name."""

from __future__ import annotations

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
    """Bundles that have a name: the demo, if it is here, then the user's, sorted."""
    folder = folder or bundles_folder()
    named = {DEMO: demo_folder()} if (demo_folder() / MANIFEST).is_file() else {}
    manifests = sorted(folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []
    return named | {path.parent.name: path.parent for path in manifests}


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
        if (folder / DEFAULT).is_dir():
            return folder / DEFAULT
        raise BundleError(_no_model_text(folder))
    if name_or_path == DEMO:
        return _demo()
    given = Path(name_or_path).expanduser()
    if given.is_dir():
        return given
    if given.name == name_or_path and (folder / name_or_path).is_dir():
        return folder / name_or_path
    raise BundleError(_not_found_text(name_or_path, given, folder))


def _demo() -> Path:
    if (demo_folder() / MANIFEST).is_file():
        return demo_folder()
    raise BundleError(
        "opening the demo bundle: this copy of geotag holds none. Train it with `make demo-bundle` "
        "in a source checkout, or install a released version."
    )


def _no_model_text(folder: Path) -> str:
    return (
        "no model is installed, and none was named with --bundle.\n"
        "  To try the pipeline: `--bundle demo`, for the footage that `geotag demo` renders. It "
        "knows only that rendered world; its answers for real footage mean nothing.\n"
        "  To train one: `python -m train.fit`, then "
        "`geotag export --checkpoint RUN --out BUNDLE`.\n"
        f"  To install one: put its folder at {folder / DEFAULT}, or name it with --bundle."
    )


def _not_found_text(name: str, given: Path, folder: Path) -> str:
    if given.exists():
        return f"opening the bundle {name}: it is a file; a bundle is a folder with {MANIFEST}."
    known = list(known_bundles(folder))
    listed = f"Known by name: {', '.join(known)}." if known else "No bundle is installed."
    return (
        f"opening the bundle {name!r}: there is no such folder here, and no bundle of that name "
        f"in {folder}. {listed}{suggest(name, known)}"
    )
