"""`geotag models`, and the flags that making a model shares with `geotag export`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from engines.bundle import Resize
from geotag.errors import EXIT_OK
from geotag.wish import ZeroShotWish

if TYPE_CHECKING:
    from geotag.invocation import Invocation

PlacesOption = Annotated[
    str | None,
    typer.Option(
        "--places",
        metavar="FILE|166|world",
        help="Places to tell apart: a CSV, the paper's 166 cities, or cities of the whole world.",
    ),
]
CitiesOverOption = Annotated[
    int | None,
    typer.Option(
        "--cities-over",
        metavar="POPULATION",
        min=0,
        help="In place of a list: every city of the gazetteer with more people.",
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", metavar="N", min=1, max=64, help="Frames of a clip. [default: 6]"),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        "--resize",
        metavar="crop|squash",
        help="How pictures are fitted. [default: as the network was trained]",
    ),
]
AcceptOption = Annotated[
    bool,
    typer.Option("--accept-licence", help="Take weights for non-commercial use only, too."),
]

models_app = typer.Typer(
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Models to look at pictures with: what there is, fetching, choosing, removing.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def wish_of(
    places: str | None,
    cities_over: int | None,
    frames: int | None,
    resize: str | None,
    name: str | None,
    *,
    is_accepted: bool,
) -> ZeroShotWish:
    """The flags as one value.  Raises typer.BadParameter."""
    if places is not None and cities_over is not None:
        raise typer.BadParameter("--places and --cities-over exclude each other.")
    if resize is not None and resize not in get_args(Resize):
        raise typer.BadParameter(f"--resize {resize}: allowed are {', '.join(get_args(Resize))}.")
    return ZeroShotWish(
        places=places,
        cities_over=cities_over,
        frames=frames,
        resize=cast("Resize | None", resize),
        name=name,
        is_accepted=is_accepted,
    )


@models_app.command("list")
def list_models(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that are installed, and the public ones that can be."""
    asked: Invocation = ctx.obj
    asked.work = partial(_list, json, asked)


@models_app.command()
def pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `geotag models list` has it.")],
    places: PlacesOption = None,
    cities_over: CitiesOverOption = None,
    frames: FramesOption = None,
    resize: ResizeOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an installed model of that name.")
    ] = False,
    as_name: Annotated[
        str | None, typer.Option("--name", help="Name to install it under. [default: NAME]")
    ] = None,
    accept_licence: AcceptOption = False,
) -> None:
    """Fetch a public network, make a model for a list of places of it, and install that."""
    asked: Invocation = ctx.obj
    wish = wish_of(places, cities_over, frames, resize, as_name, is_accepted=accept_licence)
    asked.work = partial(_pull, name, wish, overwrite, asked)


@models_app.command()
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Model folder to copy.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to install it under. [default: its own]")
    ] = None,
) -> None:
    """Install a model folder, so that it is found by its name."""
    asked: Invocation = ctx.obj
    asked.work = partial(_add, path, name, asked)


@models_app.command()
def default(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.")],
) -> None:
    """Choose the model that a scan uses where none is named."""
    asked: Invocation = ctx.obj
    asked.work = partial(_default, name, asked)


@models_app.command()
def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.")],
) -> None:
    """Delete an installed model."""
    asked: Invocation = ctx.obj
    asked.work = partial(_remove, name, asked)


def _list(as_json: bool, asked: Invocation) -> int:
    from geotag.models import installed_models, list_rows, read_known

    installed, known = installed_models(), list(read_known().values())
    if as_json:
        record = {
            "installed": [asdict(model) | {"path": str(model.path)} for model in installed],
            "known": [asdict(model) for model in known],
        }
        asked.console.result(jsonlib.dumps(record, indent=2, ensure_ascii=False))
        return EXIT_OK
    mine, public = list_rows(installed, known)
    if mine:
        asked.console.table(("installed", "what it is", "licence"), mine)
    else:
        asked.console.result("No model is installed.")
    asked.console.result("")
    asked.console.table(("geotag models pull", "what it is", "size", "licence", "measured"), public)
    return EXIT_OK


def _pull(name: str, wish: ZeroShotWish, overwrite: bool, asked: Invocation) -> int:
    from geotag.zero_shot import pull_model

    pull_model(name, wish, overwrite=overwrite, console=asked.console)
    return EXIT_OK


def _add(path: Path, name: str | None, asked: Invocation) -> int:
    from geotag.bundles import has_default_bundle
    from geotag.models import add_model, set_default

    installed = add_model(path, name=name)
    if not has_default_bundle():
        set_default(installed)
        asked.console.result(f"{installed} is installed, and is the default.")
    else:
        asked.console.result(f"{installed} is installed; use it with --bundle {installed}.")
    return EXIT_OK


def _default(name: str, asked: Invocation) -> int:
    from geotag.models import set_default

    set_default(name)
    asked.console.result(f"{name} is the default.")
    return EXIT_OK


def _remove(name: str, asked: Invocation) -> int:
    from geotag.models import named_models, remove_model

    rest = ""
    if remove_model(name):
        left = named_models()
        rest = " It was the default, and no other model is installed."
        if left:
            rest = f" It was the default; choose another: geotag models default {left[0]}"
    asked.console.result(f"{name} is removed.{rest}")
    return EXIT_OK
