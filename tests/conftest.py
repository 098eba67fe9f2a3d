"""What many tests need: the fake bundle, and no user settings from this machine."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle


# How quick a machine is says nothing about our code.
settings.register_profile("geotag", deadline=None, suppress_health_check=(HealthCheck.too_slow,))
settings.load_profile("geotag")


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C; a person's scan does not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_user_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the bundles and the cache of whoever runs the tests out of them."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("GEOTAG_CACHE", raising=False)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose model only `FakeEngine` runs."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fake")


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that OpenVINO runs, in another process too."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "colours", onnx=True).path
