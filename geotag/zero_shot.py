"""Making a model from a published network and a list of places: `export --from-clip`, `pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotag.bundles import has_default_bundle
from geotag.errors import ConfigError, OutputError
from geotag.hub import Fetched, fetch
from geotag.models import (
    check_licence,
    default_name,
    downloads_folder,
    free_place,
    known_model,
    read_known,
    set_default,
)
from geotag.places.lists import describe_places, need_places

if TYPE_CHECKING:
    from geotag.console import Console
    from geotag.models import KnownModel
    from geotag.places.lists import PlaceList
    from geotag.wish import ZeroShotWish

WORLD = "world"
"""The places of a pulled model where none are asked for."""


_INTERRUPTED = (
    "interrupted: no model was made. The same command goes on with what is downloaded already."
)


def export_from_clip(
    given: str,
    out: Path,
    wish: ZeroShotWish,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    console: Console,
) -> None:
    """Make a bundle from a folder, or from a network of the hub.

    Raises:
        ConfigError, OutputError, EngineError: as their names say; nothing is left at `out` then.
    """
    _need_exporter(given)
    places = _told(_place_list(wish, "166"), console)
    folder = Path(given).expanduser()
    if folder.is_dir():
        _export(folder, places, out, wish, None, None, console, overwrite=overwrite)
        return
    if folder.exists() or given.startswith((".", "/", "~")) or given.count("/") != 1:
        raise ConfigError(
            f"exporting from {given}: there is no such folder, and a hub id is OWNER/NAME. Give "
            "the folder that holds config.json and the weights, or a hub id such as "
            "openai/clip-vit-base-patch32."
        )
    known = next((model for model in read_known().values() if model.hub_id == given), None)
    if known is not None:
        check_licence(known, is_accepted=wish.is_accepted)
        if known.kind != "zero-shot":
            raise ConfigError(f"exporting from {given}: {known.what}.")
    fetched = _fetch(
        given,
        downloads_folder(known.name if known and revision is None else given),
        revision=revision or (known.revision if known else None),
        sha256=known.digests if known and revision is None else None,
        is_accepted=wish.is_accepted,
        tell=console.say,
    )
    _export(fetched.folder, places, out, wish, given, fetched, console, overwrite=overwrite)


def pull_model(name: str, wish: ZeroShotWish, *, overwrite: bool = False, console: Console) -> None:
    """Fetch a known network, make a bundle of it, and install that; `overwrite`: in place of one.

    Raises:
        ConfigError, OutputError, EngineError: as their names say; nothing is installed then.
    """
    known = known_model(name)
    console.say(f"{known.name}: {known.what}")
    console.say(f"licence of the weights: {known.licence}: {known.use}")
    check_licence(known, is_accepted=wish.is_accepted)
    if known.kind == "encoder":
        fetched = _fetch_known(known, console, is_accepted=wish.is_accepted)
        console.result(
            f"{known.name} is in {fetched.folder}\n  It is no model to scan with: training starts "
            "from it."
        )
        return
    out = free_place(wish.name or name, overwrite=overwrite)
    _need_exporter(name)
    places = _told(_place_list(wish, WORLD), console)
    fetched = _fetch_known(known, console, is_accepted=wish.is_accepted)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"installing {name} in {out.parent}: {exc}") from exc
    _export(
        fetched.folder,
        places,
        out,
        wish,
        known.hub_id,
        fetched,
        console,
        known=known,
        overwrite=overwrite,
    )
    if not has_default_bundle():
        set_default(out.name)
    if default_name() == out.name:
        console.result("  it is the default: geotag scan FOLDER uses it")
    else:
        console.result(
            f"  use it with --bundle {out.name}, or always: geotag models default {out.name}"
        )


def _fetch_known(known: KnownModel, console: Console, *, is_accepted: bool) -> Fetched:
    return _fetch(
        known.hub_id,
        downloads_folder(known.name),
        revision=known.revision,
        sha256=known.digests,
        with_tokenizer=known.kind != "encoder",
        is_accepted=is_accepted,
        tell=console.say,
    )


def _fetch(hub_id: str, folder: Path, **options: Any) -> Fetched:  # noqa: ANN401
    try:
        return fetch(hub_id, folder, **options)
    except KeyboardInterrupt as exc:
        raise KeyboardInterrupt(_INTERRUPTED) from exc


def _place_list(wish: ZeroShotWish, usual: str) -> PlaceList:
    """The places wished for, or the usual ones.  Raises ConfigError."""
    if wish.places is None and wish.cities_over is None:
        return need_places(usual)
    return need_places(wish.places, cities_over=wish.cities_over)


def _told(places: PlaceList, console: Console) -> PlaceList:
    console.say(describe_places(places))
    return places


def _need_exporter(doing: str) -> None:
    """Fail before anything is downloaded where the packages for exporting are missing."""
    try:
        import train.zeroshot.export  # noqa: F401
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"making a model from {doing}: the package {exc.name!r} is not installed. Making "
            "models needs more than a scan: pip install '.[cpu,models]' in geotag's source folder"
        ) from exc


def _export(
    folder: Path,
    places: PlaceList,
    out: Path,
    wish: ZeroShotWish,
    hub_id: str | None,
    fetched: Fetched | None,
    console: Console,
    *,
    known: KnownModel | None = None,
    overwrite: bool = False,
) -> None:
    from train.zeroshot.export import FRAMES, Source, card_licence, export_zero_shot

    licence = f"{known.licence}: {known.use}" if known else card_licence(folder)
    source = Source(
        name=hub_id or folder.resolve().name,
        revision=fetched.revision if fetched else None,
        licence=licence,
        accuracy=known.accuracy if known else None,
    )
    try:
        report = export_zero_shot(
            folder,
            places,
            out,
            source=source,
            name=wish.name,
            frames=FRAMES if wish.frames is None else wish.frames,
            resize=wish.resize,
            overwrite=overwrite,
            tell=console.step,
        )
    except KeyboardInterrupt as exc:
        raise KeyboardInterrupt(_INTERRUPTED) from exc
    finally:
        console.clear()
    console.result(str(report))
