"""Counter-based random integers: a function of a seed and a position, and of nothing else.

So picture 5,000 can be drawn without the 4,999 before it, and comes out the same on any machine
and with any version of numpy.
"""

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def random_integers(seed: int, purpose: str, places_N: np.ndarray, count: int) -> np.ndarray:
    """`count` integers for every position, uint64, (N, count), uniform over 0 … 2**64 - 1.

    Source: the finaliser of SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom
    number generators".
    """
    start = seed
    for letter in purpose.encode():
        start = _mix_one(start ^ letter)
    inner = np.arange(count, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        places = _mix(
            places_N.astype(np.uint64)[:, None] * np.uint64(GOLDEN) + np.uint64(start)
        )
        return _mix(places + (inner + np.uint64(1)) * np.uint64(GOLDEN))


def shuffled(rolls_NK: np.ndarray) -> np.ndarray:
    """A permutation of 0 … K - 1 for every row, int64, (N, K)."""
    return np.argsort(rolls_NK, axis=1, kind="stable")


def below(rolls: np.ndarray, limit: int) -> np.ndarray:
    """Integers in 0 … limit - 1, int64. The bias of the remainder is under limit / 2**64."""
    return (rolls % np.uint64(limit)).astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mix_one(x: int) -> int:
    x = (x + GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)
