from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, CLIPModel
from typer.testing import CliRunner

from engines.bundle import LEVELS
from geotag.places.hierarchy import build_hierarchy
from tests.checkpoints import write_clip
from tests.hub import Hub, running
from train import texts
from train.errors import DatasetError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.places.hierarchy import Hierarchy

ROWS = (
    ("Birmingham", "Alabama", "United States", "North America"),
    ("Los_Angeles", "California", "United States", "North America"),
    ("Birmingham", "England", "United Kingdom", "Europe"),
    ("Malm", "Skåne", "Sweden", "Europe"),
    ("São Paulo", "São Paulo", "Brazil", "South America"),
)


def tree(rows: Sequence[tuple[str, ...]] = ROWS) -> Hierarchy:
    places = [
        dict(zip(LEVELS, names, strict=True)) | {"lat_deg": "1", "lon_deg": "2"} for names in rows
    ]
    return build_hierarchy(places, source="some.csv")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("nets") / "some-clip")


def by_hand(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Embeddings of length 1, by transformers alone."""
    model, tokenizer = CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(list(names), padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model.get_text_features(**tokens)
    found = getattr(found, "pooler_output", found).double().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_target_is_the_mean_of_the_four_names_by_transformers(clip_folder: Path) -> None:
    table = texts.table_of_clip(tree(), clip_folder)
    # The folder's name `Malm` lost a letter, and `Los_Angeles` has an underscore; texts have not.
    rows = [
        tuple({"Malm": "Malmö", "Los_Angeles": "Los Angeles"}.get(name, name) for name in row)
        for row in ROWS
    ]
    for number, row in enumerate(rows):
        four = by_hand(clip_folder, row)
        mean = four.mean(axis=0)
        np.testing.assert_allclose(
            table.all_KE[number], mean / np.linalg.norm(mean), rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(table.city_KE[number], four[0], rtol=0, atol=1e-5)
    assert table.all_KE.dtype == np.float32
    assert (table.encoder, list(table.weights_sha256)) == ("some-clip", ["model.safetensors"])
    assert np.abs(table.all_KE[0] - table.all_KE[2]).max() > 1e-3
    np.testing.assert_array_equal(table.city_KE[0], table.city_KE[2])


def test_a_table_comes_back_as_it_was_written(clip_folder: Path, tmp_path: Path) -> None:
    table = texts.table_of_clip(tree(), clip_folder)
    texts.write_text_table(table, tmp_path / "new" / "one.safetensors")
    np.testing.assert_array_equal(
        texts.read_text_table(tmp_path / "new" / "one.safetensors", tree()), table.all_KE
    )
    np.testing.assert_array_equal(
        texts.read_text_table(tmp_path / "new" / "one.safetensors", tree(), "city"), table.city_KE
    )
    found = texts.open_text_table(tmp_path / "new" / "one.safetensors")
    assert found.weights_sha256 == table.weights_sha256
    assert found.texts[3] == "Malmö / Skåne / Sweden / Europe"
    assert sorted(load_file(tmp_path / "new" / "one.safetensors")) == ["all", "city"]


def test_the_same_table_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        texts.write_text_table(texts.table_of_names(tree()), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    "other", [ROWS[:-1], (*ROWS[:-1], ("Rio", *ROWS[-1][1:])), (ROWS[1], ROWS[0], *ROWS[2:])]
)
def test_a_table_for_another_tree_is_refused(
    tmp_path: Path, other: Sequence[tuple[str, ...]]
) -> None:
    texts.write_text_table(texts.table_of_names(tree()), tmp_path / "table")
    with pytest.raises(DatasetError, match="another class tree"):
        texts.read_text_table(tmp_path / "table", tree(other))


def test_a_table_that_is_missing_or_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(DatasetError, match="no such file"):
        texts.read_text_table(path, tree())
    for content in (b"", b"{}", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="no text table, or cut short"):
            texts.read_text_table(path, tree())
    table = texts.table_of_names(tree())
    save_file({"all": table.all_KE, "city": table.city_KE}, path)
    with pytest.raises(DatasetError, match="no text table"):
        texts.read_text_table(path, tree())
    texts.write_text_table(table, path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match="cut short"):
        texts.read_text_table(path, tree())
    texts.write_text_table(table, path)
    with pytest.raises(DatasetError, match="no variant 'country'"):
        texts.read_text_table(path, tree(), "country")  # type: ignore[arg-type]


def test_rows_that_are_not_of_length_one_are_refused(tmp_path: Path) -> None:
    table = texts.table_of_names(tree())
    table.all_KE[2] *= 2
    texts.write_text_table(table, tmp_path / "table")
    with pytest.raises(DatasetError, match="rows of length 1"):
        texts.read_text_table(tmp_path / "table", tree())


def test_an_encoder_that_tells_no_names_apart_is_refused(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "dull")
    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.zero_()
        model.text_model.embeddings.position_embedding.weight.zero_()
    model.save_pretrained(folder)
    with pytest.raises(WeightsError, match="takes all of them for the same"):
        texts.table_of_clip(tree(), folder)


@pytest.mark.parametrize("width", [512, 24, 7])
def test_names_alone_give_unit_vectors_that_tell_cities_apart(width: int) -> None:
    table_KE = texts.name_table(tree(), width)
    assert table_KE.shape == (5, width)
    np.testing.assert_allclose(np.linalg.norm(table_KE, axis=1), 1, atol=1e-6)
    assert len(np.unique(table_KE, axis=0)) == 5


def test_names_alone_bring_what_shares_names_closer() -> None:
    cosines_KK = texts.name_table(tree()) @ texts.name_table(tree()).T
    alabama, los_angeles, england, sao_paulo = cosines_KK[0, [0, 1, 2, 4]]
    assert alabama == pytest.approx(1)
    assert los_angeles > sao_paulo + 0.2
    assert england > sao_paulo + 0.1
    assert texts.spell("Manchester") @ texts.spell("manchester") == pytest.approx(1)
    assert texts.spell("Nashville") @ texts.spell("Asheville") > 0.3
    assert abs(texts.spell("Oslo") @ texts.spell("Bangkok")) < 0.2


def test_spelling_is_the_same_on_every_machine() -> None:
    """By hand, for the shortest text: one run of each length, of which the longer end early."""
    from hashlib import shake_256

    total = np.zeros(16)
    for gram in ("\x02a", "a\x03", "\x02a\x03", "\x02a\x03"):
        bits = "".join(f"{byte:08b}" for byte in shake_256(gram.encode()).digest(2))
        total += [1 if bit == "1" else -1 for bit in bits]
    np.testing.assert_allclose(
        texts.spell("A", 16), total / np.linalg.norm(total), rtol=0, atol=1e-7
    )


@given(st.text(max_size=40), st.integers(1, 70))
@settings(max_examples=60)
def test_any_text_is_spelt_with_length_one(text: str, width: int) -> None:
    vector_E = texts.spell(text, width)
    assert vector_E.shape == (width,)
    assert np.linalg.norm(vector_E) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "level", "text"),
    [
        ("Banglore", "city", "Bengaluru"),
        ("Talinn", "city", "Tallinn"),
        ("Washington_DC", "city", "Washington, D.C."),
        ("Oklahoma", "city", "Oklahoma City"),
        ("Oklahoma", "state", "Oklahoma"),
        ("New_South_Wales", "state", "New South Wales"),
        ("Rome", "city", "Rome"),
    ],
)
def test_texts_are_names_as_they_are_written(name: str, level: str, text: str) -> None:
    assert texts.text_of(name, level) == text  # type: ignore[arg-type]


def write_places(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*LEVELS, "lat_deg", "lon_deg"])
        writer.writerows((*row, "1", "2") for row in ROWS)
    return path


def test_the_command_writes_a_table_for_a_places_csv(clip_folder: Path, tmp_path: Path) -> None:
    places, out = write_places(tmp_path / "places.csv"), tmp_path / "table"
    arguments = ["--places", str(places), "--encoder", str(clip_folder), "--out", str(out)]
    result = CliRunner().invoke(texts.app, arguments)
    assert result.exit_code == 0, result.output
    assert texts.read_text_table(out, tree()).shape == (5, 24)


def test_the_command_needs_no_network_for_names_of_the_166_cities(tmp_path: Path) -> None:
    result = CliRunner().invoke(texts.app, ["--encoder", "names", "--out", str(tmp_path / "t")])
    assert result.exit_code == 0, result.output
    assert texts.open_text_table(tmp_path / "t").all_KE.shape == (166, 512)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--places", "nowhere.csv"], "no file"),
        (["--places", "a.csv", "--dataset", "rendered"], "not both"),
        (["--encoder", "./nowhere"], "no such folder"),
    ],
)
def test_a_wrong_command_says_why_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(texts.app, arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_the_hub_is_fetched_once(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with running(Hub(repositories={"some/clip": clip_folder})) as hub:
        for name, value in (
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
        ):
            monkeypatch.setattr(constants, name, value)
        first = texts.table_of_clip(tree(), "some/clip")
        asked = len(hub.asked)
        second = texts.table_of_clip(tree(), "some/clip")
        assert len(hub.asked) == asked
    assert first.encoder == "some/clip"
    np.testing.assert_array_equal(first.all_KE, second.all_KE)
