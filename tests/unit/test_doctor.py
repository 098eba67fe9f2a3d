import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from engines.base import EngineError, EngineReport, EngineUnavailableError
from engines.bundle import Bundle
from geotag import bundles, doctor
from geotag.cli import main
from geotag.doctor import describe
from tests.fakes import make_bundle, open_fake_engine
from tests.machines import BROKEN, LAPTOP, ORIN_NANO, make_machine


def probe_openvino(name: str) -> EngineReport:
    """OpenVINO works, and there is no TensorRT."""
    if name != "openvino":
        raise EngineUnavailableError(f"starting {name}: it is not installed.")
    return EngineReport(version="2026.4.1", device="Some CPU", detail="computes in FP32")


examine = partial(doctor.examine, probe=probe_openvino)


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


def test_an_engine_is_tried_with_one_layer_and_with_a_bundle(folder: Path, bundle: Bundle) -> None:
    report = examine(open_fake_engine, folder=folder)
    openvino, tensorrt, rtx = report.engines
    assert openvino.is_usable
    assert f"fake-cpu on 1 thread; compiled {bundle.label} in " in openvino.detail
    assert "\nengine    openvino 2026.4.1 on Some CPU: built and ran one layer; " in describe(
        report
    )
    for engine, name in ((tensorrt, "tensorrt"), (rtx, "tensorrt-rtx")):
        assert not engine.is_usable
        assert f"\nengine    {name}: no: starting {name}: it is not installed." in describe(report)


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
    assert not openvino.is_usable
    assert openvino.detail.endswith("does not: compiling: no such instruction.")
    assert "openvino 2026.4.1 on Some CPU: no; one layer works, " in describe(
        examine(open_engine, folder=folder)  # type: ignore[arg-type]
    )


def test_without_a_bundle_one_layer_must_do(tmp_path: Path) -> None:
    report = examine(open_fake_engine, folder=tmp_path)
    assert report.engines[0].is_usable
    assert report.engines[0].detail == "computes in FP32"
    assert report.bundles == ()
    assert "bundles   0 known by name" in describe(report)


def test_a_jetson_is_told_whole(tmp_path: Path) -> None:
    root = make_machine(tmp_path / "orin", ORIN_NANO)
    text = describe(examine(open_fake_engine, folder=tmp_path, root=root))
    for line in (
        "module    Jetson Orin Nano 8 GB",
        "jetpack   L4T 36.4.3 (JetPack 6)",
        "power     MAXN_SUPER (mode 2)",
        "gpu       integrated GPU, 612 of 1020 MHz now",
        "memory    7.4 GiB, 5.0 available, 1.0 used for nothing",
    ):
        assert f"\n{line}\n" in text
    assert text.count("\nmemory") == 1
    assert "TensorRT sees the 1.0 GiB of memory that are used for nothing" in text
    assert "drop_caches" in text


def test_jetpacks_tensorrt_out_of_sight_is_pointed_at(tmp_path: Path) -> None:
    files = ORIN_NANO | {"usr/lib/python3.10/dist-packages/tensorrt/__init__.py": ""}
    root = make_machine(tmp_path / "orin", files)
    (note, *_) = examine(open_fake_engine, folder=tmp_path, root=root).notes
    assert "usr/lib/python3.10/dist-packages, where this Python does not look" in note
    assert "--system-site-packages" in note

    def probe(name: str) -> EngineReport:
        return EngineReport(version="10.3", device="Orin", detail=name)

    seen = doctor.examine(open_fake_engine, folder=tmp_path, root=root, probe=probe)
    assert not [note for note in seen.notes if "dist-packages" in note]


@pytest.mark.parametrize("files", [LAPTOP, BROKEN, {}], ids=["laptop", "broken", "nothing"])
def test_other_machines_get_no_advice_for_jetsons(tmp_path: Path, files: dict[str, str]) -> None:
    root = make_machine(tmp_path / "machine", files)
    report = examine(open_fake_engine, folder=tmp_path, root=root)
    assert report.notes == ()
    json.dumps(report.to_json())


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
    openvino = doctor.examine(open_engine, folder=tmp_path).engines[0]
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
