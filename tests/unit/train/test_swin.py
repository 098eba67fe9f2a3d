from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tolerances import FP32_TOKEN
from train.errors import WeightsError
from train.models.base import Wanted
from train.models.swin import SIZES, SwinConfig, SwinEncoder, load

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from train.models.base import Loaded

ODD = SwinConfig(
    image_px=48, patch_px=2, width=10, depths=(2, 3, 2), heads=(1, 2, 5), window=3, mlp_ratio=2.3
)
"""No two sizes alike, so that axes that are mixed up do not fit; 24, 12 and 6 patches a side."""
ONE_WINDOW = replace(ODD, image_px=24)
"""Its last stage, 3 patches a side, is one window."""


def said(shape: SwinConfig) -> dict[str, object]:
    return {
        "image_size": shape.image_px,
        "patch_size": shape.patch_px,
        "embed_dim": shape.width,
        "depths": list(shape.depths),
        "num_heads": list(shape.heads),
        "window_size": shape.window,
        "mlp_ratio": shape.mlp_ratio,
        "layer_norm_eps": shape.norm_eps,
    }


def reference(
    shape: SwinConfig = ODD, name: str = "SwinModel", **changes: object
) -> torch.nn.Module:
    """A network of transformers with random weights, biases and offsets."""
    torch.manual_seed(0)
    config = transformers.SwinConfig(**said(shape), **changes)
    model = getattr(transformers, name)(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def pixels(shape: SwinConfig) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    return torch.randn((2, 3, shape.image_px, shape.image_px), generator=drawn)


def read(folder: Path) -> Loaded:
    return load(Wanted(source=str(folder), shape=ODD, is_still=True))


def tokens(loaded: Loaded) -> torch.Tensor:
    encoder = SwinEncoder(loaded.shape).eval()
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in loaded.tensors.items()}
    )
    with torch.inference_mode():
        channels_last = pixels(loaded.shape).permute(0, 2, 3, 1)[:, None]
        found: torch.Tensor = encoder(encoder.tubelets(channels_last))
    return found


def compare(model: torch.nn.Module, loaded: Loaded) -> None:
    with torch.inference_mode():
        base = getattr(model, "swin", model)
        wanted = base(pixels(loaded.shape)).last_hidden_state
    found = tokens(loaded)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("SwinModel", set()),
        ("SwinForImageClassification", {"classifier"}),
        ("SwinForMaskedImageModeling", {"decoder", "swin"}),
    ],
)
def test_it_computes_what_transformers_does(name: str, outside: set[str], tmp_path: Path) -> None:
    model = reference(name=name)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    assert loaded.shape == ODD
    compare(model, loaded)
    # transformers before 5 stores where offsets lie, too.
    others = {entry for entry in loaded.report.left_out if not entry.endswith("position_index")}
    assert {entry.split(".")[0] for entry in others} == outside
    stored = set(load_file(tmp_path / "model.safetensors"))
    assert set(loaded.report.used) | set(loaded.report.left_out) == stored


@pytest.mark.parametrize(
    "shape",
    [
        ONE_WINDOW,
        # Embedding and merging keep 1e-5, whatever config.json says.
        replace(ODD, norm_eps=0.1),
        SwinConfig(image_px=112, width=16, depths=(2, 2, 2), heads=(1, 2, 4)),
    ],
    ids=["a stage of one window", "another epsilon", "windows of 7"],
)
def test_it_computes_the_same_in_other_shapes(shape: SwinConfig, tmp_path: Path) -> None:
    model = reference(shape)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    assert loaded.shape == shape
    compare(model, loaded)


def test_attention_without_biases_has_zeros_for_them(tmp_path: Path) -> None:
    model = reference(qkv_bias=False)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    compare(model, loaded)
    assert "21 begin at 0" in loaded.report.notes[0]  # 7 blocks


