"""What is known of one video before its drive is: the evidence that a ledger keeps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from geotag.sight import SeenPlace, Sight
from geotag.types import VideoFacts

if TYPE_CHECKING:
    from geotag.telemetry.track import Survey
    from geotag.types import FailureCode, Stage, Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why the pictures of a video could not be read."""

    stage: Stage
    code: FailureCode
    message: str

    def __str__(self) -> str:
        """As the `error` of a tag."""
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """What came of opening a video, and of looking at it where that was wanted."""

    facts: VideoFacts | None = None
    fault: Fault | None = None
    sight: Sight | None = None
    is_looked_at: bool = False
    """Clips were asked for: `sight` or `fault` says what they gave."""
    seen_survey: str | None = None
    """Survey of the positions that the frames themselves carry, as its JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What is known of a video from earlier scans."""

    survey: Survey | None = None
    opened: Viewing | None = None
    looked_at: Viewing | None = None

    @property
    def viewing(self) -> Viewing | None:
        """The fuller of the two."""
        return self.looked_at or self.opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One video: the file, its telemetry, its pictures."""

    video: Video
    survey: Survey
    viewing: Viewing


def viewing_to_json(viewing: Viewing) -> str:
    """Text that `viewing_from_json` reads; the same viewing gives the same text."""
    return json.dumps(asdict(viewing), ensure_ascii=False, separators=(",", ":"))


def viewing_from_json(text: str) -> Viewing:
    """Read what `viewing_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    fields: dict[str, Any] = json.loads(text)
    facts, fault, sight = fields.pop("facts"), fields.pop("fault"), fields.pop("sight")
    return Viewing(
        facts=VideoFacts(**facts) if facts else None,
        fault=Fault(**fault) if fault else None,
        sight=_sight(sight) if sight else None,
        **fields,
    )


def _sight(fields: dict[str, Any]) -> Sight:
    places = tuple(SeenPlace(**place) for place in fields.pop("places"))
    cities = tuple((name, prob) for name, prob in fields.pop("cities"))
    confidences = tuple(fields.pop("confidences"))
    return Sight(places=places, cities=cities, confidences=confidences, **fields)
