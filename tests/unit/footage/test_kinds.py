import pytest

from geotag.footage.kinds import describe_stranger, is_video, video_kind

FTYP = b"\x00\x00\x00\x18ftyp"
TS_PACKET = b"G" + bytes(187)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(64)
TEXT = b"1\n00:00:00,000 --> 00:00:01,000\nGPS (1.0, 2.0, 3)\n"


@pytest.mark.parametrize(
    "head",
    [
        FTYP + b"isom" + bytes(64),
        FTYP + b"qt  " + bytes(64),
        b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat",
        b"\x00\x00\x10\x00moov" + bytes(64),
        b"\x00\x01\x00\x00mdat" + bytes(64),
        b"\x1a\x45\xdf\xa3" + bytes(64),
        TS_PACKET * 4,
        (bytes(4) + TS_PACKET) * 4,
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"FLV\x01\x05" + bytes(32),
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        b"OggS" + bytes(24) + b"\x80theora",
        b"\x00\x00\x01\xba\x44",
        b"\x00\x00\x01\xb3\x14",
        b"\x00\x00\x00\x01\x67\x42\x00\x1e",
        b"\x00\x00\x01\x09\xf0\x00\x00\x01\x67",
        b"\x00\x00\x00\x01\x40\x01\x0c\x01",
    ],
)
def test_video_is_known_by_its_first_bytes_whatever_its_name(head: bytes) -> None:
    assert is_video(head, "no-extension")
    assert is_video(head, "wrong.txt")
    assert describe_stranger(head) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        bytes(4096),
        TEXT,
        JPEG,
        b"\x89PNG\r\n\x1a\n" + bytes(32),
        FTYP + b"M4A " + bytes(32),
        FTYP + b"heic" + bytes(32),
        FTYP + b"mif1" + bytes(32),
        FTYP + b"avif" + bytes(32),
        b"OggS" + bytes(24) + b"\x01vorbis",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"ID3\x03" + bytes(32),
        b"DEVC\x00\x01\x05\xb8",
        b"\x0e\x20\x54\x08\x0c\x37\x13\x00.FIT",
        b"\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\xff\xff\xff\xff",
        b"GPS" + bytes(600),
    ],
)
def test_what_is_no_video_is_taken_for_one_only_if_its_name_says_so(head: bytes) -> None:
    assert video_kind(head) is None
    assert not is_video(head, "photo.jpg")
    assert is_video(head, "CLIP.MP4")


@pytest.mark.parametrize("name", ["index.ts", "go.mod"])
def test_source_code_that_shares_an_extension_with_video_is_left_out(name: str) -> None:
    assert not is_video(b"export const answer = 42;\n", name)
    assert is_video(TS_PACKET * 4, name)
    assert is_video(b"", name)
    assert is_video(b"\x01\x02\x00\xff" * 50, name)


def test_a_text_under_the_name_of_a_camcorder_s_video_is_reported() -> None:
    assert is_video(TEXT, "00001.MTS")


def test_music_in_matroska_is_left_out_by_its_name() -> None:
    assert not is_video(b"\x1a\x45\xdf\xa3" + bytes(64), "album.mka")


@pytest.mark.parametrize(
    ("head", "phrase"),
    [
        (JPEG, "a JPEG picture"),
        (FTYP + b"heic", "a HEIC picture"),
        (TEXT, "text"),
        ("naïve café".encode() * 500, "text"),
        ("Überfahrt".encode("utf-16"), "text"),
        (b"PK\x03\x04" + bytes(32), "a ZIP archive"),
        (FTYP + b"M4A " + bytes(32), None),
        (b"\x01\x02\x03\x04", None),
        (b"", None),
    ],
)
def test_strangers_are_described_in_words(head: bytes, phrase: str | None) -> None:
    assert describe_stranger(head) == phrase


def test_a_character_cut_in_two_at_the_end_of_the_head_is_still_text() -> None:
    assert describe_stranger("é".encode() * 10 + b"\xc3") == "text"
