"""``--model epicar``: a model that says how likely its answers are to be correct."""

from __future__ import annotations

from typing import Any, ClassVar

from lm_eval_ext.model_wrappers.sampled import SampledLM


class EpiCaRLM(SampledLM):
    r"""Sample attempts, and let the model judge each: ``sampled`` with ``self_eval=true``.

    Based on "EpiCaR: Knowing What You Don't Know Matters for Better Reasoning in LLMs",
    arXiv:2601.06786. After its own solution the model reads a question about it, and the logits of
    the two labels give the probability that the answer is correct, ``self_eval``:
    sigmoid(z_A - z_B). Made for models that were trained for it, it works for any; on a model that
    was not, this is P(True) (Kadavath et al. 2022, arXiv:2207.05221) for one attempt. Texts are
    those of `SampledLM`.

    Differs from the paper: responses are judged as their text, see
    `lm_eval_ext.methods.self_evaluation.layout`, and completing boxes is off unless asked for.

    Parameters
    ----------
    self_eval
        False is `SampledLM`.
    **sampled_arguments
        As for `SampledLM`, ``self_eval_prompt``, ``self_eval_labels``,
        ``calibration_temperature`` and ``box_completion`` among them.

    Examples
    --------
    .. code-block:: console

        lm_eval --model epicar --model_args pretrained=tiny \
            --tasks tiny_gsm8k_calib,tiny_gsm8k_passn --batch_size auto
    """

    argument_effects: ClassVar = {}  # those of `AttemptSampling`, with another default

    def __init__(
        self, pretrained: Any = "tiny", *, self_eval: bool = True, **sampled_arguments: Any
    ) -> None:
        super().__init__(pretrained, self_eval=self_eval, **sampled_arguments)
