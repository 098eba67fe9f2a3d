"""`geotag export`: from a checkpoint or a published network to a bundle."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from engines.bundle import PRECISIONS, Precision
from geotag.cli_models import (
    AcceptOption,
    CitiesOverOption,
    FramesOption,
    PlacesOption,
    ResizeOption,
    wish_of,
)
from geotag.errors import EXIT_OK, ConfigError
from geotag.wish import Builder, PixelForm, PrecisionWish, WeightForm, ZeroShotWish

if TYPE_CHECKING:
    from geotag.invocation import Invocation

_USUAL = PrecisionWish()


def export(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="RUN|BUNDLE",
            help="Folder that training wrote, or a bundle to make smaller.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|fp16|int8",
            help="Smallest form of the network; larger ones are in the bundle too.",
        ),
    ] = "fp32",
    calib: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|MANIFEST",
            help="Footage to calibrate and judge by, or a data set of train.fit. [default: what "
            "the run was trained on]",
        ),
    ] = None,
    calib_clips: Annotated[
        int, typer.Option(metavar="N", help="Clips to calibrate on.")
    ] = _USUAL.calib_clips,
    gate_clips: Annotated[
        int, typer.Option(metavar="N", help="Other clips, to judge by.")
    ] = _USUAL.judged_clips,
    max_drop: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            min=0.0,
            help="Points of city accuracy that may be lost; more is refused. Without labels, 1 % "
            "of the clips may get another city.",
        ),
    ] = 100 * _USUAL.max_drop,
    force: Annotated[bool, typer.Option("--force", help="Write it even if more is lost.")] = False,
    int8_skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Leave it in floating point, such as blocks.11.fc2 or blocks.0. Repeatable.",
        ),
    ] = None,
    int8_onnx: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Quantized ONNX of your own, in place of ours."),
    ] = None,
    builder: Annotated[
        str,
        typer.Option(metavar="onnx|torch-tensorrt", help="What compiles for TensorRT."),
    ] = _USUAL.builder,
    no_plan: Annotated[
        bool, typer.Option("--no-plan", help="Compile nothing, where TensorRT is here.")
    ] = False,
    trt_weights: Annotated[
        str,
        typer.Option(metavar="dq|qdq", help="Form of int8 weights for TensorRT.", hidden=True),
    ] = _USUAL.weights,
    trt_pixels: Annotated[
        str,
        typer.Option(metavar="uint8|float16", help="Input of TensorRT's files.", hidden=True),
    ] = _USUAL.pixels,
    from_clip: Annotated[
        str | None,
        typer.Option(
            "--from-clip",
            metavar="FOLDER|HUB_ID",
            help="In place of a checkpoint: a published CLIP or SigLIP, which no training follows.",
        ),
    ] = None,
    places: PlacesOption = None,
    cities_over: CitiesOverOption = None,
    frames: FramesOption = None,
    resize: ResizeOption = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, branch or tag of the HUB_ID.")
    ] = None,
    accept_licence: AcceptOption = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the bundle. [default: that of RUN, or of BUNDLE]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle that is there.")
    ] = False,
) -> None:
    """Turn a trained checkpoint or a published network into a bundle, which a scan uses."""
    asked: Invocation = ctx.obj
    wish = wish_of(places, cities_over, frames, resize, name, is_accepted=accept_licence)
    smaller = PrecisionWish(
        precision=cast("Precision", _one_of("--precision", precision, PRECISIONS)),
        calib=calib,
        calib_clips=calib_clips,
        judged_clips=gate_clips,
        max_drop=max_drop / 100,
        force=force,
        skipped=tuple(int8_skip or ()),
        own_graph=int8_onnx,
        weights=cast("WeightForm", _one_of("--trt-weights", trt_weights, get_args(WeightForm))),
        pixels=cast("PixelForm", _one_of("--trt-pixels", trt_pixels, get_args(PixelForm))),
        builder=cast("Builder", _one_of("--builder", builder, get_args(Builder))),
        has_plan=not no_plan,
    )
    if (checkpoint is None) == (from_clip is None):
        raise typer.BadParameter("give either --checkpoint or --from-clip.")
    if from_clip is not None:
        if smaller.is_asked:
            raise typer.BadParameter(
                "--precision and what goes with it belong to --checkpoint: a model from a "
                "published network is exported in fp32."
            )
        asked.work = partial(_export_from_clip, from_clip, out, wish, revision, overwrite, asked)
    elif checkpoint is not None:
        if wish.is_asked or revision:
            raise typer.BadParameter(
                "--places, --cities-over, --frames, --resize, --revision and --accept-licence "
                "belong to --from-clip."
            )
        _check(smaller)
        asked.work = partial(_export, checkpoint, out, name, overwrite, smaller, asked)


def _one_of(flag: str, given: str, allowed: tuple[Any, ...]) -> str:
    if given not in allowed:
        raise typer.BadParameter(f"{flag} {given}: allowed are {', '.join(allowed)}.")
    return given


def _check(wish: PrecisionWish) -> None:
    """Refuse flags that would do nothing, and a tolerance that nothing is compared with."""
    if not math.isfinite(wish.max_drop):
        raise typer.BadParameter(
            "--max-drop takes points of city accuracy, such as 0.5. To ship a model whatever it "
            "loses, use --force."
        )
    if wish.precision != "int8" and (wish.skipped or wish.own_graph):
        raise typer.BadParameter("--int8-skip and --int8-onnx belong to --precision int8.")
    if wish.skipped and wish.own_graph:
        raise typer.BadParameter("--int8-skip and --int8-onnx exclude each other.")
    if wish.precision == "int8" and wish.builder == "torch-tensorrt" and wish.has_plan:
        raise typer.BadParameter(
            "--builder torch-tensorrt compiles fp32 and fp16. int8 needs the int8 graph: "
            "--builder onnx, or --no-plan."
        )
    if wish.precision == "fp32" and wish.calib is not None:
        raise typer.BadParameter("--calib belongs to --precision fp16 or int8.")


def _export(
    checkpoint: Path,
    out: Path,
    name: str | None,
    overwrite: bool,
    wish: PrecisionWish,
    asked: Invocation,
) -> int:
    try:
        from train.export import export_bundle

        report = export_bundle(checkpoint, out, name=name, overwrite=overwrite, wish=wish)
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"exporting {checkpoint}: the package {exc.name!r} is not installed. "
            "Training and exporting need more than a scan: pip install '.[cpu,models]' in geotag's "
            "source folder"
        ) from exc
    asked.console.result(str(report))
    return EXIT_OK


def _export_from_clip(
    given: str,
    out: Path,
    wish: ZeroShotWish,
    revision: str | None,
    overwrite: bool,
    asked: Invocation,
) -> int:
    from geotag.zero_shot import export_from_clip

    export_from_clip(
        given, out, wish, revision=revision, overwrite=overwrite, console=asked.console
    )
    return EXIT_OK
