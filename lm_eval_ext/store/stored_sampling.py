"""Answer requests from a store, and generate what it lacks.

Matrix products round differently in batches of different shapes, so an attempt that is generated
beside others has the same text but last digits of its own. On a CPU a batch is therefore whole: all
of its attempts begin together, and one that a kill has cut off is generated again as a whole; what
was kept of it stays, and what is new comes out as it would have without the kill, bit for bit.
On a GPU rows that finish are refilled, and only what is missing is generated.

Where memory decides how many attempts a batch has, the store keeps their number, so that the same
requests are divided into the same batches when a run resumes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.models.digests import digest
from lm_eval_ext.models.generation import Generation, GenerationRecord
from lm_eval_ext.models.thoughts import ThoughtTags
from lm_eval_ext.store.attempt_store import AttemptStore, StoredAttempt
from lm_eval_ext.store.batches import batch_name, batch_size, batches
from lm_eval_ext.store.key import AttemptKey, Context, read_digest
from lm_eval_ext.store.sampling_group import Sampled, SamplingGroup


class Contexts(NamedTuple):
    """The contexts of a group of attempts.

    Parameters
    ----------
    text
        Of the sampled attempts.
    final
        Of the annotated ones; the same where nothing is annotated after sampling.
    """

    text: Context
    final: Context


logger = logging.getLogger(__name__)

# As many rows as before may take so much more memory than would be taken now: half of what is free
# is left over for it.
_SLACK = 1.25

Sample = Callable[[SamplingGroup], Iterable[Sampled]]
IsOutdated = Callable[[GenerationRecord, ThoughtTags | None], bool]
Annotate = Callable[[Sequence[GenerationRequest], list[Generation]], list[Generation]]


class StoredSampling:
    """Answers the requests of a group.

    Parameters
    ----------
    store
        The store.
    group
        The requests.
    contexts
        Their contexts.
    again
        The contexts of attempts that are drawn again because what is kept is outdated.
    is_outdated
        Tells so of what is kept of an attempt, given the tags of a thought that its prompt opens.
    sample
        Samples some of them.
    annotate
        Annotates what was sampled.
    """

    def __init__(
        self,
        store: AttemptStore,
        group: SamplingGroup,
        contexts: Contexts,
        *,
        again: Contexts,
        is_outdated: IsOutdated,
        sample: Sample,
        annotate: Annotate,
    ) -> None:
        self._store, self._group = store, group
        self._sample, self._annotate = sample, annotate
        self._rows = 1  # decoded at once
        self._annotates = contexts.text.name != contexts.final.name
        self._contexts = [contexts] * len(group.requests)
        self._text, self._final = self._keys()
        outdated = [self._holds(i, is_outdated) for i in range(len(group.requests))]
        if any(outdated):
            self._contexts = [again if old else contexts for old in outdated]
            self._text, self._final = self._keys()
        # Requests with the same prompt and number are one attempt.
        self._same: dict[AttemptKey, list[int]] = defaultdict(list)
        for place, key in enumerate(self._final):
            self._same[key].append(place)

    def _keys(self) -> tuple[list[AttemptKey], list[AttemptKey]]:
        """Return the keys of all attempts, as texts and annotated."""
        prompts = {r.prompt: digest("prompt", r.prompt) for r in self._group.requests}
        asked = zip(self._contexts, self._group.requests, self._group.attempts, strict=True)
        text = [
            AttemptKey(c.text.name, prompts[request.prompt], read_digest(attempt), request.attempt)
            for c, request, attempt in asked
        ]
        final = [
            key._replace(context=c.final.name) for key, c in zip(text, self._contexts, strict=True)
        ]
        return text, final

    def _holds(self, place: int, is_outdated: IsOutdated) -> bool:
        """Return whether the store holds an attempt that must be drawn again."""
        if len(self._group.settings.stop) < 2:  # nothing but the end of sequence
            return False
        stored = self._store.get(self._final[place]) or self._store.get(self._text[place])
        opened = self._group.attempts[place].opened
        return stored is not None and is_outdated(stored.generation.record, opened)

    def rows_as_before(self, rows: int, *, most: int | None = None) -> int:
        """Return how many attempts to decode at once, where memory decides.

        Parameters
        ----------
        rows
            What fits now.
        most
            Upper bound that was asked for, or None.

        Returns
        -------
        int
            What fitted when these requests were begun, if it still fits; otherwise ``rows``.
        """
        name = digest("group", *sorted(key.name for key in self._same))
        before = self._store.rows_of(name)
        if before is None:
            if any(key not in self._store for key in self._same):
                self._store.require_writable()
                self._store.note_rows(name, rows)
            return rows
        if before <= (_SLACK * rows if most is None else min(_SLACK * rows, most)):
            return before
        logger.warning(
            "store=%s: %d attempts at once, where this run began with %d: last digits of log-probs "
            "and confidences may be others than without the interruption",
            self._store.folder,
            rows,
            before,
        )
        return rows

    def run(self, rows: int, *, whole: bool) -> Iterator[Sampled]:
        """Yield every attempt, stored or new, in any order.

        Parameters
        ----------
        rows
            Attempts decoded at once.
        whole
            Whether batches are whole; see the module.
        """
        n_missing = sum(key not in self._store for key in self._same)
        logger.warning(  # which lm-eval's command line shows of other packages
            "store=%s: %d of %d attempts are to be generated",
            self._store.folder,
            n_missing,
            len(self._same),
        )
        if n_missing:
            self._store.require_writable()
        self._rows = rows
        firsts = [places[0] for places in self._same.values()]
        size = batch_size(rows, whole=whole)
        rest: list[int] = []
        for batch in batches(firsts, self._group.attempts, size):
            name = batch_name([self._final[i] for i in batch])
            missing, known = [], []
            for place in batch:
                stored = self._store.get(self._final[place])
                if stored is None:
                    missing.append(place)
                else:
                    known.append(stored)
                    for answer in self._answers(place, stored):
                        yield answer._replace(was_kept=True)
            if not missing:
                continue
            texts = [self._store.get(self._text[i]) for i in missing] if self._annotates else []
            kept = known + [text for text in texts if text is not None]
            begun = whole and any(one.batch == name for one in kept)
            if begun or not kept:
                yield from self._complete(batch, missing, name, again=begun)
            else:
                rest += missing
        for batch in batches(rest, self._group.attempts, size):
            yield from self._complete(batch, batch, batch_name([self._final[i] for i in batch]))

    def _complete(
        self, batch: list[int], missing: list[int], name: str, *, again: bool = False
    ) -> Iterator[Sampled]:
        """Sample and annotate a batch, a cut-off one again, and yield what is missing of it."""
        lacking = set(missing)
        texts = self._stored_texts(batch, leave_out=name if again else None)
        to_sample = [i for i in batch if i not in texts]
        for sampled in self._sample(self._group.subset(to_sample)):
            place = to_sample[sampled.place]
            new = StoredAttempt(sampled.generation, sampled.tally, name)
            if not self._annotates:
                if place in lacking:
                    self._keep(self._contexts[place].final, self._final[place], new)
                    yield from self._answers(place, new)
                continue
            if self._text[place] not in self._store:
                self._keep(self._contexts[place].text, self._text[place], new)
            texts[place] = new
        self._store.sync()
        if self._annotates:
            yield from self._annotated(batch, lacking, texts, name)

    def _stored_texts(self, batch: list[int], leave_out: str | None) -> dict[int, StoredAttempt]:
        """Return texts that need not be sampled, but for those of one batch."""
        if not self._annotates:
            return {}
        found = {i: self._store.get(self._text[i]) for i in batch}
        return {i: one for i, one in found.items() if one is not None and one.batch != leave_out}

    def _annotated(
        self, batch: list[int], lacking: set[int], texts: dict[int, StoredAttempt], name: str
    ) -> Iterator[Sampled]:
        requests = [self._group.requests[i] for i in batch]
        annotated = self._annotate(requests, [texts[i].generation for i in batch])
        for place, generation in zip(batch, annotated, strict=True):
            if place in lacking:
                new = StoredAttempt(generation, texts[place].tally, name)
                self._keep(self._contexts[place].final, self._final[place], new)
                yield from self._answers(place, new)
        self._store.sync()

    def _keep(self, context: Context, key: AttemptKey, attempt: StoredAttempt) -> None:
        self._store.append(context, key, attempt)
        self._store.sync_if_due(self._rows)  # a refilled batch takes long

    def _answers(self, place: int, attempt: StoredAttempt) -> Iterator[Sampled]:
        for same in self._same[self._final[place]]:
            yield Sampled(same, attempt.generation, attempt.tally)
