"""The models of a user: those installed, and the public ones that can be.

A model is a bundle, in a folder of its name among the user's bundles. The default is a link named
`default` beside them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs

from engines.base import BundleError
from engines.bundle import read_bundle, read_manifest
from geotag.bundles import DEFAULT, DEMO, bundles_folder, known_bundles
from geotag.config import suggest
from geotag.errors import ConfigError, OutputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Sequence

_KNOWN = Path(__file__).with_name("known_models.toml")
KNOWN_VARIABLE = "GEOTAG_KNOWN_MODELS"
"""Names a file to read in place of ours: a mirror's list, or a fleet's own."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A public network, as `known_models.toml` describes it."""

    name: str
    kind: Literal["zero-shot", "encoder"]
    """zero-shot: a bundle is made from it; encoder: training starts from it."""
    what: str
    hub_id: str
    revision: str
    weights: str
    """File of the weights."""
    size_mb: int
    licence: str
    commercial: bool
    use: str
    """What it may be used for."""
    accuracy: str
    """What others measured, and who."""
    sha256: str | None = None

    @property
    def digests(self) -> dict[str, str]:
        """Digests known beforehand, by file name."""
        return {} if self.sha256 is None else {self.weights: self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """A bundle that a scan finds by name."""

    name: str
    path: Path
    is_default: bool
    description: str
    licence: str
    problem: str | None = None
    """Why it cannot be used."""


def read_known(path: Path | None = None) -> dict[str, KnownModel]:
    """The public networks by name, from our file or the one that KNOWN_VARIABLE names.

    Raises:
        ConfigError: the file is not what it should be.
    """
    path = path or Path(os.environ.get(KNOWN_VARIABLE) or _KNOWN)
    try:
        entries: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: KnownModel(name=name, **entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(
            f"reading the known models from {path}: {exc}. Each is a table as in {_KNOWN}."
        ) from exc


def known_model(name: str) -> KnownModel:
    """A public network.  Raises ConfigError."""
    known = read_known()
    if name not in known:
        raise ConfigError(
            f"pulling {name!r}: no known model has this name. Known are {', '.join(known)}."
            f"{suggest(name, list(known))} For another network of the hub: "
            "geotag export --from-clip OWNER/NAME --out BUNDLE, then geotag models add BUNDLE."
        )
    return known[name]


def check_licence(model: KnownModel, *, is_accepted: bool) -> None:
    """Refuse weights for non-commercial use that nobody accepted.  Raises ConfigError."""
    if not model.commercial and not is_accepted:
        raise ConfigError(
            f"pulling {model.name}: its weights are under {model.licence}: {model.use}. Nothing "
            "was downloaded. If your use is allowed, repeat the command with --accept-licence; "
            f"the licence: https://huggingface.co/{model.hub_id}"
        )


def downloads_folder(name: str) -> Path:
    """Where a network's files are put, by a download or by hand.  `name`: ours, or a hub id."""
    return platformdirs.user_data_path("geotag") / "downloads" / name.replace("/", "--")


def installed_models(folder: Path | None = None) -> list[InstalledModel]:
    """The demo, if it is here, and the user's bundles, sorted."""
    folder = folder or bundles_folder()
    default = default_name(folder)
    return [
        _describe(name, path, is_default=name == default)
        for name, path in known_bundles(folder).items()
        if name != DEFAULT or not (folder / DEFAULT).is_symlink()
    ]


def default_name(folder: Path | None = None) -> str | None:
    """The name of the default bundle; None where there is none."""
    link = (folder or bundles_folder()) / DEFAULT
    if link.is_symlink():
        return link.readlink().name if link.is_dir() else None
    return DEFAULT if link.is_dir() else None


def add_model(source: Path, *, name: str | None = None, folder: Path | None = None) -> str:
    """Copy a bundle among the user's.

    Returns:
        Its name.

    Raises:
        BundleError: it is none, or it is damaged.
        ConfigError: the name cannot be taken.
        OutputError: it cannot be written.
    """
    folder = folder or bundles_folder()
    bundle = read_bundle(source)
    name = name or bundle.manifest.name
    target = free_place(name, folder)
    aside = folder / f".{name}.{os.getpid()}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        for file in ("bundle.json", *bundle.manifest.files):
            shutil.copyfile(source / file, aside / file)
        read_bundle(aside)
        aside.replace(target)
    except OSError as exc:
        raise OutputError(f"installing {source} as {target}: {exc}") from exc
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return name


def free_place(name: str, folder: Path | None = None, *, overwrite: bool = False) -> Path:
    """The folder of a bundle that is to be installed; `overwrite` takes one that is there.

    Raises:
        ConfigError: the name is none, has a meaning already, or is taken.
    """
    folder = folder or bundles_folder()
    if not _NAME.fullmatch(name) or name in (DEMO, DEFAULT):
        raise ConfigError(
            f"installing a model as {name!r}: a name is 1 to 64 letters, digits, dots, dashes and "
            f"underscores, and neither {DEMO} nor {DEFAULT}. Choose one with --name."
        )
    if os.path.lexists(folder / name) and not overwrite:
        raise ConfigError(
            f"installing a model as {name!r}: there is one of that name in {folder}. Choose "
            f"another with --name, or first: geotag models remove {name} (`pull` also takes "
            "--overwrite)"
        )
    return folder / name


def set_default(name: str, folder: Path | None = None) -> None:
    """Let a scan use a bundle where none is named.

    Raises:
        ConfigError: there is no such bundle, or a bundle itself lies where the link must be.
        OutputError: the link cannot be made.
    """
    folder = folder or bundles_folder()
    _installed_path(name, folder, doing="choosing the default model")
    link = folder / DEFAULT
    if link.is_dir() and not link.is_symlink():
        if name == DEFAULT:
            return
        raise ConfigError(
            f"choosing the default model: {link} is a model itself, not a link to one. Rename "
            "that folder first."
        )
    aside = folder / f".{DEFAULT}.{os.getpid()}.new"
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(name, target_is_directory=True)
        aside.replace(link)
    except OSError as exc:
        raise OutputError(f"making {name} the default model in {folder}: {exc}") from exc


def remove_model(name: str, folder: Path | None = None) -> bool:
    """Delete a bundle of the user's.

    Returns:
        Whether it was the default, so that there is none now.

    Raises:
        ConfigError: there is none of that name.
        OutputError: it cannot be deleted.
    """
    folder = folder or bundles_folder()
    path = _installed_path(name, folder, doing="removing a model")
    was_default = default_name(folder) == name
    try:
        if was_default and (folder / DEFAULT).is_symlink():
            (folder / DEFAULT).unlink()
        if path.is_symlink():
            path.unlink()
        else:
            # Out of the way at once: an interrupted deletion leaves no half of a model.
            aside = folder / f".{name}.{os.getpid()}.old"
            path.replace(aside)
            shutil.rmtree(aside)
    except OSError as exc:
        raise OutputError(f"removing the model {path}: {exc}") from exc
    return was_default


def list_rows(
    installed: Sequence[InstalledModel], known: Sequence[KnownModel]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows for a person: of the installed models, and of the known ones."""
    mine: list[tuple[str, ...]] = [
        (
            f"{model.name} (default)" if model.is_default else model.name,
            model.problem or model.description,
            model.licence,
        )
        for model in installed
    ]
    names = {model.name for model in installed}
    public: list[tuple[str, ...]] = [
        (
            model.name,
            f"{model.what}{'; installed' if model.name in names else ''}",
            f"{model.size_mb} MB",
            f"{model.licence}: {model.use}",
            model.accuracy,
        )
        for model in known
    ]
    return mine, public


def named_models(folder: Path | None = None) -> list[str]:
    """Names of the user's bundles; `default` only where it is a bundle itself."""
    folder = folder or bundles_folder()
    link = folder / DEFAULT
    left_out = {DEMO, DEFAULT} if link.is_symlink() else {DEMO}
    return [name for name in known_bundles(folder) if name not in left_out]


def _installed_path(name: str, folder: Path, *, doing: str) -> Path:
    path = folder / name
    names = named_models(folder)
    if not _NAME.fullmatch(name) or name not in names:
        hint = " The demo is a part of this program." if name == DEMO else ""
        if name == DEFAULT:
            hint = " It is the choice of a model, and none itself."
        listed = f"Installed are {', '.join(names)}." if names else "None is installed."
        raise ConfigError(
            f"{doing}: {name!r} is not installed in {folder}.{hint} {listed}{suggest(name, names)}"
        )
    return path


def _describe(name: str, path: Path, *, is_default: bool) -> InstalledModel:
    try:
        manifest = read_manifest(path)
    except BundleError as exc:
        return InstalledModel(
            name=name,
            path=path,
            is_default=is_default,
            description="",
            licence="",
            problem=f"cannot be used: {exc}",
        )
    return InstalledModel(
        name=name,
        path=path,
        is_default=is_default,
        description=manifest.description,
        licence=manifest.licence,
    )
