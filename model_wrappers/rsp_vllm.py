"""``--model rsp-vllm``: random soft prompts as prompt embeddings of vLLM."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.rsp import RandomSoftPrompts
from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM
from lm_eval_ext.models.embedding_statistics import EmbeddingStatistics


class RSPVLLM(RandomSoftPrompts, SampledVLLM):
    """Random soft prompts with vLLM: the vectors of `RandomSoftPrompts` in the same places.

    Prompts go to vLLM as prompt embeddings: tokens it looks up itself, with an attempt's vectors
    in between. What comes before the vectors is shared through its prefix cache.

    Raises
    ------
    UserError
        Where vLLM takes no prompt embeddings for the model.

    Examples
    --------
    .. code-block:: console

        lm_eval --model rsp-vllm --model_args pretrained=tiny,length=8 --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of its bases

    def __init__(self, pretrained: str = "tiny", *, length: int = 8, **rsp_arguments: Any) -> None:
        if rsp_arguments.get("enable_prompt_embeds") is False and length:
            raise UserError(
                "enable_prompt_embeds=False: --model rsp-vllm injects vectors as prompt "
                "embeddings; leave it out"
            )
        # Embeddings are then looked up outside of vLLM's compiled graph: only where needed.
        if length:
            rsp_arguments["enable_prompt_embeds"] = True
        super().__init__(pretrained, length=length, **rsp_arguments)

    def _embedding_statistics(self) -> EmbeddingStatistics:
        from lm_eval_ext.vllm_engine.embeddings import worker_embedding_statistics

        return worker_embedding_statistics(self.engine)

    def _embed(self, token_ids: list[int]) -> torch.Tensor:
        from lm_eval_ext.vllm_engine.embeddings import worker_embeddings

        return worker_embeddings(self.engine, token_ids)
