"""Which precision is run where nobody asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.choose import has_fast_int8

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        ("processor : 0\nflags : fpu sse2 avx avx2 fma\n", False),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("flags : avx2 avx_vnni\n", True),
        ("Features\t: fp asimd evtstrm aes asimdhp\n", False),  # Cortex-A57 and -A72
        ("Features\t: fp asimd asimddp\n", True),  # Cortex-A78AE of Orin
        ("hardware: who knows\n", True),
        ("", True),
    ],
)
def test_int8_is_chosen_where_the_processor_has_instructions_for_it(
    tmp_path: Path, text: str, is_fast: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    assert has_fast_int8(path) is is_fast


def test_a_system_that_says_nothing_of_its_processor_is_given_the_benefit(tmp_path: Path) -> None:
    assert has_fast_int8(tmp_path / "missing")
