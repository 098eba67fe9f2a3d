from datetime import datetime

from hypothesis import example, given
from hypothesis import strategies as st

from geotag.footage.origin import read_origin

PIECES = st.sampled_from(
    ["20240501", "_", "-", "--", "080000", "F", "NF", "GX01", "0048", "GRMN", "camera", "q", "/",
     "2024-05-01", "08-00-00", "REC", "FILE", "DJI", "NO", "000001", "front", ".", " (1)", "13"]
)  # fmt: skip
NAMES = st.one_of(
    st.text(min_size=1, max_size=60), st.lists(PIECES, min_size=1, max_size=10).map("".join)
)


@given(st.lists(NAMES, max_size=4), NAMES, st.binary(max_size=200))
@example([], "٢٠٢٤٠٥٠١_٠٨٠٠٠٠_NF.mp4", b"")
@example(["\udc80"], "\udcff20240501_080000_NF", b"")
@example([], ".mp4", b"")
@example([], "2024-05-01--08-00-00--99999--qcamera.ts", b"")
def test_no_name_is_too_strange(folders: list[str], name: str, head: bytes) -> None:
    understood = read_origin(folders, name, head)
    origin = understood.origin
    assert origin.reasons
    assert understood.copy_level >= 0
    assert origin.card in ["/".join(folders[:depth]) for depth in range(len(folders) + 1)] or (
        origin.rule == "comma"
    )


@given(st.datetimes(datetime(2005, 1, 1), datetime(2099, 12, 31)).map(lambda t: t.replace(
    microsecond=0)))  # fmt: skip
def test_a_time_in_a_name_is_read_as_it_was_written(start: datetime) -> None:
    for form in (
        "%Y%m%d_%H%M%S_NF", "%Y_%m%d_%H%M%S_001F", "%Y%m%d%H%M%S_000123", "NO%Y%m%d-%H%M%S-000121",
        "%y%m%d_%H%M%S_001_FH", "REC_%Y_%m_%d_%H_%M_%S_F", "%Y-%m-%d_%H-%M-%S-front",
        "%Y-%m-%d--%H-%M-%S--0--fcamera", "%Y-%m-%d %H.%M.%S", "x_%Y%m%dT%H%M%S",
    ):  # fmt: skip
        assert read_origin((), start.strftime(form) + ".mp4").origin.start_local == start