def as_published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of the files on the hub, from before transformers 5, with the index that they hold."""
    names = (
        ("attention.q_proj", "attention.self.query"),
        ("attention.k_proj", "attention.self.key"),
        ("attention.v_proj", "attention.self.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("attention.relative_position_bias.", "attention.self."),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    found = {}
    for name, value in tensors.items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        found[name] = value
        if name.endswith("bias_table"):
            found[name.replace("bias_table", "index")] = index_by_hand(ODD.window)
    return found


def index_by_hand(window: int) -> torch.Tensor:
    """Row of the table for each two patches of a window, counted out (Liu et al., section 3.2)."""
    patches = [(row, column) for row in range(window) for column in range(window)]
    rows = [
        [
            (to[0] - at[0] + window - 1) * (2 * window - 1) + to[1] - at[1] + window - 1
            for at in patches
        ]
        for to in patches
    ]
    return torch.tensor(rows)


def test_files_as_the_hub_has_them_are_read_whole(tmp_path: Path) -> None:
    model = reference()
    model.save_pretrained(tmp_path)
    tensors = as_published(load_file(tmp_path / "model.safetensors"))
    assert "encoder.layers.1.blocks.2.attention.self.relative_position_index" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = read(tmp_path)
    compare(model, loaded)
    assert len(loaded.report.left_out) == sum(ODD.depths)
    assert set(loaded.report.left_out.values()) == {
        "where offsets lie, which follows from the window"
    }


def test_in_memory_names_of_transformers_5_are_read_too(tmp_path: Path) -> None:
    model = reference()
    model.save_pretrained(tmp_path)
    held = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(held, tmp_path / "model.safetensors")
    compare(model, read(tmp_path))


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def add_tensor(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({**load_file(path), name: value}, path)

    return add


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change_config(model_type="swinv2"), "takes swin"),
        (change_config(use_absolute_embeddings=True), "use_absolute_embeddings"),
        (change_config(window_size=4), "must be a multiple of"),
        (change_config(depths=[2, 3]), "one positive number for each stage"),
        (change_config(depths=[2, 2, 2]), "there twice"),
        (change_config(depths=[2, 4, 2]), "missing"),
        (change_config(embed_dim=20), "of another shape"),
        (add_tensor("encoder.layers.0.blocks.0.gamma", torch.ones(10)), "gamma"),
        (
            add_tensor(
                "encoder.layers.0.blocks.0.attention.self.relative_position_index",
                index_by_hand(ODD.window).T.contiguous(),
            ),
            "relative_position_index",
        ),
    ],
)
def test_another_network_is_refused(
    damage: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    reference().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=told):
        read(tmp_path)


@pytest.mark.parametrize("mean", [0.485, None])
def test_what_pixels_were_trained_with_is_read(mean: float | None, tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    if mean is not None:
        record = {"image_mean": [mean] * 3, "image_std": [0.25] * 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(record))
    wanted = None if mean is None else ((mean,) * 3, (0.25,) * 3)
    assert read(tmp_path).normalisation == wanted


def test_patches_see_their_window_and_shifted_windows_their_neighbours() -> None:
    # One block of windows of 3: what lies in another window changes nothing. Two blocks: the
    # second looks across the edge of a window, never across that of the picture.
    shape = SwinConfig(image_px=24, patch_px=2, width=8, depths=(2,), heads=(2,), window=3)
    torch.manual_seed(0)
    encoder = SwinEncoder(shape).eval()
    with torch.no_grad():
        for parameter in encoder.blocks.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    side = shape.side_of(0)

    def reached(blocks: int) -> set[tuple[int, int]]:
        """Patches that the patch in the corner has a part in."""
        drawn = torch.randn((1, side, side, 8), generator=torch.Generator().manual_seed(2))
        changed = drawn.clone()
        changed[0, 0, 0, 0] += 1  # of all channels alike, norms would see nothing
        with torch.inference_mode():
            for block in encoder.blocks[:blocks]:
                drawn, changed = block(drawn), block(changed)
        moved = (drawn - changed).abs().amax(dim=(0, 3)) > 0
        return {(row, column) for row, column in moved.nonzero().tolist()}

    def square(count: int) -> set[tuple[int, int]]:
        return {(row, column) for row in range(count) for column in range(count)}

    assert reached(1) == square(3)
    assert reached(2) == square(4)  # the window that begins at 1 ends before 4


def test_the_published_size_is_the_default() -> None:
    # config.json of microsoft/swin-base-patch4-window7-224-in22k
    assert SIZES["base"] == SwinConfig(
        image_px=224, patch_px=4, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=7
    )
    assert SIZES["base"].last_width == 1024
    assert SIZES["base"].side_of(3) == 7
