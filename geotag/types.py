"""The nouns that travel through a scan.

Shape suffixes: T frames, H and W pixels, C = 3 colours (R, G, B), K classes of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.bundle import LEVELS, Level, Policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "LEVELS",
    "Clip",
    "Failure",
    "FailureCode",
    "FootageError",
    "Level",
    "Policy",
    "Stage",
    "Tag",
    "Video",
    "VideoFacts",
]

Stage = Literal["discover", "open", "decode", "infer", "write"]

FailureCode = Literal[
    "unreadable",  # the operating system refuses to read the file
    "empty",  # zero bytes
    "not_video",  # text, a picture, another kind of file under a video's name
    "damaged",  # a video whose index is lost (no moov atom) or that cannot be opened
    "no_video_stream",  # audio only
    "too_short",  # fewer than two different frames
    "decode_error",  # opens, but no frame decodes
    "internal",  # a bug of ours, kept away from the other files
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A file taken for video, as the walk found it."""

    path: Path
    """Where it can be opened."""
    name: str
    """Path relative to the scanned folder, with forward slashes; printable UTF-8."""
    video_id: str
    """Digest of name, size, first and last MiB: unique in a scan, the same in the next run."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What the container says about a video, checked where it is known to lie."""

    container: str
    codec: str
    width_px: int
    height_px: int
    """Size as stored, before rotation."""
    rotation_deg: int
    """Clockwise turn that brings the picture upright: 0, 90, 180 or 270."""
    duration_s: float | None
    """None where nothing short of decoding tells."""
    fps: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """The frames of one look at a video, as the model takes them."""

    frames_THWC: NDArray[np.uint8]
    times_s: tuple[float, ...]
    """Presentation time of each frame, seconds from the first frame of the video; never falling."""
    policy: Policy
    """The policy that produced these frames."""
    fallback: str | None = None
    """Why it is not the policy that was asked for."""
    damaged: bool = False
    """Part of what was wanted could not be decoded; the frames are what there was."""

    def __post_init__(self) -> None:
        """Refuse frames and times that disagree."""
        if self.frames_THWC.ndim != 4 or len(self.times_s) != self.frames_THWC.shape[0]:
            raise ValueError(
                f"a clip needs one time per frame: frames {self.frames_THWC.shape}, "
                f"{len(self.times_s)} times"
            )

    def __repr__(self) -> str:
        """Shapes, not pixels."""
        return (
            f"Clip({'x'.join(map(str, self.frames_THWC.shape))}, {self.policy}, "
            f"{self.times_s[0]:.2f}..{self.times_s[-1]:.2f} s)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a video has no tag: an entry of the result, never an exception past its stage."""

    video: Video
    stage: Stage
    code: FailureCode
    message: str
    """One sentence for a person: what was seen, and what can be done."""


class FootageError(Exception):
    """What is wrong with one file, on its way to becoming a `Failure`; never leaves the scan."""

    def __init__(self, stage: Stage, code: FailureCode, message: str) -> None:
        """Keep the three fields that the Failure will have."""
        super().__init__(message)
        self.stage: Stage = stage
        self.code: FailureCode = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """Where a video was recorded; flat, in the order of the output's columns.

    Measured and predicted never share a field: `gps_*` is what a receiver said, `visual_*`,
    `confidence_*` and `city_1` .. `city_5` are what the pictures said. None means "not known".
    """

    id: str
    path: str
    vendor: str | None = None
    channel: str | None = None
    mode: str | None = None
    drive_id: str | None = None
    start_utc: str | None = None
    start_local: str | None = None
    time_source: str | None = None
    duration_s: float | None = None
    status: Literal["ok", "partial", "failed"] = "ok"
    """partial: tagged from what could be decoded; `error` says what could not."""
    error: str | None = None
    location_source: Literal["gps", "visual", "drive", "none"] = "none"
    continent: str | None = None
    continent_code: str | None = None
    country: str | None = None
    country_code: str | None = None
    state: str | None = None
    state_code: str | None = None
    city: str | None = None
    city_geonameid: int | None = None
    confidence_continent: float | None = None
    confidence_country: float | None = None
    confidence_state: float | None = None
    confidence_city: float | None = None
    level: Literal["city", "state", "country", "continent", "none"] = "none"
    """The finest level that is confident enough; finer names stay empty."""
    city_1: str | None = None
    city_1_p: float | None = None
    city_2: str | None = None
    city_2_p: float | None = None
    city_3: str | None = None
    city_3_p: float | None = None
    city_4: str | None = None
    city_4_p: float | None = None
    city_5: str | None = None
    city_5_p: float | None = None
    scene: str | None = None
    scene_p: float | None = None
    gps_lat: float | None = None
    gps_lon: float | None = None
    gps_points: int | None = None
    gps_quality: str | None = None
    visual_lat: float | None = None
    visual_lon: float | None = None
    radius_m: float | None = None
    agreement: Literal["match", "state", "country", "conflict", "none"] = "none"
    agreement_km: float | None = None
    clips: int = 0
    """Clips that the answer rests on."""
    engine: str | None = None
    bundle: str | None = None
    """Name of the model folder and the first 12 hexadecimal digits of its hash."""
    sampling: str | None = None
    """Policy and span of the clips, and every fallback: `keyframe 21 s; 2 of 3 clips exact: ..`."""
