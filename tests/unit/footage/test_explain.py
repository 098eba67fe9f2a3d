from pathlib import Path

from geotag.footage.discover import discover
from geotag.footage.explain import explain
from geotag.types import Discovery

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(64)


def explained(root: Path, *names: str) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MP4)
    return explain(discover(root))


def test_a_file_is_explained_with_what_it_is_and_why(tmp_path: Path) -> None:
    text = explained(tmp_path, "DCIM/Movie/RO/20240501_080000_00012F.MP4")
    assert "DCIM/Movie/RO/20240501_080000_00012F.MP4" in text
    assert "VIOFO, front (F), event, 2024-05-01 08:00:00, number 12" in text
    assert "folder RO: event" in text


def test_the_best_view_of_a_moment_is_named(tmp_path: Path) -> None:
    text = explained(tmp_path, "20240501_080000_NF.mp4", "20240501_080000_NR.mp4")
    assert "the best of its moment, for 1 other file too" in text
    assert "20240501_080000_NF.mp4 is better, of the same moment" in text
    assert "1 moment, 2 files, 2024-05-01 08:00:00" in text


def test_sidecars_proxies_and_skipped_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "GX010048.gpx").write_bytes(b"x")
    (tmp_path / "GX010048.THM").write_bytes(b"\xff\xd8\xff")
    text = explained(tmp_path, "GX010048.MP4", "GL010048.LRV")
    assert "beside  GX010048.gpx" in text
    assert "proxy   GL010048.LRV" in text
    assert "the camera's small copy of GX010048.MP4" in text
    assert "thumbnail" in text


def test_a_name_that_nothing_knows_says_so(tmp_path: Path) -> None:
    text = explained(tmp_path, "clip.mp4")
    assert "unknown camera, no channel named, unknown mode, no time" in text
    assert "rule generic" in text


def test_the_last_line_counts(tmp_path: Path) -> None:
    names = ["20240501_080000_NF.mp4", "20240501_080000_NR.mp4", "x/clip.mp4", "GX010048.MP4"]
    last = explained(tmp_path, *names, "GL010048.LRV").splitlines()[-1]
    assert last == (
        "4 videos in 3 drives, 0 with a sidecar, 1 skipped (BlackVue, GoPro, 1 of unknown cameras)"
    )


def test_every_line_is_printable_whatever_the_names_hold(tmp_path: Path) -> None:
    text = explained(
        tmp_path, "evil\x1b[2J/20240501_080000_NF.mp4", "new\nline.mp4", "ok\u202e.mp4"
    )
    assert all(line.isprintable() for line in text.splitlines())


def test_a_folder_without_videos_is_explained_too() -> None:
    text = explain(Discovery(videos=(), drives=()))
    assert text.endswith("\n0 videos in 0 drives, 0 with a sidecar, 0 skipped")
