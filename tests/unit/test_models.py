"""Installing, listing, choosing and removing models, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engines.base import BundleError
from engines.bundle import Bundle
from geotag.bundles import bundles_folder, find_bundle
from geotag.cli import main
from geotag.errors import ConfigError
from geotag.hub import choose_files
from geotag.models import default_name, free_place, installed_models, read_known


def test_what_is_added_is_found_and_the_first_is_the_default(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "add", str(bundle.path), "--name", "fleet"]) == 0
    assert "is the default" in capsys.readouterr().out
    assert find_bundle("fleet") == bundles_folder() / "fleet"
    assert find_bundle(None).resolve() == (bundles_folder() / "fleet").resolve()
    assert main(["models", "add", str(bundle.path), "--name", "second"]) == 0
    assert default_name() == "fleet"
    assert main(["models", "default", "second"]) == 0
    assert default_name() == "second"


def test_removing_the_default_says_so_and_leaves_none(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "add", str(bundle.path), "--name", "fleet"]) == 0
    assert main(["models", "remove", "fleet"]) == 0
    assert "no other model is installed" in capsys.readouterr().out
    assert default_name() is None
    assert list(bundles_folder().iterdir()) == []
    assert main(["models", "remove", "fleet"]) == 2
    assert "not installed" in capsys.readouterr().err


def test_a_damaged_model_is_not_added(bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    (copy / "places.csv").write_text("changed", encoding="utf-8")
    assert main(["models", "add", str(copy)]) == 6
    assert not bundles_folder().exists() or list(bundles_folder().iterdir()) == []


@pytest.mark.parametrize("name", ["demo", "default", "../x", "a/b", "", ".hidden", "a" * 65])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        free_place(name)


def test_a_taken_name_is_refused(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "add", str(bundle.path), "--name", "fleet"]) == 0
    assert main(["models", "add", str(bundle.path), "--name", "fleet"]) == 2
    assert "geotag models remove fleet" in capsys.readouterr().err


def test_a_model_that_lies_at_default_itself_is_not_replaced(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle.path, bundles_folder() / "default")
    assert main(["models", "add", str(bundle.path), "--name", "fleet"]) == 0
    assert main(["models", "default", "fleet"]) == 2
    assert "Rename that folder" in capsys.readouterr().err
    assert default_name() == "default"


def test_the_list_names_what_is_installed_and_what_can_be(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "add", str(bundle.path), "--name", "fleet"])
    capsys.readouterr()
    assert main(["models", "list"]) == 0
    text = capsys.readouterr().out
    assert "fleet (default)" in text
    assert "streetclip" in text
    assert "CC-BY-NC-4.0" in text
    assert main(["models", "list", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in record["installed"] if model["is_default"]] == ["fleet"]
    assert {model["name"] for model in record["known"]} == set(read_known())


def test_a_bundle_that_cannot_be_read_is_listed_with_its_reason() -> None:
    folder = bundles_folder() / "broken"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("{", encoding="utf-8")
    broken = [model for model in installed_models() if model.name == "broken"]
    assert "not a bundle manifest" in (broken[0].problem or "")


def test_known_models_are_whole_and_pinned() -> None:
    known = read_known()
    assert {"clip", "streetclip", "siglip2", "videomae-s"} <= set(known)
    for model in known.values():
        assert model.hub_id.count("/") == 1
        assert model.licence
        assert model.accuracy
        assert model.commercial != ("NC" in model.licence)
        if model.kind == "zero-shot":
            assert len(model.revision) == 40


@pytest.mark.parametrize("name", ["streetclip", "videomae-s"])
def test_weights_for_non_commercial_use_need_consent_before_anything_is_fetched(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotag.zero_shot.fetch", None)
    assert main(["models", "pull", name]) == 2
    streams = capsys.readouterr()
    assert "CC-BY-NC-4.0" in streams.err
    assert "--accept-licence" in streams.err
    assert "Nothing was downloaded" in streams.err


def test_the_hub_id_of_such_weights_needs_consent_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotag.zero_shot.fetch", None)
    command = ["export", "--from-clip", "geolocal/StreetCLIP", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--accept-licence" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "pull", "streetklip"]) == 2
    error = capsys.readouterr().err
    assert 'Did you mean "streetclip"?' in error
    assert "--from-clip" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--out", "x"],
        ["export", "--out", "x", "--checkpoint", "run", "--from-clip", "net"],
        ["export", "--out", "x", "--checkpoint", "run", "--frames", "3"],
        ["export", "--out", "x", "--from-clip", "net", "--places", "166", "--cities-over", "5"],
        ["export", "--out", "x", "--from-clip", "net", "--resize", "stretch"],
        ["export", "--out", "x", "--from-clip", "net", "--frames", "0"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotag.zero_shot.fetch", None)
    for given in ("./net", "net", "a/b/c", "/nowhere/net"):
        assert main(["export", "--from-clip", given, "--out", str(tmp_path / "out")]) == 2
        assert "no such folder" in capsys.readouterr().err


def test_a_list_of_places_is_checked_and_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text("city,country\nMunich,DE\nLyon,France\n", encoding="utf-8")
    assert main(["places", str(tmp_path / "mine.csv")]) == 0
    out = capsys.readouterr().out
    assert "Munich,Bavaria,Germany,Europe,DE-BY,DE,EU,48.1374,11.5755,2867714" in out
    (tmp_path / "bad.csv").write_text("city,country\nMunich,Atlantis\n", encoding="utf-8")
    assert main(["places", str(tmp_path / "bad.csv"), "-o", str(tmp_path / "out.csv")]) == 2
    assert "Atlantis" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_one_kind_of_weights_is_fetched() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "cat.jpg"]
    assert choose_files(both) == ("config.json", "model.safetensors")
    assert choose_files(["pytorch_model.bin", "merges.txt"]) == ("merges.txt", "pytorch_model.bin")
    parts = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "pytorch_model.bin.index.json",
    ]
    # The list of parts says that a folder is whole: it comes after them.
    assert choose_files(parts) == (*parts[1:3], parts[0])


def test_default_is_a_choice_and_no_model(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "add", str(bundle.path), "--name", "fleet"])
    for command in ("default", "remove"):
        assert main(["models", command, "default"]) == 2
        assert "none itself" in capsys.readouterr().err
    assert default_name() == "fleet"


def test_without_a_choice_the_installed_models_are_named(bundle: Bundle) -> None:
    for name in ("one", "two"):
        main(["models", "add", str(bundle.path), "--name", name])
    main(["models", "remove", "one"])
    with pytest.raises(BundleError, match="geotag models default two"):
        find_bundle(None)


def test_a_folder_of_the_name_of_a_model_is_no_model(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["models", "add", str(bundle.path), "--name", "fleet"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    assert find_bundle("fleet") == bundles_folder() / "fleet"


def test_an_edited_list_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "places.csv"
    path.write_text("city\nLyon\n", encoding="utf-8")
    assert main(["places", "166", "-o", str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "city\nLyon\n"
    assert main(["places", "166", "-o", str(path), "--overwrite"]) == 0
