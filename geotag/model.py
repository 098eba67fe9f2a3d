"""The model of a scan: a bundle, its class tree, and the engine that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geotag.footage.clips import Sampling, plan_windows, rest_of
from geotag.locate import Ran
from geotag.places.join import compare_with
from geotag.sampling import choose_sampling, count_clips
from geotag.sight import calibration_of, is_settled, read_scores, see

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.base import Engine, EngineChoice
    from engines.bundle import Bundle
    from geotag.config import ScanConfig
    from geotag.footage.clips import Window
    from geotag.places.hierarchy import Hierarchy
    from geotag.sight import Look, Sight
    from geotag.types import Clip, FootageError, Video, VideoFacts


class Model:
    """What looks at pictures; for the thread that made it.  The engine is not closed."""

    def __init__(
        self,
        bundle: Bundle,
        hierarchy: Hierarchy,
        engine: Engine,
        choice: EngineChoice,
        config: ScanConfig,
    ) -> None:
        """Fix what is the same for every video.

        Raises:
            ConfigError: the sampling policy asked for is not one of the bundle's.
            BundleError: the bundle lacks the calibration that tags need.
        """
        self.choice = choose_sampling(bundle, config.sampling)
        spec = bundle.manifest.input
        self.bundle = bundle
        self.hierarchy = hierarchy
        self.engine = engine
        self.engine_name = choice.name
        self.config = config
        self.calibration = calibration_of(bundle)
        self.sampling = Sampling(
            policy=self.choice.policy,
            span_s=self.choice.span_s,
            frames=spec.frames,
            height_px=spec.height_px,
            width_px=spec.width_px,
            max_keyframe_gap_s=bundle.manifest.sampling.max_keyframe_gap_s,
            resize=spec.resize,
            # Windows lie at least half a span apart, and stay apart.
            slack_s=0.4 * self.choice.span_s,
        )
        self.ran = Ran(engine=choice.name, bundle=bundle.label, agree=compare_with(hierarchy))

    @property
    def settings(self) -> tuple[object, ...]:
        """All that an answer depends on, besides the video."""
        config = self.config
        return (self.bundle.digest, self.engine_name, self.sampling, config.clips, config.stop_prob)

    def windows(self, video: Video, facts: VideoFacts) -> tuple[Window, ...]:
        """The clips that a video may get, the most useful first.

        What a parked car records hardly moves: one clip says it all.
        """
        wanted, usual = self.config.clips, self.bundle.manifest.sampling.clips
        if wanted is None and video.origin.mode == "parking":
            wanted = 1
        most = count_clips(facts.duration_s, wanted, usual)
        windows = plan_windows(facts.duration_s, self.sampling.span_s, most)
        moment = self.bundle.manifest.input.moment
        return tuple(rest_of(window, moment) for window in windows)

    def look(self, clip: Clip) -> Look:
        """Run the engine on one clip."""
        scores = self.engine.infer(clip.frames_THWC[np.newaxis])
        return read_scores(scores, clip, hierarchy=self.hierarchy, calibration=self.calibration)

    def is_enough(self, looks: Sequence[Look]) -> bool:
        """Whether no further clip is needed."""
        return self.config.clips is None and is_settled(looks, self.config.stop_prob)

    def see(
        self, facts: VideoFacts, looks: Sequence[Look], errors: Sequence[FootageError]
    ) -> Sight:
        """Join looks into the answer of the pictures."""
        return see(
            facts,
            looks,
            hierarchy=self.hierarchy,
            bundle=self.bundle,
            sampling=self.sampling,
            errors=errors,
        )
