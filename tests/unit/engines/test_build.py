"""Plans are built in a process of their own, found again, and never trusted unseen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines import build, build_process, plans
from engines.base import BundleError, EngineBuildError, EngineError, EngineUnavailableError
from engines.build import plan_for, plan_from, plan_key
from engines.bundle import TENSORRT_GRAPHS, describe_file, read_bundle, write_manifest
from engines.cuda import Cuda
from engines.plans import BuildFacts, PlanFolder, PlanKey
from engines.tensorrt_api import Backend
from engines.tensorrt_build import WEAK_TYPING, BuildOptions
from tests.fakes import make_bundle
from tests.gpu import FakeGpu
from tests.trt import ROOT, VERSIONS, Trouble, make_module, write_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.build_process import Say
    from engines.bundle import Bundle, Precision
    from engines.plans import KeptPlan

ORIN = FakeGpu(name="Orin", capability=(8, 7), memory_bytes=8 << 30)
KEY = PlanKey(
    graph_sha256="0" * 64,
    precision="fp16",
    max_batch=1,
    targets=(),
    type_flags=(),
    backend="tensorrt",
    backend_version="10.3.0",
    builder="onnx",
    device="Orin",
    capability="8.7",
    multiprocessors=8,
    driver="12060",
    l4t="# R36 (release), REVISION: 4.0",
)
FACTS = BuildFacts(bundle="colours@0", seconds=200.0, power_mode="pmode:0002")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a graph of each precision, all of the same arithmetic."""
    made = make_bundle(tmp_path_factory.mktemp("bundles") / "colours", onnx=True)
    files = dict(made.manifest.files)
    for name in set(TENSORRT_GRAPHS.values()) | {"model.int8.onnx"}:
        shutil.copyfile(made.file("model.onnx"), made.file(name)) if name not in files else None
        files[name] = describe_file(made.file(name))
    write_manifest(made.path, replace(made.manifest, files=files))
    return read_bundle(made.path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def ready(
    colours: Bundle, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., KeptPlan]:
    """`plan_for` on a machine with TensorRT 10.3, or as asked; `log` counts builds."""

    def plan(
        trouble: Trouble | None = None,
        *,
        version: str = VERSIONS["10.3"],
        gpu: FakeGpu = ORIN,
        precision: Precision = "fp16",
        bundle: Bundle = colours,
        max_batch: int = 1,
        say: Say | None = None,
    ) -> KeptPlan:
        trouble = replace(trouble or Trouble(), log=str(tmp_path / "log"))
        shutil.rmtree(tmp_path / "lib", ignore_errors=True)
        write_module(tmp_path / "lib", "10.3", trouble, version)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
        backend = Backend(name="tensorrt", module=make_module("10.3"), version=version)
        return plan_for(
            bundle,
            precision,
            backend=backend,
            cuda=Cuda(gpu.library),
            cache=cache,
            max_batch=max_batch,
            say=say,
        )

    return plan


def builds(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def everything(cache: Path) -> set[str]:
    """Names of all files, locks left out."""
    return {path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_plan_is_built_once_in_a_process_of_its_own(
    ready: Callable[..., KeptPlan], tmp_path: Path
) -> None:
    said: list[str] = []
    first = ready(say=said.append)
    again = ready(say=said.append)
    assert (again.content, again.folder) == (first.content, first.folder)
    assert builds(tmp_path) == 1
    assert (tmp_path / "log").read_text(encoding="utf-8").strip() != str(os.getpid())
    assert len(said) == 2
    assert said[0].endswith("fp16 with tensorrt 10.3.0 for Orin; it takes minutes, once")
    assert said[1].startswith("compiled in ")


def test_on_a_jetson_kernels_may_try_a_quarter_of_what_is_free(
    ready: Callable[..., KeptPlan],
) -> None:
    assert f'"workspace": {(8 << 30) // 4}'.encode() in ready().content
    desktop = replace(ORIN, name="RTX 4090", is_integrated=False)
    assert b'"workspace": null' in ready(gpu=desktop).content


@pytest.mark.parametrize(
    "change",
    [
        {"version": "10.16.2.10"},
        {"gpu": replace(ORIN, name="Orin Nano")},
        {"gpu": replace(ORIN, driver=13020)},
        {"precision": "int8"},
        {"max_batch": 8},
    ],
)
def test_what_a_plan_depends_on_makes_it_anew(
    ready: Callable[..., KeptPlan], tmp_path: Path, change: dict[str, Any]
) -> None:
    kept = ready()
    ready(**change)
    assert builds(tmp_path) == 2
    assert ready().content == kept.content  # the old one is still there
    assert builds(tmp_path) == 2


def test_an_update_of_jetpack_makes_it_anew_and_keeps_the_old_one(
    ready: Callable[..., KeptPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = {"before": "# R36 (release), REVISION: 4.0", "after": "# R39 (release)"}
    found = []
    for when in ("before", "after", "before"):
        monkeypatch.setattr(
            build,
            "_read_line",
            lambda path, w=when: releases[w] if "nv_tegra" in path.name else None,
        )
        found.append(ready().folder)
    assert found[0] == found[2] != found[1]
    assert builds(tmp_path) == 2


def test_another_graph_makes_it_anew_and_another_page_does_not(
    ready: Callable[..., KeptPlan], colours: Bundle, tmp_path: Path
) -> None:
    ready()
    for name, expected in (("MODEL_CARD.md", 1), ("model.fp16.onnx", 2)):
        folder = tmp_path / name
        shutil.copytree(colours.path, folder)
        with (folder / name).open("ab") as stream:
            stream.write(b"\x32\x03new" if name.endswith("onnx") else b"\nnew")  # doc_string
        files = {**colours.manifest.files, name: describe_file(folder / name)}
        write_manifest(folder, replace(colours.manifest, files=files))
        ready(bundle=read_bundle(folder))
        assert builds(tmp_path) == expected


def _cut(folder: Path) -> None:
    (folder / "plan").write_bytes((folder / "plan").read_bytes()[:-1])


def _forge(folder: Path) -> None:
    (folder / "plan").write_bytes(b"something else entirely")


def _forget(folder: Path) -> None:
    (folder / "plan.json").unlink()


def _tear(folder: Path) -> None:
    (folder / "plan.json").write_bytes((folder / "plan.json").read_bytes()[:50])


def _of_another_machine(folder: Path) -> None:
    record = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    record["key"]["device"] = "Thor"
    (folder / "plan.json").write_text(json.dumps(record), encoding="utf-8")


def _of_another_schema(folder: Path) -> None:
    record = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    (folder / "plan.json").write_text(json.dumps({**record, "schema": 99}), encoding="utf-8")


@pytest.mark.parametrize(
    "damage", [_cut, _forge, _forget, _tear, _of_another_machine, _of_another_schema]
)
def test_what_is_damaged_or_foreign_is_built_anew(
    ready: Callable[..., KeptPlan], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    kept = ready()
    damage(kept.folder)
    assert ready().content == kept.content
    assert builds(tmp_path) == 2
    assert ready().content == kept.content
    assert builds(tmp_path) == 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble(at="build", words="Could not find any implementation for node"), "any implem"),
        (Trouble(at="build", words="Insufficient memory for tactic"), "add swap"),
        (Trouble(at="build"), "TensorRT says: nothing"),
        (Trouble(at="kill"), "the system killed the builder, most likely for memory"),
        (Trouble(at="exit"), "ended with code 134 and gave no plan; its last words: "),
        (Trouble(at="file_size"), "writing a plan of"),
    ],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(
    ready: Callable[..., KeptPlan], cache: Path, tmp_path: Path, trouble: Trouble, words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        ready(trouble)
    assert everything(cache) <= {f"timing-tensorrt-{name}" for name in _timings(cache)}
    assert ready().content
    assert builds(tmp_path) == 2


def _timings(cache: Path) -> set[str]:
    return {path.name.rpartition("-")[2] for path in cache.glob("timing-*")}


def test_the_last_words_of_a_builder_that_dies_are_kept(ready: Callable[..., KeptPlan]) -> None:
    with pytest.raises(
        EngineBuildError, match=r"standard output | terminate called after throwing"
    ):
        ready(Trouble(at="exit"))


def test_a_disk_that_is_nearly_full_is_told_before_minutes_of_work(
    ready: Callable[..., KeptPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(100 << 20, 99 << 20, 1 << 20)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EngineError, match=r"1 MB are free, 67 MB are needed\. Free some space"):
        ready()
    assert builds(tmp_path) == 0


def test_a_cache_that_cannot_be_written_is_told(
    ready: Callable[..., KeptPlan], cache: Path
) -> None:
    cache.write_bytes(b"a file, where a folder should be")
    with pytest.raises(EngineError, match=r"preparing .*Name a folder .* with GEOTAG_CACHE"):
        ready()


def test_somebody_who_waits_is_told_that_it_goes_on(
    ready: Callable[..., KeptPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_process, "_STILL_S", 0.01)
    said: list[str] = []
    ready(say=said.append)
    assert any("for Orin: still at it after " in line for line in said)


SCRIPT = """
import sys
sys.path.insert(0, {lib!r})
from pathlib import Path
from engines.build import plan_for
from engines.bundle import read_bundle
from engines.cuda import Cuda
from engines.tensorrt_api import load_backend
from tests.gpu import FakeGpu
plan_for(read_bundle(Path({bundle!r})), "fp32", backend=load_backend("tensorrt"),
         cuda=Cuda(FakeGpu().library), cache=Path({cache!r}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stop_ends_the_builder_too_and_leaves_no_plan(
    colours: Bundle,
    cache: Path,
    tmp_path: Path,
    number: signal.Signals,
    ready: Callable[..., KeptPlan],
) -> None:
    lib, log = tmp_path / "lib", tmp_path / "log"
    write_module(lib, "10.3", Trouble(at="sleep", log=str(log)))
    code = SCRIPT.format(lib=str(lib), bundle=str(colours.path), cache=str(cache))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(lambda: builds(tmp_path) == 1)
        builder = int(log.read_text(encoding="utf-8"))
        process.send_signal(number)
        assert process.wait(20) != 0
        _wait_for(lambda: not _is_running(builder))
    finally:
        process.kill()
    assert not {name for name in everything(cache) if not name.startswith("timing")}
    assert ready(precision="fp32").content


def _is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return False
    return state[0] != "Z"


def _wait_for(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until_s, "it never came to be"
        time.sleep(0.02)


def test_what_a_killed_build_left_is_cleared_away(
    ready: Callable[..., KeptPlan], cache: Path
) -> None:
    folder = cache / "plans" / "fake-fp16-tensorrt"
    folder.mkdir(parents=True)
    (folder / ".plan.123.part").write_bytes(b"half")
    ready()
    assert not [name for name in everything(cache) if name.endswith(".part")]


def test_a_precision_that_the_bundle_lacks_is_told_with_those_it_has(
    ready: Callable[..., KeptPlan], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "one", onnx=True)
    with pytest.raises(BundleError, match=r"has no model\.int8\.fp16\.onnx\. It has fp32; choose"):
        ready(bundle=bundle, precision="int8")


def test_a_gpu_that_rtx_has_no_code_for_is_refused_before_anything_is_built(
    colours: Bundle, cache: Path
) -> None:
    rtx = Backend(name="tensorrt-rtx", module=make_module("rtx"), version=VERSIONS["rtx"])
    with pytest.raises(EngineUnavailableError, match="sm_87"):
        plan_for(colours, "fp16", backend=rtx, cuda=Cuda(ORIN.library), cache=cache)
    assert not cache.exists()


def test_weak_typing_compiles_the_float32_graph_by_flags(
    ready: Callable[..., KeptPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "one", onnx=True)
    monkeypatch.setenv(WEAK_TYPING, "1")
    assert b'"typing": "FP16"' in ready(bundle=bundle, precision="fp16").content
    monkeypatch.delenv(WEAK_TYPING)
    assert b'"typing": "strong"' in ready(bundle=bundle, precision="fp32").content


def test_a_plan_of_another_builder_is_kept_beside(colours: Bundle, cache: Path) -> None:
    backend = Backend(name="tensorrt", module=make_module("10.3"), version="10.3.0")
    made = []

    def make() -> bytes:
        made.append(1)
        return b"a plan of torch"

    for _ in range(2):
        kept = plan_from(
            colours,
            "fp16",
            make,
            builder="torch-tensorrt 2.8.0",
            backend=backend,
            cuda=Cuda(ORIN.library),
            cache=cache,
        )
        assert kept.content == b"a plan of torch"
    assert len(made) == 1
    record = json.loads((kept.folder / "plan.json").read_text(encoding="utf-8"))
    assert record["key"]["builder"] == "torch-tensorrt 2.8.0"


def test_facts_of_a_jetson_are_read_where_it_keeps_them(colours: Bundle, tmp_path: Path) -> None:
    for name, text in (
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\nmore\n"),
        ("sys/module/nvidia/version", "540.4.0\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    key = plan_key(
        colours,
        "model.onnx",
        "fp32",
        BuildOptions(),
        backend=Backend(name="tensorrt", module=None, version="10.3.0"),
        device=Cuda(ORIN.library).device,
        root=tmp_path,
    )
    assert (key.l4t, key.driver) == ("# R36 (release), REVISION: 4.3", "12060 540.4.0")


def test_the_newest_plans_are_kept(tmp_path: Path) -> None:
    plans_of = PlanFolder(tmp_path)
    keys = [replace(KEY, max_batch=number) for number in range(1, plans.KEPT + 2)]
    for number, key in enumerate(keys):
        kept = plans_of.keep(key, b"plan", FACTS)
        os.utime(kept.folder, (number, number))
    assert plans_of.find(keys[1]) is not None
    plans_of.keep(KEY, b"plan", FACTS)
    assert [plans_of.find(key) is not None for key in keys] == [True, True, False, True]


def test_facts_of_a_build_are_kept_and_nothing_depends_on_them(tmp_path: Path) -> None:
    PlanFolder(tmp_path).keep(KEY, b"plan", FACTS)
    found = PlanFolder(tmp_path).find(KEY)
    assert found is not None
    assert found.facts == FACTS


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEOTAG_CACHE", str(tmp_path / "cache"))
    assert plans.cache_folder() == tmp_path / "cache"
