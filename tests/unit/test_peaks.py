"""Peaks against the published figures of NVIDIA's modules (docs: data sheets, dense = half)."""

from pathlib import Path

import pytest

from engines.bundle import Precision
from geotag.device.jetson import Jetson, read_jetson
from geotag.peaks import known_peak
from tests.machines import AGX_ORIN, LAPTOP, ORIN_NANO, THOR, make_machine


@pytest.mark.parametrize(
    ("files", "mhz", "precision", "tera_ops"),
    [
        (ORIN_NANO, 624.75, "int8", 20.5),  # 40 sparse TOPS of the data sheet, no DLA
        (ORIN_NANO, 1020, "int8", 33.4),  # Super: 67
        (ORIN_NANO, 1020, "fp16", 16.7),
        (AGX_ORIN, 1300, "int8", 85.2),  # 170 sparse TOPS of its GPU
        (AGX_ORIN, 1300, "fp32", 5.3),  # "5.3 FP32 TFLOPS" of the technical brief
    ],
)
def test_the_peak_of_an_orin_is_that_of_its_data_sheet(
    tmp_path: Path, files: dict[str, str], mhz: float, precision: Precision, tera_ops: float
) -> None:
    peak = known_peak(read_jetson(make_machine(tmp_path, files)), precision, mhz)
    assert peak is not None
    assert 2 * peak.macs_a_second / 1e12 == pytest.approx(tera_ops, rel=0.01)
    assert not peak.is_measured


def test_multiprocessors_that_are_switched_off_do_not_count(tmp_path: Path) -> None:
    jetson = read_jetson(make_machine(tmp_path, AGX_ORIN))
    whole, half = (known_peak(jetson, "fp16", 400.0, multiprocessors=n) for n in (None, 8))
    assert whole is not None
    assert half is not None
    assert half.macs_a_second == whole.macs_a_second / 2
    assert half.how == "8 multiprocessors x 1,024 fp16 MAC at 400 MHz"


@pytest.mark.parametrize("files", [THOR, LAPTOP, {}], ids=["thor", "laptop", "nothing"])
def test_where_no_data_sheet_is_known_nothing_is_claimed(
    tmp_path: Path, files: dict[str, str]
) -> None:
    assert known_peak(read_jetson(make_machine(tmp_path, files)), "fp16", 1000.0) is None


def test_without_a_clock_there_is_no_peak() -> None:
    orin = Jetson(module="x", multiprocessors=8, l4t=None, jetpack=None, power_mode=None)
    assert known_peak(orin, "fp16", None) is None
