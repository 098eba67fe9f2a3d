"""What earlier scans found, and under which conditions it still holds.

The ledger keeps texts under keys; here is what a key must depend on, so that a later scan gives
exactly the result of one that had to read everything.
"""

from __future__ import annotations

import contextlib
import json
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from geotag import __version__
from geotag.evidence import Recalled, viewing_from_json, viewing_to_json
from geotag.footage.discover import content_id
from geotag.telemetry.track import survey_from_json, survey_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from geotag.evidence import Viewing
    from geotag.ledger import Ledger
    from geotag.telemetry.track import Survey
    from geotag.types import Video

T = TypeVar("T")

SETTLED_FAULTS = frozenset(
    (
        "empty",
        "not_video",
        "damaged",
        "no_video_stream",
        "too_short",
        "decode_error",
        "too_large",
    )
)
"""Faults that lie in the bytes of a file. Another one may be gone the next time: a card that was
pulled out, a decoder that was slow, a bug of ours."""
_MISREAD = (ValueError, KeyError, TypeError, AttributeError)


class Memory:
    """A ledger, and the conditions of this scan."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        telemetry: Iterable[object],
        pictures: Iterable[object],
        proxies: bool,
        recalls: bool = True,
    ) -> None:
        """Keep the conditions.

        Args:
            ledger: where texts are kept.
            telemetry: versions and settings that surveys depend on.
            pictures: bundle, engine and settings that viewings depend on.
            proxies: whether small copies are decoded.
            recalls: False keeps what is found, and forgets what was.
        """
        self._ledger = ledger
        self._telemetry = (__version__, *telemetry)
        self._pictures = (__version__, proxies, *pictures)
        self._proxies = proxies
        self._recalls = recalls

    def recall(self, video: Video) -> Recalled:
        """What was found of a file under the same conditions."""
        if not self._recalls:
            return Recalled()
        survey, opened, looked_at = self._ledger.get(
            video.content_id,
            ("survey", self._survey_key(video)),
            ("picture", self._viewing_key(video, looked_at=False)),
            ("picture", self._viewing_key(video, looked_at=True)),
        )
        return Recalled(
            survey=_parsed(survey, survey_from_json),
            opened=_parsed(opened, viewing_from_json),
            looked_at=_parsed(looked_at, viewing_from_json),
        )

    def keep_survey(self, video: Video, survey: Survey) -> None:
        """Keep a survey, if the file is still what it was.  Raises OutputError."""
        if survey.quality is None and not _is_unchanged(video):
            return
        self._ledger.put(
            video.content_id, "survey", self._survey_key(video), survey_to_json(survey)
        )

    def keep_viewing(self, video: Video, viewing: Viewing) -> None:
        """Keep a viewing, if it says something lasting of the file.  Raises OutputError."""
        has_problem = viewing.fault is not None or (
            viewing.sight is not None and viewing.sight.problem is not None
        )
        if viewing.fault is not None and viewing.fault.code not in SETTLED_FAULTS:
            return
        if viewing.sight and viewing.sight.problem and "stalled" in viewing.sight.problem:
            return
        if has_problem and not _is_unchanged(video):
            return
        key = self._viewing_key(video, looked_at=viewing.is_looked_at)
        self._ledger.put(video.content_id, "picture", key, viewing_to_json(viewing))

    def _survey_key(self, video: Video) -> str:
        # How a file is read for positions depends on its name, and on the files beside it.
        beside = [_fingerprint(path) for path in video.sidecars]
        origin = video.origin
        start = origin.start_local.isoformat() if origin.start_local else None
        return _digest(self._telemetry, origin.rule, origin.vendor, start, video.path.name, beside)

    def _viewing_key(self, video: Video, *, looked_at: bool) -> str:
        proxy = _fingerprint(video.proxy) if self._proxies and video.proxy else None
        conditions = self._pictures if looked_at else (__version__, self._proxies)
        return _digest(conditions, looked_at, proxy, video.origin.mode == "parking")


def _parsed(text: str | None, parse: Callable[[str], T]) -> T | None:
    """A text as what it was; None where there is none, or it makes no sense."""
    if text is not None:
        with contextlib.suppress(*_MISREAD):
            return parse(text)
    return None


def _is_unchanged(video: Video) -> bool:
    """Whether a file can still be read and holds what it held when the scan began."""
    return content_id(video.path) == video.content_id


def _fingerprint(path: Path) -> tuple[object, ...]:
    """Enough to notice that a small file beside a video changed."""
    try:
        status = path.stat()
    except OSError:
        return (path.name, None, None)
    return (path.name, status.st_size, status.st_mtime_ns)


def _digest(*parts: object) -> str:
    text = json.dumps(parts, default=str, ensure_ascii=False)
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
