"""Parameters and multiplications of networks, counted: nothing is downloaded, trained or run.

    python -m train.count                    # every size of every kind
    python -m train.count vit paper          # the sizes of a kind, the network of a preset
    python -m train.count planet             # both, where a preset is called as its kind

A multiplication with an addition (MAC) is counted once, those of matrix products, convolutions and
attention, for one clip. The network is laid out without weights, so that the largest takes no
memory; that the exported graph does the same multiplications is what `engines.macs` is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from train.build import shape_of, teachers_of
from train.config import load_preset, preset_names
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.endings import telling
from train.errors import TrainError
from train.models.kinds import KINDS, find_kind
from train.models.teachers import PLAIN, TeacherConfig
from train.place_texts import TEXT_WIDTH, label_width_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from train.models.base import GeoModel

HEADS = ("heads.", "labels.", "teachers.")
"""What begins the names of parameters that are no part of the trunk."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a network costs."""

    parameters: int
    """All that a checkpoint holds."""
    trunk: int
    """Those of them that are no classifiers and no teachers."""
    macs: int
    """Of one clip."""


def cost_of(model: GeoModel) -> Cost:
    """Count a network.

    Args:
        model: on any device, such as `meta`.
    """
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    return Cost(
        parameters=sum(sizes.values()),
        trunk=sum(size for name, size in sizes.items() if not name.startswith(HEADS)),
        macs=macs_of(model),
    )


def macs_of(model: GeoModel) -> int:
    """MACs of one clip."""
    # Laid out anew: torch does not count attention as processors compute it.
    empty = lay_out(model.kind, model.config, model.classes, model.teaching).folded()
    empty.requires_grad_(False)  # the counter follows gradients otherwise, and finds none
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        empty(torch.zeros((1, *model.clip_shape), dtype=torch.uint8, device="meta"))
    return int(counter.get_total_flops()) // 2  # it counts the addition too


def lay_out(
    kind: str,
    shape: object,
    classes: Mapping[str, int],
    teachers: TeacherConfig = PLAIN,
) -> GeoModel:
    """A network without weights, on the device `meta`."""
    with torch.device("meta"):
        model = find_kind(kind).model(shape, classes, teachers=teachers)
    return model.to("meta").eval()


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Presets and kinds of network. Default: every size of every kind."),
    ] = None,
) -> None:
    """Count parameters and multiplications of networks for the classes of CityGuessr68k."""
    with telling(Console(stderr=True), stopped="stopped"):
        classes = class_counts(cityguessr_tree().hierarchy)
        table = Table("network", "clip", "parameters, M", "without heads, M", "GMAC a clip")
        networks = (_named(name, classes) for name in names or ())
        for several in networks if names else (_sizes(name, classes) for name in KINDS):
            for label, model in several:
                frames, height, width, _ = model.clip_shape
                cost = cost_of(model)
                table.add_row(
                    label,
                    f"{frames} x {width} x {height}",
                    f"{cost.parameters / 1e6:.2f}",
                    f"{cost.trunk / 1e6:.2f}",
                    f"{cost.macs / 1e9:.2f}",
                )
        Console(width=100).print(table)


def _named(name: str, classes: Mapping[str, int]) -> list[tuple[str, GeoModel]]:
    """The networks that a name stands for, each with what it is called: a preset's comes first.

    Raises:
        TrainError: it is neither a kind nor a preset.
    """
    presets = preset_names()
    sizes = _sizes(name, classes) if name in KINDS else []
    if sizes and name not in presets:
        return sizes
    try:
        return [(name, lay_out_preset(name, classes)), *sizes]
    except ValueError as exc:
        if name in presets or name.endswith(".toml"):
            raise TrainError(f"counting {name!r}: {exc}") from exc
        raise TrainError(
            f"counting {name!r}: it is no kind of network ({', '.join(KINDS)}) and no preset "
            f"({', '.join(presets)}, or a .toml file of your own)."
        ) from exc


def _sizes(name: str, classes: Mapping[str, int]) -> list[tuple[str, GeoModel]]:
    """Every size of a kind."""
    kind = find_kind(name)
    plain = TeacherConfig(scene="none" if "none" in kind.scenes else kind.scenes[0])
    return [
        (f"{name} {size}", lay_out(name, shape, classes, plain))
        for size, shape in kind.sizes.items()
    ]


def lay_out_preset(name: str, classes: Mapping[str, int]) -> GeoModel:
    """The network of a preset, without weights.

    Raises:
        ValueError: there is no such preset.
    """
    config = load_preset(name).model
    teachers = teachers_of(
        config,
        text_width=0 if config.text == "none" else TEXT_WIDTH,
        label_width=label_width_of(config),
    )
    return lay_out(config.kind, shape_of(config), classes, teachers)


if __name__ == "__main__":
    app()
