import numpy as np
import pytest

from engines.base import BundleError
from engines.bundle import Bundle
from geotag.evidence import Evidence, Viewing
from geotag.footage.clips import Sampling
from geotag.geo import distances_m, mean_point_deg
from geotag.locate import Ran, locate_drive
from geotag.places.gazetteer import read_gazetteer
from geotag.places.hierarchy import Hierarchy, read_hierarchy
from geotag.sight import (
    CITY_EXTENT_M,
    LISTED_CITIES,
    Look,
    estimate,
    fuse,
    is_settled,
    read_scores,
    see,
)
from geotag.telemetry.clock import VideoTime
from geotag.telemetry.track import Survey
from geotag.types import FootageError, Tag, Video, VideoFacts
from tests.fakes import COLOURS, alone, colour_clip, make_bundle, scores_of

VIDEO = Video(path="a.mp4", name="a.mp4", video_id="0" * 32, size_bytes=1)  # type: ignore[arg-type]
SAMPLING = Sampling(
    policy="keyframe", span_s=4.0, frames=4, height_px=32, width_px=32, max_keyframe_gap_s=3.0
)


@pytest.fixture(scope="module")
def hierarchy(bundle: Bundle) -> Hierarchy:
    return read_hierarchy(bundle.file("places.csv"))


def look(probs: list[float], **changes: object) -> Look:
    fields = {"policy": "keyframe", "fallback": None, "damaged": False, **changes}
    city_probs = np.array(probs, dtype=np.float64)
    return Look(city_probs=city_probs, scene_probs=np.array([0.25, 0.75]), **fields)  # type: ignore[arg-type]


def tag_of(
    looks: list[Look],
    bundle: Bundle,
    hierarchy: Hierarchy,
    *,
    duration_s: float | None = 30.0,
    errors: tuple[FootageError, ...] = (),
) -> Tag:
    facts = VideoFacts(
        container="mp4",
        codec="h264",
        width_px=64,
        height_px=64,
        rotation_deg=0,
        duration_s=duration_s,
        fps=10.0,
    )
    sight = see(facts, looks, hierarchy=hierarchy, bundle=bundle, sampling=SAMPLING, errors=errors)
    (tag,) = locate_drive(
        alone([VIDEO]).drives[0],
        {
            VIDEO.name: Evidence(
                video=VIDEO, survey=Survey(), viewing=Viewing(facts=facts, sight=sight)
            )
        },
        {VIDEO.name: VideoTime()},
        gazetteer=read_gazetteer(),
        ran=Ran(engine="fake", bundle=bundle.label),
    )
    return tag


def test_one_clip_is_left_as_it_is() -> None:
    probs = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(fuse(probs), probs[0])


def test_four_equal_clips_weigh_as_much_as_two_independent_ones() -> None:
    probs = np.array([0.6, 0.3, 0.1])
    expected = probs**2 / (probs**2).sum()
    np.testing.assert_allclose(fuse(np.tile(probs, (4, 1))), expected)


def test_the_order_of_clips_does_not_matter() -> None:
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(fuse(probs), fuse(probs[::-1]))


def test_clips_that_exclude_each_other_still_give_probabilities() -> None:
    np.testing.assert_allclose(fuse(np.array([[1.0, 0.0], [0.0, 1.0]])), [0.5, 0.5])


def test_two_sure_clips_that_agree_settle_a_video() -> None:
    sure, other = look([0.98, 0.01, 0.01]), look([0.01, 0.98, 0.01])
    assert is_settled([sure, sure], 0.97)
    assert not is_settled([sure], 0.97)
    assert not is_settled([sure, other], 0.97)
    assert not is_settled([look([0.6, 0.2, 0.2])] * 2, 0.97)


