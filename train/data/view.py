"""What a frame is seen from and through: the directions of its pixels, the pose and the air.

Slopes are metres per metre of depth, x to the right and y down, so that a pixel is a direction and
not a place on a screen; W and H are the width and height of the frame.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.looks import country_look
from train.data.route import plan_route
from train.data.world import Drive, Weather

HALF_WIDTH_SLOPE = 0.727  # tan(36 deg): 72 deg across, usual for a dashcam
HALF_HEIGHT_SLOPE = HALF_WIDTH_SLOPE * 9.0 / 16.0
EYE_M = 1.35
LANE_M = 1.8  # from the middle of the road to the middle of a lane
FAR_M = 240.0
BEAM_M = 22.0  # the car's own light fades to a third in this
SEEN_M = 60.0  # things beside the road fade out here


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """Directions of the pixels of one frame size; the view is 16:9 whatever the size."""

    height_px: int
    width_px: int
    x_slope: Floats
    y_slope: Floats
    x_step: float
    y_step: float
    vignette: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where the camera is and looks at one moment."""

    time_s: float
    along_m: float
    lateral_m: float
    heading_rad: float
    bend_per_m: float
    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Air:
    """Light at a distance, and the haze over it; colours are RGB in [0, 1]."""

    ambient: Floats
    headlight: np.float32
    haze: Floats
    visibility_m: float

    def light(self, colours: Floats, depth_m: Floats) -> Floats:
        """Colours [..., 3] as seen at a depth [...]."""
        return self.veil(colours * (self.ambient + self.beam(depth_m)[..., None]), depth_m)

    def beam(self, depth_m: Floats) -> Floats:
        """The car's own light at a depth."""
        return self.headlight * np.exp(depth_m * np.float32(-1.0 / BEAM_M))

    def veil(self, colours: Floats, depth_m: Floats) -> Floats:
        """What the haze leaves of colours [..., 3] that shine or are lit at a depth [...]."""
        clear = self.clearness(depth_m)[..., None]
        seen: Floats = colours * clear + self.haze * (1.0 - clear)
        return seen

    def clearness(self, depth_m: Floats) -> Floats:
        """Share of light that comes through the haze from a depth."""
        clear: Floats = np.exp(depth_m * np.float32(-1.0 / self.visibility_m))
        return clear


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """Everything that the painters of one frame share."""

    weather: Weather
    camera: Camera
    pose: Pose
    air: Air
    down: Floats
    """[H, W]: slope of each pixel below the horizon."""


def open_view(drive: Drive, camera: Camera, pose: Pose, visibility_m: float) -> View:
    """The view of a drive from a pose."""
    weather = drive.weather
    horizon = np.float32(-pose.pitch) + np.float32(pose.roll) * camera.x_slope
    return View(
        weather=weather,
        camera=camera,
        pose=pose,
        air=Air(
            ambient=np.asarray(weather.ambient, np.float32),
            headlight=np.float32(weather.headlight),
            haze=np.asarray(weather.haze, np.float32),
            visibility_m=visibility_m,
        ),
        down=camera.y_slope[:, None] - horizon[None, :],
    )


@lru_cache(maxsize=8)
def aim_camera(height_px: int, width_px: int) -> Camera:
    """The camera that sees a 16:9 field of view in frames of this size."""
    x_unit = (np.arange(width_px, dtype=np.float32) + 0.5) / width_px * 2.0 - 1.0
    y_unit = (np.arange(height_px, dtype=np.float32) + 0.5) / height_px * 2.0 - 1.0
    return Camera(
        height_px=height_px,
        width_px=width_px,
        x_slope=x_unit * np.float32(HALF_WIDTH_SLOPE),
        y_slope=y_unit * np.float32(HALF_HEIGHT_SLOPE),
        x_step=2.0 * HALF_WIDTH_SLOPE / width_px,
        y_step=2.0 * HALF_HEIGHT_SLOPE / height_px,
        vignette=(1.0 - 0.16 * (y_unit[:, None] ** 2 + x_unit[None, :] ** 2)).astype(np.float32),
    )


def pose_at(drive: Drive, time_s: float) -> Pose:
    """The camera at a moment: place along the route, lane, bend of the road and shake."""
    route = plan_route(drive.route_id, drive.duration_s)
    along_m = float(np.interp(time_s, route.times_s, route.distances_m))
    phase = _phases(drive.seed)
    lane_m = -LANE_M if country_look(drive.city_id).drives_left else LANE_M
    bends = [(1.0 / 700.0, 97.0), (1.0 / 900.0, 41.0)]  # sharpness (1/m) and length scale (m)
    bend = sum(k * np.sin((along_m + 20.0) / m + phase[i]) for i, (k, m) in enumerate(bends))
    turned = sum(-k * m * np.cos(along_m / m + phase[i]) for i, (k, m) in enumerate(bends))
    shake = np.sin(2.0 * np.pi * time_s * np.array([0.31, 1.7, 2.3, 0.9, 2.9]) + phase[4:9])
    hills = np.sin(along_m / 60.0 + phase[2]) + np.sin(along_m / 23.0 + phase[3])
    return Pose(
        time_s=time_s,
        along_m=along_m,
        lateral_m=lane_m + 0.35 * float(shake[0]) + 0.2 * float(np.sin(along_m / 30.0 + phase[9])),
        heading_rad=float(turned) + float(phase[10]),
        bend_per_m=float(bend),
        yaw=0.012 * float(np.sin(along_m / 45.0 + phase[11])) + 0.003 * float(shake[1]),
        pitch=0.014 * float(hills) + 0.004 * float(shake[2]) + 0.02 * float(phase[12] - np.pi),
        roll=0.008 * float(shake[3]) + 0.004 * float(shake[4]),
    )


def share_covered(inside_px: Floats) -> Floats:
    """Share of a pixel inside an edge, which its centre is so many pixels within."""
    share: Floats = inside_px + 0.5
    np.maximum(share, 0.0, out=share)
    return np.minimum(share, 1.0, out=share)


def share_on(phase: Floats, foot: Floats) -> Floats:
    """Share of a footprint that lies on a dash: a square wave of period 1, half on, averaged."""
    away = np.abs(phase - np.floor(phase) - np.float32(0.5))
    sharp = np.clip((np.float32(0.25) - away) / foot + np.float32(0.5), 0.0, 1.0)
    fade = np.clip(np.float32(1.4) - foot, 0.0, 1.0)
    mean = np.float32(0.5)
    return mean + (sharp - mean) * fade


@lru_cache(maxsize=16)
def _phases(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, 4]).uniform(0.0, 2.0 * np.pi, 16)
