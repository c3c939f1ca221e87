"""Normal noise that belongs to names rather than to positions, so that the order of genes or peaks decides nothing."""

import numpy as np
from scipy.special import ndtri

_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(bits: np.ndarray) -> np.ndarray:
    """Return the finaliser of the splitmix64 generator: every bit of the input moves every bit of the output."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def keyed_normal(*keys: np.ndarray) -> np.ndarray:
    """Return standard normal numbers, float32, each decided by its keys alone.

    Parameters
    ----------
    *keys : broadcastable, uint64
        What each number belongs to, such as a hash of the gene, a hash of the peak, and a random word of the unit.
    """
    bits = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):  # 64-bit words wrap around by design
        for key in keys:
            bits = _mix(bits + (np.asarray(key, np.uint64) | np.uint64(0)) * _STEP + _STEP)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return ndtri(uniform).astype(np.float32)
