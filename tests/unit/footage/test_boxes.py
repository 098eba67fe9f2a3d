import struct
from pathlib import Path

import pytest

from geotag.footage.boxes import is_cut_off, top_level_boxes, track_rotation_deg
from tests.media import write_video


def box(name: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(content) + 8 if size is None else size, name) + content


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", []),
        (b"\x00\x00", []),
        (box(b"ftyp", bytes(16)) + box(b"moov"), ["ftyp", "moov"]),
        (box(b"ftyp") + box(b"mdat", bytes(8), size=1 << 30), ["ftyp", "mdat"]),
        (box(b"ftyp") + box(b"mdat", bytes(50), size=0), ["ftyp", "mdat"]),
        (struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8) + box(b"moov"), ["mdat", "moov"]),
        (struct.pack(">I4sQ", 1, b"mdat", 3) + bytes(8), []),
        (box(b"ftyp", size=4) + box(b"moov"), []),
    ],
)
def test_boxes_are_followed_as_far_as_they_can_be(
    tmp_path: Path, content: bytes, names: list[str]
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert top_level_boxes(path) == names
    assert track_rotation_deg(path, 1) == 0


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_the_turn_is_read_from_the_track_header(tmp_path: Path, rotation_deg: int) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=2, rotation_deg=rotation_deg)
    assert track_rotation_deg(path, 1) == rotation_deg
    assert track_rotation_deg(path, 2) == 0


@pytest.mark.parametrize(
    ("content", "cut_off"),
    [
        (box(b"ftyp") + box(b"moov") + box(b"mdat", bytes(50)), False),
        (box(b"ftyp") + box(b"moov") + box(b"mdat", bytes(50), size=59), True),
        (box(b"ftyp") + box(b"moof", size=999), True),
        (box(b"mdat", bytes(50), size=0), False),
        (box(b"mdat", bytes(50)) + box(b"moov") + box(b"GPS ", bytes(9), size=999), False),
        (b"", False),
    ],
)
def test_a_file_is_cut_off_if_its_media_or_index_goes_on_past_its_end(
    tmp_path: Path, content: bytes, cut_off: bool
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert is_cut_off(path) == cut_off
