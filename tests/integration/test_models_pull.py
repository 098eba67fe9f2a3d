"""`geotag models pull` from a hub on this machine, in processes of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import write_clip, write_siglip
from tests.fakes import write_colour_video
from tests.hub import COMMIT, Hub, running
from tests.process import geotag_command, geotag_environ

CLIP, SIGLIP, STREET = "openai/some-clip", "google/some-siglip", "geolocal/some-street"


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    clip = write_clip(folder / "clip")
    (clip / "tf_model.h5").write_bytes(b"not wanted")
    (clip / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    street = write_clip(folder / "street", seed=1)
    return {CLIP: clip, SIGLIP: write_siglip(folder / "siglip"), STREET: street}


@pytest.fixture
def hub(nets: dict[str, Path]) -> Iterator[Hub]:
    with running(Hub(repositories=nets, licences={STREET: "cc-by-nc-4.0"})) as served:
        yield served


def geotag(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a home of its own, and a known model that the hub has."""
    environ = geotag_environ() | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "XDG_DATA_HOME": str(folder / "data"),
    }
    return subprocess.run(
        [*geotag_command(), *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def installed(folder: Path) -> list[str]:
    bundles = folder / "data" / "geotag" / "bundles"
    return sorted(path.name for path in bundles.iterdir()) if bundles.exists() else []


def as_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub_id: str, **changes: object
) -> None:
    """Let `clip` stand for a network of our hub; through a file, as another process reads it."""
    entry = {
        "kind": "zero-shot",
        "what": "a small network",
        "hub_id": hub_id,
        "revision": COMMIT,
        "weights": "model.safetensors",
        "size_mb": 1,
        "licence": "MIT",
        "commercial": True,
        "use": "any",
        "accuracy": "not published",
    } | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    path = tmp_path / "known.toml"
    path.write_text("[clip]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("GEOTAG_KNOWN_MODELS", str(path))


def test_pull_then_scan_are_the_two_commands(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP)
    pulled = geotag(tmp_path, hub.url, "models", "pull", "clip", "--places", "166")
    assert pulled.returncode == 0, pulled.stderr
    assert "it is the default" in pulled.stdout
    assert not any(path.endswith("tf_model.h5") for _, path, _ in hub.asked)
    write_colour_video(tmp_path / "dashcam" / "a.mp4")
    scanned = geotag(tmp_path, hub.url, "scan", "dashcam", "--out", "tags.geojson", "-v")
    assert scanned.returncode == 0, scanned.stderr
    assert "licence of the weights: MIT: any" in scanned.stderr
    tag = json.loads((tmp_path / "tags.geojson").read_text())["features"][0]["properties"]
    assert tag["bundle"].startswith("clip@")
    assert tag["status"] == "ok"
    assert tag["sampling"].startswith("keyframe 20 s")
    assert 0 < tag["confidence_continent"] <= 1
    assert json.loads((tmp_path / "run.json").read_text())["licence"] == "MIT: any"
    manifest = json.loads(
        (tmp_path / "data/geotag/bundles/clip/bundle.json").read_text(encoding="utf-8")
    )
    assert manifest["zero_shot"]["revision"] == COMMIT
    assert manifest["zero_shot"]["source"] == CLIP


def test_a_broken_download_goes_on_where_it_stopped(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP)
    folder = tmp_path / "data" / "geotag" / "downloads" / "clip"
    folder.mkdir(parents=True)
    whole = (hub.repositories[CLIP] / "model.safetensors").read_bytes()
    (folder / "config.json").write_bytes((hub.repositories[CLIP] / "config.json").read_bytes())
    (folder / "model.safetensors.part").write_bytes(whole[:20_000])
    hub.breaks_after = 30_000
    pulled = geotag(tmp_path, hub.url, "models", "pull", "clip", "--places", "166")
    assert pulled.returncode == 0, pulled.stderr
    ranges = [asked for _, path, asked in hub.asked if path.endswith("model.safetensors")]
    assert ranges[0] == "bytes=20000-"
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not list(folder.glob("*.part"))


def test_a_file_that_is_not_what_the_hub_says_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP)
    hub.wrong = {"model.safetensors"}
    pulled = geotag(tmp_path, hub.url, "models", "pull", "clip")
    assert pulled.returncode == 2
    assert "not what the hub says it is" in pulled.stderr
    assert installed(tmp_path) == []
    assert not list((tmp_path / "data" / "geotag" / "downloads" / "clip").glob("model*"))


def test_the_published_digest_counts_too(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP, sha256="0" * 64)
    pulled = geotag(tmp_path, hub.url, "models", "pull", "clip")
    assert pulled.returncode == 2
    assert "SHA-256" in pulled.stderr
    assert installed(tmp_path) == []


def test_without_a_network_it_says_which_files_to_bring_and_takes_them(
    nets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP)
    nowhere = "http://127.0.0.1:9"
    pulled = geotag(tmp_path, nowhere, "models", "pull", "clip", "--places", "166")
    assert pulled.returncode == 2
    folder = tmp_path / "data" / "geotag" / "downloads" / "clip"
    assert str(folder) in pulled.stderr
    assert "model.safetensors" in pulled.stderr
    assert installed(tmp_path) == []
    folder.mkdir(parents=True)
    for path in nets[CLIP].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    pulled = geotag(tmp_path, nowhere, "models", "pull", "clip", "--places", "166")
    assert pulled.returncode == 0, pulled.stderr
    assert installed(tmp_path) == ["clip", "default"]


def test_what_an_earlier_download_left_is_enough_without_a_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_known(monkeypatch, tmp_path, CLIP)
    assert geotag(tmp_path, hub.url, "models", "pull", "clip", "--places", "166").returncode == 0
    second = ("models", "pull", "clip", "--places", "166", "--name", "second")
    pulled = geotag(tmp_path, "http://127.0.0.1:9", *second)
    assert pulled.returncode == 0, pulled.stderr
    assert "taking the files that lie in" in pulled.stderr
    assert "--bundle second" in pulled.stdout


def test_what_the_hub_refuses_is_told_apart(hub: Hub, tmp_path: Path) -> None:
    hub.gated = {SIGLIP}
    for given, words in (
        ("nobody/nothing", "no such repository"),
        (SIGLIP, "asks for consent"),
        (STREET, "--accept-licence"),
    ):
        done = geotag(tmp_path, hub.url, "export", "--from-clip", given, "--out", "out")
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert not (tmp_path / "out").exists()
    done = geotag(
        tmp_path, hub.url, "export", "--from-clip", CLIP, "--revision", "v9", "--out", "out"
    )
    assert "no revision 'v9'" in done.stderr


def test_weights_for_non_commercial_use_are_taken_with_consent(hub: Hub, tmp_path: Path) -> None:
    done = geotag(
        tmp_path, hub.url, "export", "--from-clip", STREET, "--out", "out", "--accept-licence"
    )
    assert done.returncode == 0, done.stderr
