"""Damaged files, seeded, each with an answer: the short form of `benchmarks/mutations.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.mutations import MOST_S, damage, make_videos, read_damaged, scan_damaged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_videos(tmp_path_factory.mktemp("sources"))


def test_every_damaged_file_has_an_answer(sources: list[Path], tmp_path: Path) -> None:
    outcomes = read_damaged(sources, 60, 1, tmp_path)
    assert len(outcomes) == 60
    for outcome in outcomes:
        assert outcome.code != "bug", outcome
        assert outcome.seconds < MOST_S, outcome
        assert outcome.code in ("ok", "damaged") or len(outcome.message.split()) > 3, outcome


def test_every_damaged_file_has_a_tag(sources: list[Path], tmp_path: Path) -> None:
    outcomes = scan_damaged(sources, 36, 2, tmp_path)
    assert len(outcomes) == 36
    for outcome in outcomes:
        assert outcome.code not in ("bug", "missing"), outcome
        assert outcome.seconds < MOST_S, outcome


def test_whole_files_are_read_whole(sources: list[Path], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.mutations.damage", lambda content, *_: ((), content))
        outcomes = read_damaged(sources, 2 * len(sources), 1, tmp_path)
    assert {outcome.code for outcome in outcomes} == {"ok"}


def test_the_damage_of_a_seed_is_always_the_same_and_never_more_than_doubles_a_file(
    sources: list[Path],
) -> None:
    import random

    contents = [path.read_bytes() for path in sources]
    for number in range(40):
        content = contents[number % len(contents)]
        once, again = (damage(content, contents, random.Random(number)) for _ in range(2))
        assert once == again
        assert once[1] != content
        assert len(once[1]) <= 2 * len(content)
