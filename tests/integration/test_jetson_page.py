"""docs/jetson.md and the files beside it are true as far as a machine without a GPU can tell.

Its commands are parsed by the program, not run: they need a Jetson, a card and root.
"""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from engines.choose import open_engine
from geotag.cli import app
from geotag.config import resolve_scan_config
from geotag.device.jetson import read_jetson
from geotag.invocation import Invocation
from geotag.peaks import known_peak
from tests.machines import make_machine

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs/jetson"
PAGE = (ROOT / "docs/jetson.md").read_text(encoding="utf-8")
UNITS = sorted(FILES.glob("*.service"))


def code(text: str) -> list[str]:
    """Lines of the page's commands, and pieces of code in its sentences."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return lines + re.findall(r"(?<!`)`(geotag [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def geotag_arguments(line: str) -> list[str] | None:
    """What the program is given, whatever starts it: a path, sudo, a container's name."""
    words = shlex.split(line, comments=True)
    calls = [
        index
        for index, word in enumerate(words[:-1])
        if word.rpartition("/")[2] == "geotag" and re.fullmatch(r"[a-z]+", words[index + 1])
    ]
    return words[calls[-1] + 1 :] if calls else None


def check_parses(arguments: list[str]) -> None:
    """The program accepts the arguments; nothing of it is done."""
    asked = Invocation(command=("geotag", *arguments), open_engine=open_engine)
    with pytest.raises(SystemExit) as stop:
        app(arguments, prog_name="geotag", obj=asked)
    assert stop.value.code in (0, None), arguments
    assert asked.work is not None, arguments


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path, encoding="utf-8")
    return unit


def test_every_geotag_command_of_the_page_is_one() -> None:
    given = [found for line in code(PAGE) if (found := geotag_arguments(line)) is not None]
    assert {arguments[0] for arguments in given} >= {"doctor", "bench", "scan", "models"}
    assert len(given) >= 8
    for arguments in given:
        check_parses(arguments)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_what_a_unit_starts_is_a_geotag_command(unit: Path) -> None:
    arguments = geotag_arguments(read_unit(unit)["Service"]["ExecStart"])
    assert arguments is not None
    check_parses(arguments)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_keeps_its_hands_off_the_card_and_the_system(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    assert service["User"] == "geotag"
    assert service["SupplementaryGroups"].split() == ["video", "render"]
    assert (service["ProtectSystem"], service["StateDirectory"]) == ("strict", "geotag")
    # The GPU's nodes and its compilers would be out of reach.
    for forbidden in ("PrivateDevices", "MemoryDenyWriteExecute", "DevicePolicy"):
        assert forbidden not in service


def test_the_card_is_mounted_read_only_where_the_scan_looks() -> None:
    mount = read_unit(FILES / "media-dashcam.mount")["Mount"]
    scan = read_unit(FILES / "geotag-scan.service")
    assert "ro" in mount["Options"].split(",")
    assert scan["Service"]["ReadOnlyPaths"] == mount["Where"]
    assert scan["Unit"]["RequiresMountsFor"] == mount["Where"]
    assert f" scan {mount['Where']} " in scan["Service"]["ExecStart"]
    label = mount["What"].rpartition("/")[2]
    assert f'ENV{{ID_FS_LABEL}}=="{label}"' in (FILES / "99-geotag.rules").read_text()
    assert f"`{label}`" in PAGE


def test_the_settings_are_settings_and_write_where_the_unit_may() -> None:
    config = resolve_scan_config({}, file=FILES / "geotag.toml")
    assert [str(path) for path in config.out] == ["/var/lib/geotag/tags.geojson"]
    scan = (FILES / "geotag-scan.service").read_text(encoding="utf-8")
    build = (FILES / "geotag-build-engine.service").read_text(encoding="utf-8")
    assert "--config /etc/geotag.toml" in scan
    # The engine that is built is the one that the scan looks for.
    assert f"--bundle {config.bundle} --engine {config.engine}" in build
    cache = "Environment=GEOTAG_CACHE=/var/cache/geotag"
    assert cache in scan
    assert cache in build


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    units = [*UNITS, *FILES.glob("*.mount")]
    for unit in units:
        text = unit.read_text(encoding="utf-8").replace("/opt/geotag/bin/geotag", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    verify = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in units)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_container_installs_this_and_starts_a_command() -> None:
    text = (FILES / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] not in "# "]
    by_kind: dict[str, list[str]] = {}
    for kind, rest in steps:
        by_kind.setdefault(kind, []).append(rest)
    assert set(by_kind) == {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert by_kind["ARG"] == ["BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0"]
    assert " kmod " in by_kind["RUN"][0]
    assert "--system-site-packages" in by_kind["RUN"][1]
    assert by_kind["ENTRYPOINT"] == ['["/opt/geotag/bin/geotag"]']
    check_parses(re.findall(r'"(\w+)"', by_kind["CMD"][0]))


def test_every_file_beside_the_page_is_explained_and_every_one_named_is_there() -> None:
    for path in FILES.iterdir():
        assert path.name in PAGE, path.name
    for name in re.findall(r"docs/jetson/([\w.-]+)", PAGE):
        assert (FILES / name).is_file(), name


def test_every_variable_of_the_page_is_read_somewhere() -> None:
    files = [path for path in FILES.iterdir() if path.is_file()]
    texts = [PAGE, *(path.read_text(encoding="utf-8") for path in files)]
    source = "".join(
        path.read_text(encoding="utf-8")
        for package in ("geotag", "engines")
        for path in (ROOT / package).rglob("*.py")
    )
    for name in set(re.findall(r"GEOTAG_\w+", "".join(texts))):
        assert f'"{name}"' in source, name


def test_the_peaks_of_the_page_are_those_that_bench_uses(tmp_path: Path) -> None:
    parts = {
        "Orin Nano 8 GB": "p3767-0005",
        "Orin NX 16 GB": "p3767-0000",
        "AGX Orin 32 GB": "p3701-0004",
        "AGX Orin 64 GB": "p3701-0005",
    }
    rows = re.findall(r"^\| (\w[^|]*?) \| (\d+) MHz \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 6
    for number, (name, mhz, half, int8) in enumerate(rows):
        tree = {"proc/device-tree/compatible": f"nvidia,{parts[name.split(',')[0]]}\0"}
        jetson = read_jetson(make_machine(tmp_path / str(number), tree))
        for precision, tera in (("fp16", half), ("int8", int8)):
            peak = known_peak(jetson, precision, float(mhz))  # type: ignore[arg-type]
            assert peak is not None
            assert round(2 * peak.macs_a_second / 1e12, 1) == float(tera), (name, precision)
