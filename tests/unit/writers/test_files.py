import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from geotag.errors import ConfigError, OutputError
from geotag.types import Tag
from geotag.writers import Outputs, files, format_of
from geotag.writers.files import AtomicFile, remove_leftovers, write_file

TAG = Tag(id="1", path="a.mp4")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_there_until_it_is_complete(tmp_path: Path) -> None:
    target = AtomicFile(tmp_path / "a.csv")
    target.write("text")
    assert not (tmp_path / "a.csv").exists()
    target.commit()
    target.abort()
    assert names_in(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "text"


def test_a_file_that_is_given_up_leaves_no_trace(tmp_path: Path) -> None:
    target = AtomicFile(tmp_path / "a.csv")
    target.write("text")
    target.abort()
    assert names_in(tmp_path) == []


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_file(tmp_path / "a.csv", "text")
    (tmp_path / "b.csv").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.csv", "b.csv")]
    assert modes[0] == modes[1]


def test_a_link_keeps_pointing_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "a.csv").symlink_to(tmp_path / "real" / "b.csv")
    write_file(tmp_path / "a.csv", "text")
    assert (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "real" / "b.csv").read_text(encoding="utf-8") == "text"


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")
    target = AtomicFile(path)
    target.write("new")
    monkeypatch.setattr(files.os, broken, full_disk)
    with pytest.raises(OutputError) as caught:
        target.commit()
    assert str(caught.value) == (
        f"writing {path}: No space left on device. The file that was there is untouched. "
        "Free some space or choose another --out."
    )
    assert names_in(tmp_path) == ["a.csv"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_disk_that_fills_while_writing_is_told(tmp_path: Path) -> None:
    target = AtomicFile(tmp_path / "a.csv")
    target._stream.close()
    target._stream = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115
    with pytest.raises(OutputError, match="No space left on device"):
        target.write("x" * 1_000_000)
    assert names_in(tmp_path) == []


def test_a_missing_folder_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nope does not exist\. Create it"):
        AtomicFile(tmp_path / "nope" / "a.csv")
    assert names_in(tmp_path) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        AtomicFile(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.EROFS, "Choose another --out, in a folder that you may write into."),
        (errno.EACCES, "Choose another --out, in a folder that you may write into."),
        (errno.ENOSPC, "Free some space or choose another --out."),
        (errno.EIO, "Choose another --out."),
    ],
)
def test_the_advice_fits_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way_out: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.csv"
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError) as caught:
        AtomicFile(path)
    assert str(caught.value) == f"writing {path}: {os.strerror(number)}. {way_out}"


def test_a_write_protected_file_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").touch(mode=0o444)
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # root may write anyway
    with pytest.raises(OutputError, match="write-protected"):
        AtomicFile(tmp_path / "a.csv")


def test_letters_that_utf8_does_not_have_are_spelt_out(tmp_path: Path) -> None:
    write_file(tmp_path / "a.csv", "a\udc80b")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == r"a\udc80b"


def test_bytes_follow_text_in_their_order(tmp_path: Path) -> None:
    target = AtomicFile(tmp_path / "a.bin")
    target.write("ä")
    target.write(b"\xff\r\n")
    target.write("b")
    target.commit()
    assert (tmp_path / "a.bin").read_bytes() == b"\xc3\xa4\xff\r\nb"


def test_an_error_names_the_option_that_the_file_was_given_with(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Create it, or choose another --tracks\."):
        write_file(tmp_path / "nope" / "a.geojson", "text", option="--tracks")


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    write_file(tmp_path / ("ä" * 125 + ".json"), b"text")
    assert names_in(tmp_path) == ["ä" * 125 + ".json"]


def test_the_suffix_chooses_the_format() -> None:
    assert format_of("tags.GeoJSON") is format_of("x/y.geojson")
    assert format_of("-") is format_of("tags.geojsonl")
    for name in ("tags.txt", "tags", "tags.json"):
        with pytest.raises(
            ConfigError, match=r"Allowed are \.geojson, \.geojsonl, \.csv, \.parquet, \.gpkg, and -"
        ):
            format_of(name)


def test_an_unknown_suffix_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Outputs([str(tmp_path / "a.csv"), str(tmp_path / "a.txt")])
    assert names_in(tmp_path) == []


def test_one_bad_output_takes_the_others_back(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Outputs([str(tmp_path / "a.csv"), str(tmp_path / "nope" / "a.csv")])
    assert names_in(tmp_path) == []


def test_one_output_that_breaks_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", BrokenStdout())
    outputs = Outputs(["-", str(tmp_path / "a.csv")])
    with pytest.raises(OutputError, match="writing to standard output: its reader has closed"):
        outputs.add(TAG)
    outputs.close(keep=True)
    assert names_in(tmp_path) == ["a.csv"]


def test_a_broken_end_is_told_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = Outputs([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    outputs.add(TAG)
    real = os.replace
    monkeypatch.setattr(
        files.os, "replace", lambda a, b: full_disk() if b.name == "a.csv" else real(a, b)
    )
    with pytest.raises(OutputError, match=r"a\.csv: No space left"):
        outputs.close(keep=True)
    assert names_in(tmp_path) == ["b.csv"]


def test_closing_without_keeping_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")
    outputs = Outputs([str(path)])
    outputs.add(TAG)
    outputs.close(keep=False)
    outputs.close(keep=True)  # nothing is open any more
    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["a.csv"]


def test_standard_output_that_is_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "stdout", BrokenStdout(OSError(errno.ENOSPC, "No space left on device"))
    )
    outputs = Outputs(["-"])
    with pytest.raises(OutputError, match="writing to standard output: No space left"):
        outputs.add(TAG)


class BrokenStdout:
    """Standard output whose reader is gone."""

    def __init__(self, error: OSError | None = None) -> None:
        self.buffer = self
        self._error = error or BrokenPipeError(errno.EPIPE, "Broken pipe")

    def write(self, _: bytes) -> None:
        raise self._error

    def flush(self) -> None:
        pass


def test_a_folder_that_cannot_be_synced_still_has_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.os, "open", refuse)  # the folder may be written and not read
    write_file(tmp_path / "a.csv", "text")
    assert names_in(tmp_path) == ["a.csv"]


def test_a_folder_that_cannot_be_looked_into_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        AtomicFile(tmp_path / ("n" * 300) / "a.csv")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        with pytest.raises(OutputError, match="Permission denied"):
            AtomicFile(tmp_path / "a.csv")


def test_an_interrupt_while_one_file_ends_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(part: Path, target: Path) -> None:
        if target.name == "a.csv":
            raise KeyboardInterrupt
        real(part, target)

    outputs = Outputs([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    outputs.add(TAG)
    real = os.replace
    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        outputs.close(keep=True)
    assert names_in(tmp_path) == ["b.csv"]
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a.csv", "text")
    assert names_in(tmp_path) == ["b.csv"]


def test_what_a_killed_scan_left_beside_an_output_is_removed_and_nothing_else(
    tmp_path: Path,
) -> None:
    begun = AtomicFile(tmp_path / "tags.geojson")
    (hidden,) = tmp_path.iterdir()
    begun.abort()
    hidden.write_text("half", encoding="utf-8")  # as a scan leaves it that is killed
    others = {".other.geojson.0123abcd.part", ".tags.geojson.part", "tags.geojson.0123abcd.part"}
    for name in (*others, "tags.geojson"):
        (tmp_path / name).write_text("kept", encoding="utf-8")
    remove_leftovers(tmp_path / "tags.geojson")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "tags.geojson"}
    remove_leftovers(tmp_path / "nowhere" / "tags.geojson")
