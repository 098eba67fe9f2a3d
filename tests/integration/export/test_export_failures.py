"""Whatever goes wrong in `geotag export`, there is no half bundle."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.exports import FILES, content, export, said
from train import export as exporting
from train import precisions, smaller

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def old(trained: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """A bundle that is there already."""
    assert export(trained, work / "bundle", "--name", "old") == 0
    capsys.readouterr()
    return content(work / "bundle")


def _full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refusing(real: Callable[..., int]) -> Callable[..., int]:
        def write(path: Path, *given: Any, **options: Any) -> int:  # noqa: ANN401
            if path.name == name:
                real(path, given[0][: len(given[0]) // 2], **options)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return real(path, *given, **options)

        return write

    for kind in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, kind, refusing(getattr(Path, kind)))


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("name", sorted(FILES - {"places.csv"}))
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    name: str,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _full_disk(monkeypatch, name)
    flags = ("--precision", "int8", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 5
    error = said(capsys)
    assert f"writing the bundle {work / 'bundle'}" in error
    assert "No space left on device" in error
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told(
    code: int,
    trained: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path, *given: Any, **options: Any) -> None:  # noqa: ANN401
        if path.name.startswith("."):
            raise OSError(code, os.strerror(code), str(path))
        real(path, *given, **options)

    real = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert export(trained, work / "bundle", "--precision", "int8") == 5
    assert os.strerror(code) in said(capsys)
    assert list(work.iterdir()) == []


INTERRUPTED: list[tuple[object, str]] = [
    (exporting, "write_graph"),
    (exporting, "check_parity"),
    (smaller, "open_calibration"),
    (precisions, "observe"),
    (precisions, "quantize_model"),
    (precisions, "write_int8"),
    (smaller, "judge_precisions"),
    (smaller, "latencies_ms"),
    (exporting, "write_manifest"),
    (exporting, "read_bundle"),
]


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("module", "name"), INTERRUPTED, ids=[name for _, name in INTERRUPTED])
def test_an_interrupt_leaves_the_old_bundle_and_nothing_else(
    module: object,
    name: str,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupt)
    flags = ("--precision", "int8", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 130
    assert said(capsys).endswith(f"error: interrupted: no bundle was written to {work / 'bundle'}.")
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_what_goes_wrong_while_folders_change_places_puts_the_old_one_back(
    stop: BaseException,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise stop
        return real(path, target)

    real = Path.replace
    monkeypatch.setattr(Path, "replace", refuse)
    assert export(trained, work / "bundle", "--overwrite") in (5, 130)
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.usefixtures("in_memory")
def test_a_bundle_is_replaced_as_a_whole(trained: Path, work: Path, old: dict[str, bytes]) -> None:
    assert export(trained, work / "bundle", "--precision", "int8", "--force") == 2
    assert content(work / "bundle") == old
    flags = ("--precision", "fp16", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 0
    names = set(content(work / "bundle"))
    assert names == FILES - {"model.int8.onnx", "model.int8.fp16.onnx"}
    assert [path.name for path in work.iterdir()] == ["bundle"]
