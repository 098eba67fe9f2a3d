from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lowered import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield
