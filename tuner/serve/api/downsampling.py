"""Curves with fewer points that look the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[int, float]


def downsampled(points: Sequence[Point], most: int) -> list[Point]:
    """Return some points of a curve: of each bucket the one that spans the largest triangle.

    Points that are not finite are kept out of the choice; the first and the last point stay.

    Args:
        points: points in the order of the first number.
        most: most points, at least 3.

    Source: Steinarsson 2013, "Downsampling Time Series for Visual Representation", LTTB.
    """
    if len(points) <= most:
        return list(points)
    kept, step = [points[0]], (len(points) - 2) / (most - 2)
    for bucket in range(most - 2):
        start, end = 1 + math.floor(bucket * step), 1 + math.floor((bucket + 1) * step)
        after = points[end : 1 + math.floor((bucket + 2) * step)] or points[-1:]
        x = sum(point[0] for point in after) / len(after)
        y = sum(point[1] for point in after) / len(after)
        (x0, y0), best, largest = kept[-1], points[start], -1.0
        for point in points[start:end]:  # a function for the area would take three times as long
            area = abs((x0 - x) * (point[1] - y0) - (x0 - point[0]) * (y - y0))
            if largest < area < math.inf:  # False for NaN
                best, largest = point, area
        kept.append(best)
    return [*kept, points[-1]]
