"""The keys of attempts: everything that decides a text and what is known about it.

A context is what the attempts of a run have in common: fingerprints, settings of the wrapper,
generation settings, seed. A key is that of one attempt in a context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lm_eval_ext.models.digests import canonical, digest

if TYPE_CHECKING:
    from lm_eval_ext.engine.request import AttemptRequest

FORMAT = 2
"""Version of keys and records; another one makes other keys."""

TEXT_FORMAT = "0.1.0"
"""Changes where the same settings come to sample other texts, and with no release otherwise.

Its entry in the key is called ``version`` and its value that of a release, because keys held the
package's version once.
"""


class Context(NamedTuple):
    """What attempts have in common: the settings, as plain JSON values, and a hash of them.

    `about` is what a reader wants to know and the key must not depend on, as the model's path.
    """

    name: str
    settings: dict[str, Any]
    about: dict[str, Any]


def make_context(settings: Mapping[str, Any], about: Mapping[str, Any]) -> Context:
    """Return the context of everything that decides attempts beside prompt and number."""
    text = canonical({"format": FORMAT, **settings})
    return Context(digest("context", text), json.loads(text), json.loads(canonical(about)))


class AttemptKey(NamedTuple):
    """What identifies an attempt in a store: the name of its context, and its number.

    `prompt` is a hash of the prompt's text, `read` one of what the model reads; see `hash_input`.
    """

    context: str
    prompt: str
    read: str
    attempt: int

    @property
    def name(self) -> str:
        """The key as it is in a file."""
        return digest("attempt", self.context, self.prompt, self.read, str(self.attempt))


def hash_input(request: AttemptRequest) -> str:
    """Return a hash of what the model reads for an attempt: tokens, and where vectors are."""
    parts = (request.shared_ids, request.private_ids)
    return digest(
        *(np.asarray(ids, dtype="<i8").tobytes() for ids in parts), str(request.n_vectors)
    )
