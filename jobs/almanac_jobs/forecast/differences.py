"""How often a series is to be differenced before it is stationary: the tests that R's `auto.arima` makes.

Pure: arrays in, numbers out. Seasonal differences follow the strength of the season in an STL decomposition (Wang,
Smith and Hyndman 2006; R's `nsdiffs`: above 0.64 one is taken), first differences the test of Kwiatkowski, Phillips,
Schmidt and Shin at 5 % (R's `ndiffs`: up to two, lag truncation 3 sqrt(n)/13). Both tests are coreforecast's.
"""

from __future__ import annotations

import numpy as np
from coreforecast.differences import num_diffs, num_seas_diffs

from almanac_jobs.forecast import segments
from almanac_jobs.forecast.types import Floats, Ints, Ragged

MOST = 2
"""First differences at most."""


def differences(series: Ragged, season_length: int) -> tuple[Ints, Ints]:
    """First and seasonal differences that each series needs.

    Missing values are no observations of the first test, and lie on the line between their neighbours in the second,
    which takes more than two seasons.
    """
    scaled = segments.Scaled.of(series, segments.means(series))
    first, seasonal = np.zeros((2, len(series)), np.int64)
    for i in np.flatnonzero(scaled.size > 0):
        first[i], seasonal[i] = _differences(scaled.series[int(i)], season_length)
    return first, seasonal


def _differences(values: Floats, m: int) -> tuple[int, int]:
    seasonal = 0
    if m > 1 and len(values) > 2 * m:
        time, seen = np.arange(len(values)), ~np.isnan(values)
        seasonal = num_seas_diffs(np.interp(time, time[seen], values[seen]), m, 1)
    left = values[m:] - values[:-m] if seasonal else values
    return num_diffs(left[~np.isnan(left)], MOST), seasonal
