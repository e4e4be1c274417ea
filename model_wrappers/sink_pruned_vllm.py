"""``--model sink-pruned-vllm``: a model without its attention sinks, served by vLLM."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch

from lm_eval_ext.checks import check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM
from lm_eval_ext.model_wrappers.sink_pruned import Form, SinkPrunedLM
from lm_eval_ext.store.argument_effects import NO_EFFECT, Effect

PRUNING = (*SinkPrunedLM.argument_effects,)
"""Arguments of the pruning, those of ``--model sink-pruned``."""


class SinkPrunedVLLM(SampledVLLM):
    """`SinkPrunedLM` with vLLM: it serves a checkpoint of the pruned model.

    The model is loaded by transformers first, scored on the calibration data, pruned and written
    to a temporary folder; vLLM then loads that. Generation and loglikelihood requests, on any
    number of workers and replicas, see nothing else.

    Parameters
    ----------
    pretrained
        As for `SampledVLLM`.
    ratio
        Share of the units to remove; 0 is `SampledVLLM`, and nothing is written.
    form
        ``"zeroed"``: the weights that read removed heads are zero, which is the mask and saves no
        time; ``"structural"``: what is removed is gone, where the architecture can say so (see
        ``lm-eval-ext prune export``). Blocks are always removed.
    pruning_device
        Where the model is scored and pruned, by default a GPU where there is one; it is gone before
        vLLM starts.
    **arguments
        As for `SinkPrunedLM`, except ``mean_compensation``, for which checkpoints have no place;
        and as for `SampledVLLM`.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sink-pruned-vllm --model_args pretrained=tiny,ratio=0.25 \
            --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {
        # The fingerprint of the weights that vLLM has loaded is in the key.
        **dict.fromkeys((*PRUNING, "form"), Effect("text", "model")),
        "pruning_device": NO_EFFECT,
    }

    def __init__(
        self,
        pretrained: str = "tiny",
        *,
        ratio: float = 0.125,
        form: Form = "zeroed",
        pruning_device: str | None = None,
        **arguments: Any,
    ) -> None:
        check_choice("form", form, get_args(Form))
        if arguments.get("mean_compensation"):
            raise UserError(
                "mean_compensation=true: vLLM loads a checkpoint of the pruned model, which has no "
                "place for it; use --model sink-pruned"
            )
        self._form: Form = form
        self._pruning = {n: arguments.pop(n) for n in PRUNING if n in arguments}
        self._pruning.update(ratio=ratio, device=pruning_device)
        for name in ("revision", "trust_remote_code"):
            if arguments.get(name) is not None:
                self._pruning[name] = arguments[name]
        self._pruning_record: dict[str, Any] = {}
        super().__init__(pretrained, **arguments)

    def checkpoint(self, location: str) -> str:
        """Return a folder with the pruned model."""
        lm = SinkPrunedLM(self.pretrained, batch_size=1, **self._pruning)
        self._pruning_record = lm.run_record()["pruning"]
        if not lm.plan.removal:
            return location
        form = "structural" if lm.plan.removal.blocks else self._form
        self._pruned = tempfile.TemporaryDirectory(prefix="lm-eval-ext-")
        lm.export(Path(self._pruned.name), form)
        self._pruning_record["form"] = form
        del lm
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._pruned.name

    def run_record(self) -> dict[str, Any]:
        """Add what was removed, and why, to the record of the run."""
        return {**super().run_record(), "pruning": self._pruning_record}
