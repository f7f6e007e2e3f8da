"""Random numbers that are reproducible in every process and Python version."""

from __future__ import annotations

import hashlib
import math
import random
import uuid

__all__ = ["poisson", "stream", "uuid_of"]

_NORMAL_FROM = 30.0


def stream(*parts: object) -> random.Random:
    """Return a generator that depends only on `parts`.

    Use only its `random()`: Python guarantees a stable sequence for that method alone.
    """
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - synthetic traffic, not a secret


def uuid_of(*parts: object) -> str:
    """Return a UUID that depends only on `parts`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def poisson(rng: random.Random, mean: float) -> int:
    """Draw a Poisson-distributed count; for a mean of 30 or more, by the normal approximation."""
    if mean >= _NORMAL_FROM:
        bell = sum(rng.random() for _ in range(12)) - 6.0
        return max(0, round(mean + math.sqrt(mean) * bell))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
