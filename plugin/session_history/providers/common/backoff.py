"""Pauses between two tries of the same call."""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first: float, longest: float, *, growth: float = 2.0) -> Iterator[float]:
    """Yield the seconds to wait before each further try, without an end.

    A pause has a random length, between a fifth of its nominal length and the whole. So callers that failed at the
    same moment try again at different moments.

    :param first: nominal length of the first pause.
    :param longest: the nominal length at which pauses no longer grow.
    :param growth: how many times as long as the pause before it the next one is.
    """
    length = first
    while True:
        yield random.uniform(0.2, 1) * length
        length = min(growth * length, longest)
