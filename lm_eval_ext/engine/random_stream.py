"""Random streams that belong to one attempt and to nothing else.

A stream is a counter-based generator keyed by a hash of what identifies the attempt, so its draws
do not depend on batch size, order, other attempts, resuming or the number of processes.
"""

from __future__ import annotations

import hashlib

import numpy as np


def attempt_stream(seed: int, prompt: str, attempt: int, *, purpose: str) -> np.random.Generator:
    """Return the random stream of one attempt, numbered from 0, at a rendered prompt.

    It is a Philox generator (Salmon et al. 2011, doi:10.1145/2063384.2063405) with a 128-bit key.
    Streams of different purposes, such as ``"tokens"``, are independent.

    Examples
    --------
    >>> first = attempt_stream(0, "2 + 2 =", 0, purpose="tokens").random(2)
    >>> again = attempt_stream(0, "2 + 2 =", 0, purpose="tokens").random(2)
    >>> other = attempt_stream(0, "2 + 2 =", 1, purpose="tokens").random(2)
    >>> bool((first == again).all()), bool((first == other).any())
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (str(int(seed)), purpose, str(int(attempt)), prompt):
        encoded = part.encode("utf-8", errors="surrogatepass")
        # The length in front of each part keeps ("a", "bc") and ("ab", "c") apart.
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    key = np.frombuffer(digest.digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
