from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.bundle import LEVELS
from geotag.places.hierarchy import decode, read_hierarchy
from tests.exports import give_clips, wish_of, write_footage, write_run
from tests.lowered import TINY, clips_of, draw, one_thread, run, tell_apart
from train import export as exporting
from train.onnx_graph import build_graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_footage(tmp_path_factory.mktemp("cards") / "lovelace")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOTAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where bundles are written; nothing else may be left there."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def in_memory(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that need no reading; labels are what float32 says, which is right about all then."""
    model = draw(TINY)
    tell_apart(model)
    scores = run(build_graph(model), clips_of(TINY, 32, seed=5))
    hierarchy = read_hierarchy(trained / "places.csv")
    found = decode({level: scores[level] for level in LEVELS}, hierarchy, "codependent")
    give_clips(monkeypatch, found.labels["city"])


@pytest.fixture(scope="session")
def exported(
    trained: Path, footage: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A bundle of every precision, calibrated on footage; and what was printed."""
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOTAG_CACHE", str(folder / "cache"))
        report = exporting.export_bundle(
            trained, folder / "first", name="mine", wish=wish_of(footage)
        )
        again = exporting.export_bundle(
            trained, folder / "second", name="mine", wish=wish_of(footage)
        )
    assert again.label == report.label
    return report.path, str(report)
