"""Seeds out of numbers: equal on every machine and version."""

from __future__ import annotations

MASK = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN = 0x9E37_79B9_7F4A_7C15
FIRST = 0xBF58_476D_1CE4_E5B9
SECOND = 0x94D0_49BB_1331_11EB


def splitmix64(state: int) -> int:
    """Output of the SplitMix64 generator at ``state``: a bijection that scatters all 64 bits.

    Args:
        state: 64-bit unsigned number; higher bits are cut off.

    Returns:
        64-bit unsigned number.

    Reference:
        Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators", figure 16.

    Example:
        >>> hex(splitmix64(0))
        '0xe220a8397b1dcdaf'
    """
    z = (state + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * FIRST) & MASK
    z = ((z ^ (z >> 27)) * SECOND) & MASK
    return z ^ (z >> 31)


def mix_seed(*words: int) -> int:
    """Fold numbers into one 64-bit seed; order matters, and the result is the same on every machine and version.

    Args:
        words: any integers; taken modulo 2**64.

    Returns:
        64-bit unsigned number.
    """
    state = 0
    for word in words:
        state = splitmix64(state ^ (word & MASK))
    return state
