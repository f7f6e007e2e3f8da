"""Randomness that is the same in every process and Python version."""

from __future__ import annotations

import hashlib
import math
import random
import uuid

__all__ = ["poisson", "stream", "uuid_of"]

_NORMAL_FROM = 30.0


def stream(*parts: object) -> random.Random:
    """Return a generator that depends on `parts` alone.

    Only its `random()` may be used: Python promises its sequence for good, and no other method's.
    """
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - made-up traffic, not a secret


def uuid_of(*parts: object) -> str:
    """Return a UUID that depends on `parts` alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def poisson(rng: random.Random, mean: float) -> int:
    """Draw a Poisson-distributed count; from a mean of 30 on, its normal approximation."""
    if mean >= _NORMAL_FROM:
        bell = sum(rng.random() for _ in range(12)) - 6.0
        return max(0, round(mean + math.sqrt(mean) * bell))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
