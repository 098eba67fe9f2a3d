import json
from dataclasses import asdict
from pathlib import Path

import pytest

from geotag.device.facts import Clocks, describe_device, read_clocks, read_device
from geotag.device.jetson import PowerMode
from geotag.device.system import read_load
from tests.machines import (
    AGX_ORIN,
    BROKEN,
    LAPTOP,
    ORIN_NANO,
    THOR,
    make_machine,
    program,
)


def lines(root: Path) -> dict[str, str]:
    return dict(describe_device(read_device(root)))


def test_an_orin_nano_is_told_whole(tmp_path: Path) -> None:
    told = lines(make_machine(tmp_path, ORIN_NANO))
    assert told == {
        "device": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "module": "Jetson Orin Nano 8 GB",
        "jetpack": "L4T 36.4.3 (JetPack 6)",
        "power": "MAXN_SUPER (mode 2)",
        "cpu": "Cortex-A78AE, FP16, dot product, 1728 of 1728 MHz now, governor schedutil",
        "gpu": "integrated GPU, 612 of 1020 MHz now",
        "nvidia": "driver 540.4.0, CUDA toolkit 12.6.11",
        "memory": "7.4 GiB, 5.0 available, 1.0 used for nothing",
        "heat": "cpu-thermal 51 °C, gpu-thermal 82 °C (slows down from 99), tj-thermal 83 °C",
    }


def test_the_power_mode_is_asked_for_and_never_set(tmp_path: Path) -> None:
    """The program notes its arguments."""
    noting = '#!/bin/sh\necho "$@" >> "$0.log"\nprintf "NV Power Mode: 15W\\n0\\n"\n'
    root = make_machine(tmp_path, ORIN_NANO | {"usr/sbin/nvpmodel": noting})
    before = sorted(path for path in root.rglob("*"))
    jetson = read_device(root).jetson
    assert jetson is not None
    assert jetson.power_mode == PowerMode(name="15W", number=0)
    log = root / "usr/sbin/nvpmodel.log"
    assert log.read_text() == "-q\n"
    log.unlink()
    assert sorted(path for path in root.rglob("*")) == before


def test_where_nvpmodel_does_not_answer_its_memory_is_read(tmp_path: Path) -> None:
    told = lines(make_machine(tmp_path, AGX_ORIN))
    assert told["module"] == "Jetson AGX Orin 64 GB"
    assert told["jetpack"] == "L4T 39.2.0 (JetPack 7)"
    assert told["power"] == "MODE_50W (mode 3)"
    assert told["gpu"] == "integrated GPU, 829 of 829 MHz now"


def test_a_mode_without_a_name_keeps_its_number(tmp_path: Path) -> None:
    files = {name: text for name, text in AGX_ORIN.items() if name != "etc/nvpmodel.conf"}
    assert lines(make_machine(tmp_path, files))["power"] == "mode 3"


def test_thor_has_its_clock_elsewhere_and_an_nvidia_smi_of_few_words(tmp_path: Path) -> None:
    told = lines(make_machine(tmp_path, THOR))
    assert told["module"] == "Jetson AGX Thor T5000"
    assert told["jetpack"] == "L4T 38.2.0 (JetPack 7)"
    assert told["power"] == "MAXN (mode 0)"
    assert told["gpu"] == "NVIDIA Thor, compute capability 11.0, 315 of 1575 MHz now"
    assert told["cpu"] == "Neoverse V3AE, FP16, dot product, I8MM, BF16, SVE"


def test_a_laptop_has_a_card(tmp_path: Path) -> None:
    device = read_device(make_machine(tmp_path, LAPTOP))
    told = dict(describe_device(device))
    assert device.jetson is None
    assert told["device"] == "LENOVO 21HDCTO1WW"
    assert told["cpu"] == "13th Gen Intel(R) Core(TM) i7-1370P, AVX2, AVX-VNNI, 2412 MHz now"
    assert told["gpu"] == (
        "NVIDIA GeForce RTX 4060 Laptop GPU, compute capability 8.9, 2100 of 3105 MHz now, "
        "8.0 GiB, 7.2 free, 47 °C, limited to 80 W"
    )
    assert told["nvidia"] == "driver 570.124.06"
    assert told["memory"] == "31.0 GiB"
    assert not {"module", "jetpack", "power", "heat"} & set(told)


def test_nothing_there_is_nothing_told(tmp_path: Path) -> None:
    assert lines(tmp_path) == {"cpu": "unknown"}
    assert read_clocks(tmp_path) == Clocks(gpu_mhz=None, cpu_mhz=None, hottest_celsius=None)


def test_nonsense_is_nothing_told(tmp_path: Path) -> None:
    told = lines(make_machine(tmp_path, BROKEN))
    assert told == {
        "module": "not one that this version of geotag knows",
        "power": "mode not known: nvpmodel is not here, or does not answer",
        "cpu": "unknown",
        "gpu": "integrated GPU",
    }


def test_a_program_that_cannot_be_started_is_as_good_as_none(tmp_path: Path) -> None:
    files = ORIN_NANO | {"usr/sbin/nvpmodel": "#!/no/such/interpreter\n"}
    assert "mode not known" in lines(make_machine(tmp_path, files))["power"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (ORIN_NANO, Clocks(gpu_mhz=612.0, cpu_mhz=1728.0, hottest_celsius=83.0)),
        (THOR, Clocks(gpu_mhz=315.0, cpu_mhz=None, hottest_celsius=None)),
        (LAPTOP, Clocks(gpu_mhz=None, cpu_mhz=2412.5, hottest_celsius=None)),
    ],
    ids=["orin", "thor", "laptop"],
)
def test_clocks_are_read_without_a_program(
    tmp_path: Path, files: dict[str, str], expected: Clocks
) -> None:
    ask_no_one = {name: program("", code=1) if "bin/" in name else it for name, it in files.items()}
    assert read_clocks(make_machine(tmp_path, ask_no_one)) == expected


@pytest.mark.parametrize(
    ("files", "load"), [(ORIN_NANO, 0.08), (LAPTOP, 3.21), (BROKEN, None), ({}, None)]
)
def test_the_load_is_that_of_the_last_minute(
    tmp_path: Path, files: dict[str, str], load: float | None
) -> None:
    assert read_load(make_machine(tmp_path, files)) == load


@pytest.mark.parametrize("files", [ORIN_NANO, AGX_ORIN, THOR, LAPTOP, BROKEN, {}])
def test_facts_are_plain_values(tmp_path: Path, files: dict[str, str]) -> None:
    device = read_device(make_machine(tmp_path, files))
    assert json.loads(json.dumps(asdict(device)))["cpu"]["name"] == device.cpu.name


def test_this_machine_can_be_read() -> None:
    assert read_device().memory is not None
