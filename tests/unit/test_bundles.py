import shutil
from pathlib import Path

import pytest

from engines.base import BundleError
from engines.bundle import Bundle
from geotag import bundles
from geotag.bundles import find_bundle, hidden_bundle, known_bundles


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    """A user's folder that holds one bundle, `fleet`."""
    shutil.copytree(bundle.path, tmp_path / "bundles" / "fleet")
    return tmp_path / "bundles"


def test_an_existing_folder_is_taken_as_it_is(bundle: Bundle, folder: Path) -> None:
    assert find_bundle(str(bundle.path), folder=folder) == bundle.path


def test_a_name_is_found_in_the_users_folder(folder: Path) -> None:
    assert find_bundle("fleet", folder=folder) == folder / "fleet"


def test_nothing_asked_is_the_default(folder: Path) -> None:
    (folder / "fleet").rename(folder / "default")
    assert find_bundle(None, folder=folder) == folder / "default"


def test_nothing_asked_and_nothing_installed_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    with pytest.raises(BundleError) as caught:
        find_bundle(None, folder=folder)
    text = str(caught.value)
    assert "--bundle demo" in text
    assert "its answers for real footage mean nothing" in text
    assert "python -m train.fit" in text
    assert "geotag export --checkpoint RUN --out BUNDLE" in text
    assert "geotag models pull clip" in text
    assert str(folder) in text


def test_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(BundleError, match=r'Known by name: .*fleet\. Did you mean "fleet"\?'):
        find_bundle("fleat", folder=folder)


def test_an_unknown_name_with_nothing_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "demo_folder", lambda: tmp_path / "no-demo")
    with pytest.raises(BundleError, match="No bundle is installed"):
        find_bundle("fleet", folder=tmp_path)


def test_a_path_is_never_looked_up_as_a_name(folder: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        find_bundle("./fleet", folder=folder)


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    with pytest.raises(BundleError, match="it is a file; a bundle is a folder"):
        find_bundle(str(path), folder=tmp_path)


def test_the_demo_is_the_one_in_the_package(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "demo_folder", lambda: bundle.path)
    assert find_bundle("demo", folder=tmp_path) == bundle.path
    assert known_bundles(tmp_path) == {"demo": bundle.path}
    monkeypatch.setattr(bundles, "demo_folder", lambda: tmp_path / "nope")
    with pytest.raises(BundleError, match="this copy of geotag holds none"):
        find_bundle("demo", folder=tmp_path)


def test_the_users_folder_is_used_when_none_is_given() -> None:
    assert bundles.bundles_folder().name == "bundles"
    with pytest.raises(BundleError):
        find_bundle("no-such-bundle")


@pytest.mark.parametrize("name", [None, "fleet", "~nosuchuser", "~nosuchuser/b", "", "x" * 300])
def test_what_cannot_even_be_looked_up_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Root may enter every folder; a name that is too long stops root too."""
    folder = tmp_path / ("n" * 300)
    monkeypatch.setattr(bundles, "demo_folder", lambda: folder / "demo")
    with pytest.raises(BundleError):
        find_bundle(name, folder=folder)
    assert known_bundles(folder) == {}
    assert hidden_bundle(folder) is None


def test_a_folder_that_may_not_be_entered_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", refuse)
    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(BundleError, match="there is no such folder"):
        find_bundle("fleet", folder=folder)
    assert known_bundles(folder) == {}


def test_an_empty_name_is_not_the_folder_of_all_bundles(folder: Path) -> None:
    with pytest.raises(BundleError, match="''"):
        find_bundle("", folder=folder)


def test_a_bundle_that_a_user_calls_demo_is_not_the_demo(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hidden_bundle(folder) is None
    (folder / "fleet").rename(folder / "demo")
    monkeypatch.setattr(bundles, "demo_folder", lambda: bundle.path)
    assert find_bundle("demo", folder=folder) == known_bundles(folder)["demo"] == bundle.path
    assert hidden_bundle(folder) == folder / "demo"
    monkeypatch.setattr(bundles, "demo_folder", lambda: folder / "nope")
    assert known_bundles(folder) == {}
