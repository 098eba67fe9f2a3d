"""Labels that know distance: a city nearby is less wrong than one far away.

    share_j proportional to exp(-|d(j, x) - d(true, x)| / tau)

with d the great-circle distance of a clip's place x to a city's centre. x is where the clip was
measured, else the centre of its city, which makes the exponent -d(j, true) / tau. Coarser levels
get the sums over their cities: a country's share is that of its cities.

Source: PIGEON (Haas et al., CVPR 2024), section 3.2, for geocells that hold x, whose difference is
hardly ever below 0. A clip at the edge of its city can be nearer to another's centre; the absolute
value keeps its own city the likeliest, and the label is the label.

Shape suffixes: N clips, K classes of a level, C cities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from engines.bundle import LEVELS
from geotag.geo import EARTH_RADIUS_M

if TYPE_CHECKING:
    from torch import Tensor

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy


def city_centres(hierarchy: Hierarchy) -> Tensor:
    """(lat_deg, lon_deg) of every city.  float64 [C, 2].

    Raises:
        ValueError: one of them has none.
    """
    cities = hierarchy.places["city"]
    lost = [each.name for each in cities if each.lat_deg is None or each.lon_deg is None]
    if lost:
        raise ValueError(
            f"smoothing labels by distance: {len(lost)} cities have no coordinates, such as "
            f"{lost[0]}. Add them to the class tree, or set loss.haversine_km = 0."
        )
    return torch.from_numpy(np.array([(each.lat_deg, each.lon_deg) for each in cities], np.float64))


def near_shares(
    city_N: Tensor, point_N2: Tensor | None, centres_C2: Tensor, tau_km: float
) -> Tensor:
    """Shares of all cities in the label of each clip.  -> float64 [N, C], rows of sum 1.

    Args:
        city_N: true cities.
        point_N2: (lat_deg, lon_deg) of the clips, NaN where nobody measured; None: nobody did.
        centres_C2: (lat_deg, lon_deg) of the cities.
        tau_km: of how many kilometres further away a city counts e times less.
    """
    centre_N2 = centres_C2[city_N]
    if point_N2 is not None:
        centre_N2 = torch.where(point_N2.isnan().any(1, keepdim=True), centre_N2, point_N2.double())
    distance_NC = _distances_km(centre_N2, centres_C2)
    further_NC = (distance_NC - distance_NC.gather(1, city_N[:, None])).abs()
    return (-further_NC / tau_km).softmax(dim=1)


def spread(
    shares_NC: Tensor, ancestors: Mapping[Level, Tensor], counts: Mapping[Level, int]
) -> dict[Level, Tensor]:
    """Shares of the classes of every level as sums over their cities.  [N, C] -> [N, K].

    Args:
        shares_NC: of the cities.
        ancestors: class of each city at every level, [C].
        counts: K of every level.
    """
    return {
        level: shares_NC.new_zeros(len(shares_NC), counts[level]).index_add(
            1, ancestors[level], shares_NC
        )
        for level in LEVELS
    }


def _distances_km(point_N2: Tensor, centres_C2: Tensor) -> Tensor:
    """Great-circle distances, as `geotag.geo.distances_m` has them.  [N, 2], [C, 2] -> [N, C]."""
    lat_N1, lon_N1 = torch.deg2rad(point_N2).T[..., None]
    lat_C, lon_C = torch.deg2rad(centres_C2).T
    half_NC = (
        torch.sin((lat_C - lat_N1) / 2) ** 2
        + torch.cos(lat_N1) * torch.cos(lat_C) * torch.sin((lon_C - lon_N1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M / 1000 * torch.asin(half_NC.clamp(0, 1).sqrt())