def test_a_sure_answer_names_the_city_and_all_above_it(
    bundle: Bundle, hierarchy: Hierarchy
) -> None:
    tag = tag_of([look([0, 0.9, 0.1, 0, 0, 0])], bundle, hierarchy)
    assert (tag.level, tag.location_source, tag.status) == ("city", "visual", "ok")
    assert (tag.city, tag.city_geonameid) == ("Paris", 2988507)
    assert (tag.state, tag.state_code) == ("Île-de-France", "FR-IDF")
    assert (tag.country, tag.country_code) == ("France", "FR")
    assert (tag.continent, tag.continent_code) == ("Europe", "EU")
    assert (tag.confidence_city, tag.confidence_country) == (0.9, 0.9)
    assert tag.confidence_continent == 1.0
    assert (tag.visual_lat, tag.visual_lon) == (48.85341, 2.3488)
    assert (tag.city_1, tag.city_1_p, tag.city_2, tag.city_2_p) == ("Paris", 0.9, "Berlin", 0.1)
    assert (tag.scene, tag.scene_p, tag.clips) == ("highway", 0.75, 1)
    assert tag.bundle == bundle.label


def test_doubt_between_two_cities_of_a_state_names_the_state(
    bundle: Bundle, hierarchy: Hierarchy
) -> None:
    tag = tag_of([look([0, 0, 0, 0, 0.49, 0.49 + 0.02])], make_strict(bundle, 0.6), hierarchy)
    assert (tag.level, tag.state, tag.city, tag.city_geonameid) == ("state", "Texas", None, None)
    assert tag.confidence_city == 0.51
    assert tag.visual_lat == pytest.approx(31.53, abs=0.05)
    assert tag.radius_m is not None
    assert 100_000 < tag.radius_m < 300_000


def test_doubt_everywhere_names_nothing_and_places_nothing(
    bundle: Bundle, hierarchy: Hierarchy
) -> None:
    tag = tag_of([look([1 / 6] * 6)], make_strict(bundle, 0.6), hierarchy)
    assert (tag.level, tag.location_source, tag.status) == ("none", "none", "ok")
    assert (tag.continent, tag.visual_lat, tag.visual_lon, tag.radius_m) == (None,) * 4
    assert tag.confidence_continent == 0.5


def test_confidence_belongs_to_the_place_that_is_named(
    hierarchy: Hierarchy, bundle: Bundle
) -> None:
    # Berlin is the most probable city, France the most probable country.
    tag = tag_of([look([0.3, 0.3, 0.4, 0, 0, 0])], make_strict(bundle, 0.35), hierarchy)
    assert (tag.city, tag.country) == ("Berlin", "Germany")
    assert (tag.confidence_city, tag.confidence_country) == (0.4, 0.4)


def test_a_city_is_never_smaller_than_a_city(bundle: Bundle, hierarchy: Hierarchy) -> None:
    tag = tag_of([look([0, 1, 0, 0, 0, 0])], bundle, hierarchy)
    assert tag.radius_m == CITY_EXTENT_M


def test_the_radius_reaches_the_second_city_where_the_first_holds_too_little(
    bundle: Bundle, hierarchy: Hierarchy
) -> None:
    tag = tag_of([look([0.2, 0.8, 0, 0, 0, 0])], bundle, hierarchy)
    lyon_m = distances_m((48.85341, 2.3488), np.array([45.74846]), np.array([4.84671]))[0]
    assert tag.radius_m == round(lyon_m)


def test_fewer_cities_than_are_listed_leave_blanks(bundle: Bundle, hierarchy: Hierarchy) -> None:
    tag = tag_of([look([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])], bundle, hierarchy)
    assert tag.city_5 is not None
    assert LISTED_CITIES == 5


def test_a_fallback_is_told_in_the_tag(bundle: Bundle, hierarchy: Hierarchy) -> None:
    plain = look([0, 1, 0, 0, 0, 0])
    exact = look([0, 1, 0, 0, 0, 0], policy="exact", fallback="key frames 9.8 s apart")
    tag = tag_of([plain, exact, exact], bundle, hierarchy)
    assert tag.sampling == "keyframe 4 s; 2 of 3 clips exact: key frames 9.8 s apart"


