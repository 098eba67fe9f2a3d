import inspect
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from geotag.cli import scan
from geotag.config import _PARSERS, ScanConfig, resolve_scan_config
from geotag.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "geotag.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_file_and_flags_the_defaults_hold(tmp_path: Path) -> None:
    assert resolve_scan_config({}, folder=tmp_path) == ScanConfig()


def test_a_file_beats_the_defaults_and_a_flag_beats_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[scan]\nclips = 5\nsampling = "dense"\nout = ["a.csv", "b.geojson"]\n')
    config = resolve_scan_config({"clips": "2", "sampling": None}, folder=tmp_path)
    assert (config.clips, config.sampling) == (2, "dense")
    assert config.out == ("a.csv", "b.geojson")


def test_a_file_asked_for_hides_the_one_that_lies_here(tmp_path: Path) -> None:
    write(tmp_path, "[scan]\nclips = 5\n")
    other = tmp_path / "other.toml"
    other.write_text("[scan]\nfail-fast = true\n", encoding="utf-8")
    config = resolve_scan_config({}, file=other, folder=tmp_path)
    assert (config.clips, config.fail_fast) == (None, True)


def test_auto_clips_is_none() -> None:
    assert resolve_scan_config({"clips": "auto"}).clips is None


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "[scan]\nclipps = 3\nstop_prob = 2\nout = [1]\n[scna]\n")
    with pytest.raises(ConfigError) as caught:
        resolve_scan_config({"engine": "openvin", "clips": "0"}, folder=tmp_path)
    text = str(caught.value)
    assert text.startswith("6 settings not usable:\n")
    assert "unknown table or key 'scna'; settings live in [scan]. Did you mean \"scan\"?" in text
    assert "unknown setting 'clipps'. Did you mean \"clips\"?" in text
    assert "stop_prob: 2 is not a probability above 0 and up to 1." in text
    assert "out: [1] holds something that is not a file name." in text
    assert (
        "--engine: 'openvin' is not one of auto, openvino, tensorrt, tensorrt-rtx. "
        'Did you mean "openvino"?'
    ) in text
    assert "--clips: '0' is not \"auto\" or a whole number from 1 up." in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("clips = 1.5", "clips: 1.5 is not"),
        ("clips = true", "clips: True is not"),
        ("fail_fast = 1", "fail_fast: 1 is not true or false."),
        ("bundle = 3", "bundle: 3 is not a name or a path."),
        ("decode_workers = 0", "decode_workers: 0 is not a whole number from 1 up."),
        ("out = []", "out: [] is not a file name"),
        ('out = ["a.csv", "a.csv"]', "the same file twice"),
    ],
)
def test_a_wrong_kind_of_value_is_told(tmp_path: Path, line: str, problem: str) -> None:
    write(tmp_path, f"[scan]\n{line}\n")
    with pytest.raises(ConfigError, match=r"1 setting not usable") as caught:
        resolve_scan_config({}, folder=tmp_path)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"scan = 3\n", "scan must be a table"), (b"[scan\n", "not TOML"), (b"\xff", "not TOML")],
)
def test_a_file_that_is_no_settings_file_is_told(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "geotag.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        resolve_scan_config({}, folder=tmp_path)


def test_a_file_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope.toml: cannot be read \(No such file"):
        resolve_scan_config({}, file=tmp_path / "nope.toml")


def test_every_setting_has_a_parser() -> None:
    assert set(_PARSERS) == set(ScanConfig.__dataclass_fields__)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, section = page.partition("\n## Settings\n")
    rows = re.findall(r"^\| `(\w+)`( \*)? \| `?(.*?)`? \|", section.partition("\n## ")[0], re.M)
    flags = set(inspect.signature(scan).parameters)
    assert [name for name, _, _ in rows] == [field.name for field in fields(ScanConfig)]
    for name, star, default in rows:
        assert bool(star) == (name not in flags), name
        value = getattr(ScanConfig(), name)
        shown = json.dumps("auto" if name == "clips" else value)
        assert default == ("not set" if shown == "null" else shown), name
