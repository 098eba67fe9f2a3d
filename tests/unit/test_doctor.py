import json
import shutil
from pathlib import Path

import pytest

from engines.base import EngineError
from engines.bundle import Bundle
from geotag import bundles, doctor
from geotag.cli import main
from geotag.doctor import describe, examine
from tests.fakes import make_bundle, open_fake_engine


@pytest.fixture(autouse=True)
def _no_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundles, "demo_folder", lambda: tmp_path / "no-demo")


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    """A user's folder with a good bundle and a damaged one."""
    shutil.copytree(bundle.path, tmp_path / "bundles" / "good")
    shutil.copytree(bundle.path, tmp_path / "bundles" / "bad")
    (tmp_path / "bundles" / "bad" / "model.onnx").write_bytes(b"x")
    return tmp_path / "bundles"


def test_an_engine_is_tried_with_a_bundle(folder: Path, bundle: Bundle) -> None:
    report = examine(open_fake_engine, folder=folder)
    openvino, tensorrt = report.engines
    assert openvino.is_usable
    assert f"fake-cpu on 1 thread; compiled {bundle.label} in " in openvino.detail
    assert (tensorrt.is_usable, tensorrt.detail) == (False, "not part of this version of geotag")


def test_a_damaged_bundle_is_told(folder: Path) -> None:
    bad, good = examine(open_fake_engine, folder=folder).bundles
    assert (bad.name, bad.is_valid) == ("bad", False)
    assert "was changed or damaged" in bad.detail
    assert (good.name, good.is_valid) == ("good", True)
    assert good.detail.endswith("road, 6 cities")


def test_an_engine_that_breaks_is_told(folder: Path) -> None:
    def open_engine(*_: object, **__: object) -> None:
        raise EngineError("compiling: no such instruction.")

    openvino = examine(open_engine, folder=folder).engines[0]  # type: ignore[arg-type]
    assert (openvino.is_usable, openvino.detail) == (False, "compiling: no such instruction.")


def test_without_a_bundle_nothing_is_tried(tmp_path: Path) -> None:
    report = examine(open_fake_engine, folder=tmp_path)
    assert "not tried, for want of a valid bundle" in report.engines[0].detail
    assert report.bundles == ()
    assert "bundles   0 known by name" in describe(report)


def test_a_missing_package_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "versions", lambda *_: {"openvino": None, "av": "1"})
    report = examine(open_fake_engine, folder=folder)
    assert (
        report.engines[0].detail == "not installed: pip install '.[cpu]' in geotag's source folder"
    )
    assert "openvino  not installed" in describe(report)


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEOTAG_CACHE", str(tmp_path / "cache"))
    assert doctor.cache_folder() == tmp_path / "cache"


def test_the_command_prints_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"], open_engine=open_fake_engine) == 0
    text = capsys.readouterr().out
    for name in ("geotag", "python", "cores", "memory", "disk", "av", "ffmpeg", "engine"):
        assert f"\n{name}" in f"\n{text}"
    assert main(["doctor", "--json"], open_engine=open_fake_engine) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cores"] >= 1
    assert report["ffmpeg"]["libavcodec"]


def test_a_real_engine_is_really_run(tmp_path: Path) -> None:
    from engines.choose import open_engine

    make_bundle(tmp_path / "colours", onnx=True)
    openvino = examine(open_engine, folder=tmp_path).engines[0]
    assert openvino.is_usable
    assert "ran one clip in" in openvino.detail


def test_a_home_that_cannot_be_looked_into_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As root nothing is forbidden; a name that is too long is refused to root too."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / ("n" * 300)))
    assert main(["doctor"], open_engine=open_fake_engine) == 0
    assert "bundles   0 known by name" in capsys.readouterr().out


def test_a_users_bundle_called_demo_is_told(folder: Path) -> None:
    assert examine(open_fake_engine, folder=folder).notes == ()
    (folder / "good").rename(folder / "demo")
    report = examine(open_fake_engine, folder=folder)
    assert [found.name for found in report.bundles] == ["bad"]
    assert (
        f"note      the name demo always means the bundle inside geotag, so it never finds "
        f"{folder / 'demo'}. Rename" in describe(report)
    )
