"""Rows of one length, packed with documents that each start with BOS.

Unlike the batches of `batches`, a document may attend to those before it in its
row, every token outside a mess carries the same loss, and a share of the documents is real text:
questions and solutions of GSM8K's training split.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batches import Batch, collate
from documents import MESS_WEIGHT, Document, document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CALCULATION = re.compile(r"<<.*?>>")


def natural_texts() -> list[str]:
    """Return GSM8K's training questions, each followed by its solution without calculator notes.

    Raises
    ------
    UserError
        If the data are neither in the folder that ``LM_EVAL_EXT_DATA`` names nor on the Hub.
    """
    from lm_eval_ext.data.datasets import load_split

    records = load_split("gsm8k", "train")
    return [f"{r['question']}\n{_CALCULATION.sub('', r['answer'])}" for r in records]


class PackedStream:
    """Iterate over batches of full rows; ``state`` names the next one and can be saved and set.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Turns the documents into ids.
    seed : int
        Fixes every document.
    texts : sequence of str
        Natural documents.
    natural_share : float
        Share of the documents that is drawn from ``texts``; the others are generated.
    rows, row_tokens : int
        Shape of a batch. A row starts with a new document; its last one is cut off.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        texts: Sequence[str],
        *,
        natural_share: float,
        rows: int,
        row_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.texts = texts
        self.natural_share = natural_share
        self.rows = rows
        self.row_tokens = row_tokens
        self.state: tuple[int, ...] = (0,)

    def __iter__(self) -> PackedStream:
        return self

    def __next__(self) -> Batch:
        rng = random.Random(f"{self.seed}:packed:{self.state[0]}")
        self.state = (self.state[0] + 1,)
        rows = [self._row(rng) for _ in range(self.rows)]
        return collate(rows, self.tokenizer.pad_token_id)

    def _row(self, rng: random.Random) -> Document:
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < self.row_tokens:
            doc = self._document(rng)
            ids += doc.ids
            # BOS and mess have no weight and keep none: neither follows from what is before it.
            weights += [float(weight > MESS_WEIGHT) for weight in doc.weights]
        return Document(ids[: self.row_tokens], weights[: self.row_tokens])

    def _document(self, rng: random.Random) -> Document:
        if rng.random() >= self.natural_share:
            return document(rng, self.tokenizer)
        ids = [*self.tokenizer.encode(rng.choice(self.texts)), self.tokenizer.eos_token_id]
        return Document(ids, [0.0] + [1.0] * (len(ids) - 1))
