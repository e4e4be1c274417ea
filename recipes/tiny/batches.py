"""The endless, seeded, resumable stream of training batches."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from documents import Document, document

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

# Documents are written in blocks; within a block those of similar length share a batch, so that
# little is padded and no document ever attends to another.
BLOCK_DOCUMENTS = 1024
PAD_MULTIPLE = 16


class Batch(NamedTuple):
    """One training step's documents, padded on the right."""

    ids: torch.Tensor  # (documents, length), int64
    weights: torch.Tensor  # (documents, length), float32, 0 on padding
    tokens: int  # without padding


def collate(documents: list[Document], pad_id: int) -> Batch:
    """Pad documents to one length, a multiple of `PAD_MULTIPLE`."""
    import torch

    longest = max(len(doc.ids) for doc in documents)
    length = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
    ids = torch.full((len(documents), length), pad_id)
    weights = torch.zeros(len(documents), length)
    for row, doc in enumerate(documents):
        ids[row, : len(doc.ids)] = torch.tensor(doc.ids)
        weights[row, : len(doc.ids)] = torch.tensor(doc.weights)
    return Batch(ids, weights, sum(len(doc.ids) for doc in documents))


class BatchStream:
    """Iterate over batches; ``state`` names the next one and can be saved and set.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Turns the documents into ids.
    seed : int
        Fixes every document and the order of the batches.
    batch_tokens : int
        Largest number of positions of a batch, padding included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, batch_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.batch_tokens = batch_tokens
        self.state: tuple[int, ...] = (0, 0)  # block, batch within the block
        self._block: list[list[Document]] = []
        self._loaded = -1

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        block, index = self.state
        if self._loaded != block:
            self._block, self._loaded = self._write_block(block), block
        batch = self._block[index]
        self.state = (block, index + 1) if index + 1 < len(self._block) else (block + 1, 0)
        return collate(batch, self.tokenizer.pad_token_id)

    def _write_block(self, block: int) -> list[list[Document]]:
        rng = random.Random(f"{self.seed}:block:{block}")
        documents = [document(rng, self.tokenizer) for _ in range(BLOCK_DOCUMENTS)]
        documents.sort(key=lambda doc: len(doc.ids), reverse=True)
        batches: list[list[Document]] = []
        while documents:
            length = -(-len(documents[0].ids) // PAD_MULTIPLE) * PAD_MULTIPLE
            count = max(1, self.batch_tokens // length)
            batches.append(documents[:count])
            documents = documents[count:]
        rng.shuffle(batches)
        return batches
