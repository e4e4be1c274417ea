"""What vLLM's workers answer beside generating: statistics, and questions about embeddings."""

from __future__ import annotations

from typing import Any, cast

import torch

from lm_eval_ext.models.embedding_statistics import embedding_statistics
from lm_eval_ext.models.fingerprint import weights_fingerprint
from lm_eval_ext.vllm_engine.attempt_sampler import AttemptChoices


class AttemptWorker:
    """Methods for vLLM's workers, which take this class among their bases (worker extension).

    With several workers each is asked; those that hold no answer return an empty one.
    """

    model_runner: Any

    def lm_eval_ext_take(self, keys: list[str]) -> dict[str, bytes]:
        """Return what `AttemptSampler.take` does."""
        sampler = self._lm_eval_ext_sampler()
        return {} if sampler is None else sampler.take(keys)

    def lm_eval_ext_forget(self) -> None:
        """Do what `AttemptSampler.forget` does."""
        sampler = self._lm_eval_ext_sampler()
        if sampler is not None:
            sampler.forget()

    def lm_eval_ext_embeddings(self, token_ids: list[int]) -> bytes:
        """Return the embeddings of tokens as the first layer reads them, float32."""
        embeddings = self._lm_eval_ext_table(len(token_ids))
        if embeddings is None:
            return b""
        ids = torch.tensor(token_ids, device=embeddings.device)
        return embeddings(ids).detach().float().cpu().numpy().tobytes()

    def lm_eval_ext_moments(self, n_rows: int) -> list[Any]:
        """Return mean, standard deviation, and both by dimension as float64, of all embeddings."""
        table = self._lm_eval_ext_table(n_rows)
        if table is None:
            return []
        found = embedding_statistics(cast(Any, table))
        by_dim = [values.numpy().tobytes() for values in (found.mean_per_dim, found.std_per_dim)]
        return [found.mean, found.std, *by_dim]

    def lm_eval_ext_fingerprint(self) -> str:
        """Return the fingerprint of the weights this worker holds."""
        return weights_fingerprint(self.model_runner.get_model().state_dict().items())

    def _lm_eval_ext_sampler(self) -> AttemptChoices | None:
        if hasattr(self.model_runner, "input_batch"):
            processors = self.model_runner.input_batch.logitsprocs.all
        else:  # vLLM's second runner; only the last stage of a pipeline has a sampler
            processors = getattr(self.model_runner.sampler, "logits_processors", ())
        return next((p for p in processors if isinstance(p, AttemptChoices)), None)

    def _lm_eval_ext_table(self, n_rows: int) -> _Table | None:
        from vllm.distributed import get_pp_group

        # Later stages of a pipeline have no embeddings.
        return _Table(self.model_runner, n_rows) if get_pp_group().is_first_rank else None


class _Table:
    """A model's embeddings, with the parts of a transformers model that statistics ask for."""

    def __init__(self, model_runner: Any, n_rows: int) -> None:
        self._embed = model_runner.get_model().embed_input_ids
        self.device = model_runner.device
        self.num_embeddings = n_rows

    def get_input_embeddings(self) -> _Table:
        return self

    def __call__(self, token_ids: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self._embed(token_ids))
