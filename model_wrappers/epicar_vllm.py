"""``--model epicar-vllm``: attempts from vLLM, which it judges itself."""

from __future__ import annotations

from typing import ClassVar

from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM


class EpiCaRVLLM(EpiCaRLM, SampledVLLM):
    r"""`EpiCaRLM` with vLLM in place of the engine.

    Behind each attempt another request holds its prompt, its text and the question; the logits of
    both labels are read where vLLM would choose the next token, before anything changes them. What
    stands before the question is in vLLM's prefix cache.

    Parameters
    ----------
    pretrained
        As for `SampledVLLM`.
    self_eval
        False is `SampledVLLM`.
    **sampled_arguments
        As for `SampledVLLM`, among them ``self_eval_prompt``, ``self_eval_labels``,
        ``calibration_temperature`` and ``box_completion``.

    Examples
    --------
    .. code-block:: console

        lm_eval --model epicar-vllm --model_args pretrained=tiny \
            --tasks tiny_gsm8k_calib,tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}
