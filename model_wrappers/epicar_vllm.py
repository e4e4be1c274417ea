"""``--model epicar-vllm``: attempts from vLLM, which it judges itself."""

from __future__ import annotations

from typing import Any, ClassVar

from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM


class EpiCaRVLLM(SampledVLLM):
    """`lm_eval_ext.model_wrappers.epicar.EpiCaRLM` with vLLM in place of the engine.

    After each attempt another request holds its prompt, its text and the question; the logits of
    both labels are read where vLLM would choose the next token, before anything changes them. What
    comes before the question is in vLLM's prefix cache.

    Examples
    --------
    .. code-block:: console

        lm_eval --model epicar-vllm --model_args pretrained=tiny \
            --tasks tiny_gsm8k_calib,tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of `AttemptSampling`, with another default

    def __init__(
        self, pretrained: str = "tiny", *, self_eval: bool = True, **sampled_arguments: Any
    ) -> None:
        super().__init__(pretrained, self_eval=self_eval, **sampled_arguments)
