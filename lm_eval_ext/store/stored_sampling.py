"""Answer requests from a store, and generate what it lacks.

Each attempt is kept as it ends, batch by batch: boxes are completed, and attempts annotated, at the
end of a batch. Texts that are annotated later are kept first, so that a failure loses none.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.models.digests import digest
from lm_eval_ext.models.generation import Generation, GenerationRecord
from lm_eval_ext.models.thoughts import ThoughtTags
from lm_eval_ext.store.attempt_store import AttemptStore, StoredAttempt
from lm_eval_ext.store.key import AttemptKey, hash_input
from lm_eval_ext.store.run_contexts import Contexts, after_thought
from lm_eval_ext.store.sampling_group import Sampled, SamplingGroup

logger = logging.getLogger(__name__)

# Attempts of a batch per row decoded at once: the more, the rarer the moment at which the last rows
# run alone.
_ROWS_PER_BATCH = 32

Sample = Callable[[SamplingGroup], Iterable[Sampled]]
IsOutdated = Callable[[GenerationRecord, ThoughtTags | None], bool]
Annotate = Callable[[Sequence[GenerationRequest], list[Generation]], list[Generation]]


class StoredSampling:
    """Answers the requests of a group.

    Parameters
    ----------
    is_outdated
        Returns whether what is kept of an attempt must be drawn again, given the tags of a thought
        that its prompt opens.
    sample, annotate
        Called for what is missing.
    """

    def __init__(
        self,
        store: AttemptStore,
        group: SamplingGroup,
        contexts: Contexts,
        *,
        is_outdated: IsOutdated,
        sample: Sample,
        annotate: Annotate,
    ) -> None:
        self._store, self._group = store, group
        self._sample, self._annotate = sample, annotate
        self._annotates = contexts.text.name != contexts.final.name
        self._contexts = [contexts] * len(group.requests)
        self._text, self._final = self._keys()
        outdated = [self._holds(i, is_outdated) for i in range(len(group.requests))]
        if any(outdated):
            again = after_thought(contexts)
            self._contexts = [again if old else contexts for old in outdated]
            self._text, self._final = self._keys()
        # Requests with the same prompt and number are one attempt.
        self._same: dict[AttemptKey, list[int]] = defaultdict(list)
        for i, key in enumerate(self._final):
            self._same[key].append(i)

    def _keys(self) -> tuple[list[AttemptKey], list[AttemptKey]]:
        """Return the keys of all attempts, as texts and annotated."""
        prompts = {r.prompt: digest("prompt", r.prompt) for r in self._group.requests}
        asked = zip(self._contexts, self._group.requests, self._group.attempts, strict=True)
        text = [
            AttemptKey(c.text.name, prompts[request.prompt], hash_input(attempt), request.attempt)
            for c, request, attempt in asked
        ]
        final = [
            key._replace(context=c.final.name) for key, c in zip(text, self._contexts, strict=True)
        ]
        return text, final

    def _holds(self, index: int, is_outdated: IsOutdated) -> bool:
        """Return whether the store holds an attempt that must be drawn again."""
        if len(self._group.settings.stop) < 2:  # nothing but the end of sequence
            return False
        stored = self._store.get(self._final[index]) or self._store.get(self._text[index])
        opened = self._group.attempts[index].opened
        return stored is not None and is_outdated(stored.generation.record, opened)

    def run(self, rows: int) -> Iterator[Sampled]:
        """Yield every attempt, stored or new; `rows` are decoded, and synced, at once."""
        missing = []
        for key, indices in self._same.items():
            stored = self._store.get(key)
            if stored is None:
                missing.append(indices[0])
                continue
            for answer in self._answers(key, stored):
                yield replace(answer, was_kept=True)
        logger.warning(  # which lm-eval's command line shows of other packages
            "store=%s: %d of %d attempts are to be generated",
            self._store.folder,
            len(missing),
            len(self._same),
        )
        if missing:
            self._store.require_writable()
        # Long prompts first, the attempts of a prompt together.
        attempts, size = self._group.attempts, _ROWS_PER_BATCH * rows
        missing.sort(key=lambda i: (-len(attempts[i].prompt_ids), attempts[i].prompt_ids, i))
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            new = self._annotated(batch, rows) if self._annotates else self._sampled(batch, rows)
            for i, attempt in new:
                yield from self._answers(self._final[i], attempt)

    def _sampled(self, batch: list[int], rows: int) -> Iterator[tuple[int, StoredAttempt]]:
        """Sample attempts, keep each, and yield it."""
        for sampled in self._sample(self._group.subset(batch)) if batch else ():
            i = batch[sampled.index]
            attempt = StoredAttempt(sampled.generation, sampled.tally)
            self._store.append(self._contexts[i].text, self._text[i], attempt)
            self._store.sync_if_due(rows)  # a batch takes long
            yield i, attempt
        self._store.sync()

    def _annotated(self, batch: list[int], rows: int) -> Iterator[tuple[int, StoredAttempt]]:
        """Sample the texts of a batch that are missing, annotate all, keep each and yield it."""
        kept = {i: self._store.get(self._text[i]) for i in batch}
        texts = {i: attempt for i, attempt in kept.items() if attempt is not None}
        texts.update(self._sampled([i for i in batch if i not in texts], rows))
        requests = [self._group.requests[i] for i in batch]
        annotated = self._annotate(requests, [texts[i].generation for i in batch])
        for i, generation in zip(batch, annotated, strict=True):
            attempt = StoredAttempt(generation, texts[i].tally)
            self._store.append(self._contexts[i].final, self._final[i], attempt)
            yield i, attempt
        self._store.sync()

    def _answers(self, key: AttemptKey, attempt: StoredAttempt) -> Iterator[Sampled]:
        for index in self._same[key]:
            yield Sampled(index, attempt.generation, attempt.tally)
