"""The nouns that travel through a scan.

Shape suffixes: T frames, H and W pixels, C = 3 colours (R, G, B), K classes of a level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.bundle import LEVELS, Level, Policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "LEVELS",
    "Channel",
    "Clip",
    "Discovery",
    "Drive",
    "Failure",
    "FailureCode",
    "FootageError",
    "Level",
    "Mode",
    "Moment",
    "Origin",
    "Policy",
    "Skipped",
    "Stage",
    "Tag",
    "Video",
    "VideoFacts",
]

Channel = Literal["front", "rear", "interior", "side"]
"""Where a camera looks. Front, side and rear look outwards, the interior one does not."""

Mode = Literal["normal", "event", "parking", "manual", "timelapse"]
"""Why a camera recorded: on its own, after a shock, in a parked car, by a button, sped up."""

Stage = Literal["discover", "open", "decode", "infer", "write"]

FailureCode = Literal[
    "unreadable",  # the operating system refuses to read the file
    "empty",  # zero bytes
    "not_video",  # text, a picture, another kind of file under a video's name
    "damaged",  # a video whose index is lost (no moov atom) or that cannot be opened
    "no_video_stream",  # audio only
    "too_short",  # fewer than two different frames
    "decode_error",  # opens, but no frame decodes
    "too_large",  # more pixels than any camera records
    "stalled",  # took longer than a file may take, and was cut off
    "crashed",  # took the decoder's process with it
    "internal",  # a bug of ours, kept away from the other files
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a file was understood, from its name, its folders and its first bytes.

    None means that nothing told; nothing here is ever guessed from the time of the file system.
    """

    vendor: str | None = None
    """Maker of the camera, as on its box: "BlackVue", "VIOFO", "70mai"."""
    channel: Channel | None = None
    lens: str | None = None
    """The channel in the camera's own words, where it has more than one of a kind:
    "left_repeater", "F", "ecamera"."""
    mode: Mode | None = None
    start_local: datetime | None = None
    """When recording began by the camera's clock, without a zone."""
    sequence: int | None = None
    """The camera's own running number."""
    recording: str = ""
    """What the name shares with the other channels and parts of one recording; "" for nothing."""
    part: int | None = None
    """Which chapter or segment of a recording that the camera cut into files."""
    card: str = ""
    """Folder below the scanned one, "" for itself, that is the root of one camera's files."""
    rule: str = "generic"
    """Row of the vendor table that matched."""
    reasons: tuple[str, ...] = ()
    """What was understood from what, one sentence each: the text of `--explain`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A file taken for video, as the walk found it."""

    path: Path
    """Where it can be opened."""
    name: str
    """Path relative to the scanned folder, with forward slashes; printable UTF-8."""
    video_id: str
    """Digest of name and content: unique in a scan, the same in the next run."""
    size_bytes: int
    content_id: str = ""
    """Digest of size, first and last MiB: the same wherever the file is moved."""
    origin: Origin = field(default_factory=Origin)
    sidecars: tuple[Path, ...] = ()
    """Files beside it that may hold its position, the most specific first."""
    proxy: Path | None = None
    """The camera's own small copy of the same pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The files that one vehicle's cameras recorded at the same time."""

    videos: tuple[Video, ...]
    """The one whose pictures speak for all first: front before side before rear before interior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Files chained into one journey."""

    drive_id: str
    """Digest of the card and the first moment: the same in the next run."""
    moments: tuple[Moment, ...]
    """In the order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that looks like video and is deliberately not scanned."""

    name: str
    """Path relative to the scanned folder, printable."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a folder holds."""

    videos: tuple[Video, ...]
    """Sorted by path, without regard to case: the order of the result."""
    drives: tuple[Drive, ...]
    """Every video is in exactly one, in the order of their first video."""
    skipped: tuple[Skipped, ...] = ()


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
    created_utc_s: float | None = None
    """When the container says it was made, seconds since 1970; None where it says nothing, or the
    zero of a clock. Many cameras write local time here as if it were UTC."""
    location: str | None = None
    """Where the container says it was made, as ISO 6709 text, unparsed."""


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
    user_data: tuple[tuple[float, bytes], ...] = ()
    """Time (s, as in `times_s`) and payload of the unregistered SEI messages of the frames, only
    those that hold a position."""

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

    Measured and predicted never share a field: `gps_*` is what a receiver said; `visual_*`,
    `confidence_*` and `city_1` .. `city_5` are what the pictures said. `continent` .. `city` are
    the answer, and `location_source` says whose it is. None means "not known".
    """

    id: str
    """The same in the next run, unique in a scan."""
    path: str
    """Relative to the scanned folder, with forward slashes."""
    vendor: str | None = None
    """Maker of the camera, as on its box."""
    channel: str | None = None
    """Where the camera looks: front, rear, interior or side."""
    mode: str | None = None
    """Why the camera recorded: normal, event, parking, manual or timelapse."""
    drive_id: str | None = None
    """The journey that the file is part of; the same in the next run."""
    start_utc: str | None = None
    """When recording began, ISO 8601 with a Z."""
    start_local: str | None = None
    """When recording began by the clocks of the place, ISO 8601 without a zone."""
    time_zone: str | None = None
    """IANA name, from the position."""
    time_source: str | None = None
    """Which clock the times come from, and how it was corrected."""
    duration_s: float | None = None
    """Length of the video, in seconds."""
    status: Literal["ok", "partial", "failed", "no_model"] = "ok"
    """partial: tagged from what could be read; `error` says what could not. no_model: carries no
    position, and there is no model to look at it with."""
    error: str | None = None
    """What went wrong, in one sentence."""
    location_source: Literal["gps", "visual", "drive", "none"] = "none"
    """gps: measured in this file or by a camera beside it; visual: predicted from the pictures;
    drive: neither, taken from the nearest file of the same drive."""
    location_from: str | None = None
    """Path of the file that the location comes from, where it is not this one."""
    continent: str | None = None
    """Name of the answer's continent."""
    continent_code: str | None = None
    """Two letters: AF, AN, AS, EU, NA, OC, SA."""
    country: str | None = None
    """Name of the answer's country."""
    country_code: str | None = None
    """ISO 3166-1, two letters."""
    state: str | None = None
    """Name of the answer's state, province or region."""
    state_code: str | None = None
    """ISO 3166-2."""
    city: str | None = None
    """Name of the answer's city."""
    city_geonameid: int | None = None
    """GeoNames number of the city."""
    confidence_continent: float | None = None
    """What the pictures give the continent they see, from 0 to 1."""
    confidence_country: float | None = None
    """What the pictures give the country they see, from 0 to 1."""
    confidence_state: float | None = None
    """What the pictures give the state they see, from 0 to 1."""
    confidence_city: float | None = None
    """What the pictures give the city they see, from 0 to 1."""
    level: Literal["city", "state", "country", "continent", "none"] = "none"
    """The finest level that is confident enough; finer names stay empty."""
    city_1: str | None = None
    """The likeliest city by the pictures."""
    city_1_p: float | None = None
    """Its probability."""
    city_2: str | None = None
    """The second likeliest city by the pictures."""
    city_2_p: float | None = None
    """Its probability."""
    city_3: str | None = None
    """The third likeliest city by the pictures."""
    city_3_p: float | None = None
    """Its probability."""
    city_4: str | None = None
    """The fourth likeliest city by the pictures."""
    city_4_p: float | None = None
    """Its probability."""
    city_5: str | None = None
    """The fifth likeliest city by the pictures."""
    city_5_p: float | None = None
    """Its probability."""
    scene: str | None = None
    """The kind of surroundings that the pictures show."""
    scene_p: float | None = None
    """Its probability."""
    gps_lat: float | None = None
    """Latitude of the measured fix that stands for the video, in degrees."""
    gps_lon: float | None = None
    """Its longitude, in degrees."""
    gps_points: int | None = None
    """Fixes that passed the filter."""
    gps_quality: Literal["good", "fair", "poor", "single_point"] | None = None
    """How far the fixes can be relied on."""
    gps_rejected: str | None = None
    """Fixes that did not pass, counted by reason: `mode 36, jump 2`."""
    gps_source: str | None = None
    """What read them, from what: `gpx sidecar`, `exiftool: GoPro`."""
    gps_start_lat: float | None = None
    """Latitude of the first fix, in degrees."""
    gps_start_lon: float | None = None
    """Longitude of the first fix, in degrees."""
    gps_start_city: str | None = None
    """City at the first fix."""
    gps_start_country_code: str | None = None
    """Country at the first fix, ISO 3166-1."""
    gps_end_lat: float | None = None
    """Latitude of the last fix, in degrees."""
    gps_end_lon: float | None = None
    """Longitude of the last fix, in degrees."""
    gps_end_city: str | None = None
    """City at the last fix."""
    gps_end_country_code: str | None = None
    """Country at the last fix, ISO 3166-1."""
    gps_disputed: str | None = None
    """The area, and who claims it, where the fix lies in a disputed one."""
    drive_lat: float | None = None
    """Latitude taken from the file named in `location_from`, where `location_source` is drive."""
    drive_lon: float | None = None
    """Its longitude, in degrees."""
    visual_continent: str | None = None
    """The continent that the pictures show, whatever was measured."""
    visual_country: str | None = None
    """The country that the pictures show, whatever was measured."""
    visual_state: str | None = None
    """The state that the pictures show, whatever was measured."""
    visual_city: str | None = None
    """The city that the pictures show, whatever was measured."""
    visual_lat: float | None = None
    """Latitude of the place that the pictures show, in degrees."""
    visual_lon: float | None = None
    """Its longitude, in degrees."""
    radius_m: float | None = None
    """How far from that place the video may well have been recorded, in metres."""
    agreement: Literal["match", "state", "country", "conflict", "none"] = "none"
    """How far the measured and the predicted place agree; none: not both are known."""
    agreement_km: float | None = None
    """Distance between the measured and the predicted place, in kilometres."""
    clips: int = 0
    """Clips that the answer rests on."""
    engine: str | None = None
    """What ran the model."""
    bundle: str | None = None
    """Name of the model folder and the first 12 hexadecimal digits of its hash."""
    sampling: str | None = None
    """Policy and span of the clips, and every fallback: `keyframe 21 s; 2 of 3 clips exact: ..`."""
