"""The real footage, good and bad, through the command itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.process import ROOT, run_geotag
from tests.rfc7946 import check_collection

if TYPE_CHECKING:
    from pathlib import Path

FOOTAGE = ROOT.parent / "shared" / "footage"
VIDEOS = 32
MOST_FOR_A_SECOND_RUN_S = 15.0

pytestmark = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the shared footage is not here")


def test_every_real_file_has_a_feature_and_every_failure_a_reason(
    onnx_bundle: Path, tmp_path: Path
) -> None:
    started_s = time.monotonic()
    scan = ("scan", str(FOOTAGE), "--bundle", str(onnx_bundle), "-o")
    result = run_geotag(*scan, "a.geojson", cwd=tmp_path)
    took_s = time.monotonic() - started_s
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    text = (tmp_path / "a.geojson").read_text(encoding="utf-8")
    tags = [feature["properties"] for feature in check_collection(text)]
    assert len({tag["path"] for tag in tags}) == len(tags) == VIDEOS
    failed = [tag for tag in tags if tag["status"] == "failed"]
    assert failed
    for tag in failed:
        assert tag["path"].startswith("bad/"), tag
        code, sentence = tag["error"].split(": ", 1)
        assert code.replace("_", "").isalpha(), tag
        assert len(sentence.split()) >= 3, tag
    if took_s < MOST_FOR_A_SECOND_RUN_S:
        run_geotag(*scan, "b.geojson", cwd=tmp_path)
        assert (tmp_path / "b.geojson").read_bytes() == (tmp_path / "a.geojson").read_bytes()
