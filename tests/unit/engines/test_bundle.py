from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from engines.base import BundleError
from engines.bundle import MANIFEST, describe_file, read_bundle, sha256_of, write_manifest
from tests.fakes import make_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "model").path


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.json in place."""
    path = folder / MANIFEST
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def complaint(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    bundle = read_bundle(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    write_manifest(copy, bundle.manifest)
    assert (copy / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()
    assert bundle.label == f"fake@{sha256_of(folder / MANIFEST)[:12]}"
    assert bundle.file("places.csv") == folder / "places.csv"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such folder" in complaint(tmp_path / "nowhere")


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    assert "bundle.json cannot be read" in complaint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "x"}', '"schema"'])
def test_a_manifest_that_is_not_one(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    assert "not a bundle manifest" in complaint(folder)


def test_a_manifest_that_is_not_text(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")
    assert "bundle.json cannot be read" in complaint(folder)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_schema_of_another_version(folder: Path, schema: object) -> None:
    edit(folder, lambda record: record.update(schema=schema))
    assert f"its schema is {schema!r}" in complaint(folder)


def test_a_file_that_was_changed(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    said = complaint(folder)
    assert "model.onnx has the SHA-256" in said
    assert "changed or damaged" in said


def test_a_file_that_is_gone(folder: Path) -> None:
    (folder / "places.csv").unlink()
    assert "places.csv is missing" in complaint(folder)


def test_a_needed_file_that_is_not_listed(folder: Path) -> None:
    edit(folder, lambda record: record["files"].pop("MODEL_CARD.md"))
    assert "does not list MODEL_CARD.md" in complaint(folder)


def test_a_class_tree_of_another_model(folder: Path) -> None:
    path = folder / "places.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")  # Dallas goes, Texas stays
    record = describe_file(path)
    edit(folder, lambda found: found["files"]["places.csv"].update(sha256=record.sha256))
    said = complaint(folder)
    assert "holds 5 classes at the level city" in said
    assert "the model has 6" in said


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "sub/model.onnx", "..", ""])
def test_a_file_name_that_leaves_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.txt").write_text("outside", encoding="utf-8")
    outside = describe_file(folder.parent / "outside.txt")
    entry = {"sha256": outside.sha256, "size_bytes": outside.size_bytes}
    edit(folder, lambda record: record["files"].update({name: entry}))
    complaint(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("input"),
        lambda record: record["input"].pop("frames"),
        lambda record: record["outputs"].pop("city"),
        lambda record: record["outputs"].update(city="many"),
        lambda record: record["sampling"].update(policies=[]),
        lambda record: record["sampling"]["policies"][0].update(policy="sometimes"),
        lambda record: record["sampling"]["policies"][0].update(surprise=1),
        lambda record: record["scenes"].append("one too many"),
        lambda record: record["calibration"]["marginal"]["city"].pop("temperature"),
        lambda record: record.update(domain="moon"),
        lambda record: record.update(files=[]),
    ],
)
def test_a_field_that_is_missing_or_wrong(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    edit(folder, change)
    assert "a field is missing or of the wrong kind" in complaint(folder)


def test_every_kind_of_damage_has_its_own_words(folder: Path, tmp_path: Path) -> None:
    said = []
    for number, damage in enumerate(
        (
            lambda path: (path / "model.onnx").write_bytes(b"other"),
            lambda path: (path / "model.onnx").unlink(),
            lambda path: edit(path, lambda record: record.update(schema=9)),
            lambda path: edit(path, lambda record: record["outputs"].update(state=9)),
            lambda path: (path / MANIFEST).write_text("no"),
        )
    ):
        damaged = make_bundle(tmp_path / f"damaged{number}").path
        damage(damaged)
        said.append(complaint(damaged).replace(str(damaged), "")[:60])
    assert len(set(said)) == len(said)
