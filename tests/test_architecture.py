"""The house stands as designed: what may import what, what the commands promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BLOCK_TRAINING_LIBRARIES = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "transformers", "onnx", "pandas"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
        check=False,
    )


def test_every_module_of_the_runtime_imports_without_a_training_library() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("geotag", "engines")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]
    code = BLOCK_TRAINING_LIBRARIES + "import importlib\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in modules)
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_help_loads_neither_numpy_nor_av_nor_an_engine() -> None:
    code = (
        "import sys\nfrom geotag.cli import main\nmain(['--help'])\n"
        "heavy = {'numpy', 'av', 'openvino', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module", ["geotag", "engines", "calibration", "train", "train.data.rendered"]
)
def test_importing_prints_nothing_and_configures_no_logging(module: str) -> None:
    code = f"import logging, {module}\nassert not logging.getLogger().handlers"
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_base_install_pulls_neither_torch_nor_openvino_nor_pandas() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    for name in ("torch", "openvino", "pandas", "geopandas", "onnx"):
        assert not re.search(rf'"{name}[^a-z]', base), name


def test_the_wheel_holds_the_four_packages_and_the_demo_bundle(tmp_path: Path) -> None:
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for needed in (
        "geotag/cli.py",
        "geotag/places/gazetteer.bin",
        "geotag/places/places166.csv",
        "geotag/footage/vendors.toml",
        "geotag/writers/tag.schema.json",
        "engines/bundle.py",
        "calibration/__init__.py",
        "train/fit.py",
        "train/presets/demo.toml",
        "train/data/rendered_places.csv",
        "geotag/demo_bundle/bundle.json",
        "geotag/demo_bundle/model.onnx",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "runs/"))]


def test_no_file_of_the_package_is_named_after_a_junk_drawer() -> None:
    junk = {"utils", "common", "helpers", "misc"}
    found = [
        path
        for package in ("geotag", "engines", "calibration", "train")
        for path in (ROOT / package).rglob("*.py")
        if path.stem in junk
    ]
    assert not found