def test_a_short_video_is_told_in_the_tag(bundle: Bundle, hierarchy: Hierarchy) -> None:
    tag = tag_of([look([0, 1, 0, 0, 0, 0])], bundle, hierarchy, duration_s=1.25)
    assert tag.sampling == "keyframe 4 s; cut to 1.2 s: the whole video"


def test_a_lost_clip_makes_the_tag_partial(bundle: Bundle, hierarchy: Hierarchy) -> None:
    errors = (FootageError("decode", "decode_error", "No frame decodes."),)
    tag = tag_of([look([0, 1, 0, 0, 0, 0], damaged=True)], bundle, hierarchy, errors=errors)
    assert tag.status == "partial"
    assert tag.error == (
        "decode_error: 1 of 2 clips unreadable: No frame decodes.; "
        "damaged: 1 of 2 clips lack frames that cannot be decoded"
    )


def test_distances_match_known_ones() -> None:
    lats, lons = np.array([52.52437, 48.85341, -48.85341]), np.array([13.41053, 2.3488, -177.6512])
    found = distances_m((48.85341, 2.3488), lats, lons)
    assert found[0] == pytest.approx(878_400, rel=1e-3)  # Paris to Berlin
    assert found[1] == 0.0
    assert found[2] == pytest.approx(np.pi * 6_371_008.8)  # the antipode


def test_the_mean_of_points_crosses_the_date_line() -> None:
    lat, lon = mean_point_deg(np.array([0.0, 0.0]), np.array([179.0, -179.0]), np.array([1.0, 1.0]))
    assert lat == pytest.approx(0.0)
    assert abs(lon) == pytest.approx(180.0)


def test_points_that_cancel_out_give_the_heaviest() -> None:
    points = (np.array([0.0, 0.0]), np.array([0.0, 180.0]))
    assert mean_point_deg(*points, np.array([0.5, 0.5])) == (0.0, 0.0)


def test_temperature_is_applied_per_level(bundle: Bundle, hierarchy: Hierarchy) -> None:
    from dataclasses import replace

    from geotag.sight import calibration_of

    clip = colour_clip((150, 140, 60))
    scores = scores_of(clip.frames_THWC[np.newaxis])
    plain = calibration_of(bundle)
    softer = {level: replace(entry, temperature=3.0) for level, entry in plain.items()}
    sharp = read_scores(scores, clip, hierarchy=hierarchy, calibration=plain)
    soft = read_scores(scores, clip, hierarchy=hierarchy, calibration=softer)
    assert soft.city_probs.max() < sharp.city_probs.max()
    assert sharp.city_probs.sum() == pytest.approx(1.0)


def test_the_colour_of_a_city_is_that_city(bundle: Bundle, hierarchy: Hierarchy) -> None:
    from geotag.sight import calibration_of

    for index, colour in enumerate(COLOURS.values()):
        clip = colour_clip(colour)
        seen = read_scores(
            scores_of(clip.frames_THWC[np.newaxis]),
            clip,
            hierarchy=hierarchy,
            calibration=calibration_of(bundle),
        )
        found = estimate([seen], hierarchy, calibration_of(bundle))
        assert found.places["city"] == index


def test_a_bundle_without_calibration_is_refused(bundle: Bundle, tmp_path: object) -> None:
    from dataclasses import replace

    from geotag.sight import calibration_of

    bare = replace(bundle, manifest=replace(bundle.manifest, calibration={}))
    with pytest.raises(BundleError, match="no calibration of the mode 'marginal' for city, state"):
        calibration_of(bare)


def make_strict(bundle: Bundle, threshold_prob: float) -> Bundle:
    from dataclasses import replace

    calibration = {
        "marginal": {
            level: replace(entry, threshold_prob=threshold_prob)
            for level, entry in bundle.manifest.calibration["marginal"].items()
        }
    }
    return replace(bundle, manifest=replace(bundle.manifest, calibration=calibration))


def test_the_fake_bundle_is_a_bundle(tmp_path) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    assert make_bundle(tmp_path / "b").manifest.outputs["state"] == 5
