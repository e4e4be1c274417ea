"""``--model draft-eu-vllm``: attempts from vLLM, scored by small drafts beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lm_eval_ext.model_wrappers.draft_eu import DraftUncertainty
from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM
from lm_eval_ext.models.model_loading import model_location, readable_load_errors
from lm_eval_ext.store.argument_effects import NO_EFFECT

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DraftEUVLLM(DraftUncertainty, SampledVLLM):
    """Small drafts beside vLLM: the scores of `DraftUncertainty` for the attempts of vLLM.

    The divergences need the target's whole distribution at every token, which vLLM does not hand
    out. A copy of the target in transformers therefore reads each response once after it was
    generated, with its drafts.

    Parameters
    ----------
    pretrained
        As for `SampledVLLM`.
    scoring_device
        Where that copy is: by default the last GPU that vLLM does not use, or the CPU.
    **draft_arguments
        As for `DraftUncertainty` and `SampledVLLM`; ``draft_device`` is `scoring_device` by
        default.

    Examples
    --------
    .. code-block:: console

        lm_eval --model draft-eu-vllm --model_args pretrained=tiny,drafts=tiny-drafts \
            --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {"scoring_device": NO_EFFECT}

    def __init__(
        self, pretrained: str = "tiny", *, scoring_device: str | None = None, **draft_arguments: Any
    ) -> None:
        self._scoring_device = scoring_device
        self._scoring_arguments = {
            name: draft_arguments[name]
            for name in ("revision", "trust_remote_code")
            if draft_arguments.get(name) is not None
        }
        super().__init__(pretrained, **draft_arguments)

    def scoring_model(self) -> PreTrainedModel:
        """Load the copy of the target."""
        from transformers import AutoModelForCausalLM

        with readable_load_errors(self.pretrained, type(self).__name__):
            model = AutoModelForCausalLM.from_pretrained(
                model_location(self.pretrained),
                dtype=getattr(torch, self.engine.facts()["dtype"]),
                **self._scoring_arguments,
            )
        found: PreTrainedModel = model.eval().to(self._scoring_device or self._free_device())
        return found

    def _free_device(self) -> str:
        per_replica = ("tensor_parallel_size", "pipeline_parallel_size")
        used = self.data_parallel_size
        for name in per_replica:
            used *= int(self.model_args.get(name) or 1)
        count = torch.cuda.device_count()
        return f"cuda:{count - 1}" if count > used else "cpu"

    def _further_memory(self, n_tokens: int) -> str:
        model = self._scorer.target.model
        n_bytes = self._scorer.target.n_bytes
        return f", the copy of the target {n_bytes / 1e9:.3g} GB on {model.device}"
