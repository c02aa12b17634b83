"""The exact Gaussian error linear unit, fast enough that a stream is not mostly waiting for it."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_HALF, _ONE, _ROOT, _LIMIT = np.float32(0.5), np.float32(1.0), np.float32(0.5**0.5), np.float32(4.0)

# erf(z) / z as a rational function of z**2 on 0 <= z <= 4, fitted by iteratively reweighted least squares on 4,000 Chebyshev
# nodes; it is off by 6e-8 of 1, and beyond 4 the error function is 1 to 2e-8.
_N0, _N1, _N2, _N3, _N4, _N5, _N6 = (
    np.float32(value)
    for value in (
        1.1283786772232784,
        0.2139446703099368,
        0.052433463837091666,
        0.0042930486039669796,
        0.000155536484920945,
        -1.9903154299049325e-06,
        1.921712589014295e-08,
    )
)
_D1, _D2, _D3, _D4 = (
    np.float32(value) for value in (0.5229311837452876, 0.1207996089863826, 0.015551085959533478, 0.0010980362390401678)
)


def gelu(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return x times the share of a standard normal below x, to 2e-6 for values up to 10."""
    out = np.empty(x.shape, dtype=np.float32)
    _fill(np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
    return out


@numba.njit(cache=True, nogil=True)
def _fill(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    for i in range(x.size):
        z = min(max(x[i] * _ROOT, -_LIMIT), _LIMIT)
        u = z * z
        above = (((((_N6 * u + _N5) * u + _N4) * u + _N3) * u + _N2) * u + _N1) * u + _N0
        below = (((_D4 * u + _D3) * u + _D2) * u + _D1) * u + _ONE
        out[i] = _HALF * x[i] * (_ONE + z * above / below)
