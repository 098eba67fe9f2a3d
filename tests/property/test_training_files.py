"""Files that training reads: whatever is in them, the answer is labels or the family's error."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from train.data.places365 import parse_table
from train.data.scenes import read_scenes
from train.errors import DatasetError, WeightsError
from train.texts import open_text_table
from train.weights import read_file


def pickled() -> bytes:
    stream = io.BytesIO()
    torch.save({"model": {"a": torch.ones(3)}}, stream)
    return stream.getvalue()


WHOLE = {"pickle": pickled(), "safetensors": save({"soft": np.ones((1, 16), np.float32)})}


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes at random, or a file of the right kind with some bytes changed or cut off."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    content = bytearray(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))])


@given(contents(), st.sampled_from((".pth", ".bin", ".safetensors")))
@settings(max_examples=150)
def test_any_bytes_are_weights_or_refused(content: bytes, ending: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"net{ending}"
        path.write_bytes(content)
        try:
            found = read_file(path)
        except WeightsError as exc:
            assert str(path) in str(exc)  # noqa: PT017 - either outcome is right
        else:
            assert all(isinstance(value, torch.Tensor) for value in found.tensors.values())


@given(contents())
@settings(max_examples=80)
def test_any_bytes_are_no_scenes_and_no_text_table(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        for read in (read_scenes, open_text_table):
            try:
                read(path)
            except DatasetError as exc:
                assert str(path) in str(exc)  # noqa: PT017 - the only right outcome
            else:
                raise AssertionError(f"{read.__name__} took {content!r}")


@given(st.text(max_size=80))
def test_any_text_is_refused_as_a_table_of_categories(text: str) -> None:
    try:
        parse_table("category,group\n" + text, source="a table")
    except DatasetError as exc:
        assert "a table" in str(exc)  # noqa: PT017 - the only right outcome
    else:
        raise AssertionError(text)
