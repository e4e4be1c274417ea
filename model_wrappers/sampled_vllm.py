"""``--model sampled-vllm``: the attempts of ``sampled``, decoded by vLLM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lm_eval.api.model import TemplateLM

from lm_eval_ext.checks import whole_number
from lm_eval_ext.engine.attempt_texts import budget_of_thoughts, read_tag, read_thinking_budget
from lm_eval_ext.engine.epilogue import Epilogue
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.calibrator import read_attempt_calibrator
from lm_eval_ext.methods.self_evaluation.conclusion import Conclusion, read_conclusion
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.model_loading import MODEL_NAMES, model_location
from lm_eval_ext.models.shipped import SHIPPED, model_path
from lm_eval_ext.store.argument_effects import SAMPLED_ARGUMENTS
from lm_eval_ext.store.attempt_store import AttemptStore
from lm_eval_ext.store.interruption import announce_at_failure
from lm_eval_ext.vllm_engine.lm_eval_class import VLLM
from lm_eval_ext.vllm_engine.worker_fingerprint import worker_fingerprints

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
    from lm_eval_ext.vllm_engine.replicas import Replicas


class _LoadedByVLLM(TemplateLM):
    """Keeps lm-eval's ``VLLM`` from loading the model a second time, as its next base would."""

    def __init__(self) -> None:
        TemplateLM.__init__(self)


class SampledVLLM(VLLM, _LoadedByVLLM, SampledLM):
    """`SampledLM` with vLLM in place of the engine.

    The model, its tokenizer and loglikelihood requests are those of lm-eval's ``--model vllm``, and
    so are the arguments; attempts, their random streams, their annotations and what wrappers add
    are those of `SampledLM`. The token at each place of an attempt is chosen inside vLLM's worker,
    by the uniform number that ``sampled`` would use there, so both give the same texts as far as
    their logits agree.

    Parameters
    ----------
    pretrained
        Hub id or folder of a causal model, or the name of a shipped or fetched one. Shipped models
        are widened on the way, as vLLM's CPU build has no attention for their small heads; see
        `lm_eval_ext.vllm_engine.widening`.
    seed
        As for `SampledLM`.
    batch_size
        Only loglikelihood requests are divided by it; attempts are batched by vLLM, see
        ``max_num_seqs``.
    self_eval, self_eval_prompt, self_eval_labels, calibration_temperature, box_completion,
    calibrator, thinking_budget, think_start_token, store
        As for `SampledLM`.
    **vllm_arguments
        Whatever ``--model vllm`` takes: ``dtype``, ``max_model_len``, ``gpu_memory_utilization``,
        ``tensor_parallel_size``, ``pipeline_parallel_size``, ``distributed_executor_backend``,
        ``enable_prefix_caching``, ``max_num_seqs``, ``lora_local_path`` and so on.

    Raises
    ------
    UserError
        Where vLLM is missing, refuses the model or an argument, or cannot sample attempts with it.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sampled-vllm --model_args pretrained=tiny --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = SAMPLED_ARGUMENTS
    # lm-eval's class for Hugging Face models is among the bases: its properties must not stand
    # before what `VLLM` sets, and its code asks for the others.
    model: Any = None
    batch_size: Any = "auto"
    # Rows that finish make room, on a CPU too: a store must not take batches for whole.
    device: Any = SimpleNamespace(type="vllm")
    backend = "causal"
    truncation = False
    mixed_precision_dtype = None

    def __init__(
        self,
        pretrained: str = "tiny",
        *,
        seed: int | None = None,
        batch_size: int | str = "auto",
        self_eval: bool = False,
        self_eval_prompt: str | None = None,
        self_eval_labels: str | Sequence[str] | None = None,
        calibration_temperature: float | str | Path | None = None,
        box_completion: bool = False,
        calibrator: str | Path | None = None,
        thinking_budget: int | None = None,
        think_start_token: str | int | None = None,
        store: str | Path | None = None,
        **vllm_arguments: Any,
    ) -> None:
        self.seed = whole_number("seed", torch.initial_seed() if seed is None else seed)
        if not isinstance(pretrained, str):
            raise UserError(
                f"pretrained={type(pretrained).__name__}: vLLM loads models itself; give a Hub "
                "id or a folder"
            )
        conclusion = read_conclusion(
            self_eval,
            prompt=self_eval_prompt,
            labels=self_eval_labels,
            temperature=calibration_temperature,
            box_completion=box_completion,
        )
        self._calibrator = read_attempt_calibrator(calibrator)
        self.thinking_budget = read_thinking_budget(thinking_budget)
        self.think_start_token = read_tag(think_start_token)
        self.store = None if store is None else AttemptStore(store)
        if self.store is not None and vllm_arguments.get("lora_local_path"):
            raise UserError(
                f"store={store}: attempts are kept under what the model's weights are, which an "
                "adapter that vLLM applies does not change; merge it into the model"
            )
        self.pretrained = pretrained
        self._load(pretrained, {**vllm_arguments, "batch_size": batch_size})
        self.engine = self._start_engine()
        self.shared_prefix_misfit = None
        if self.store is not None:
            self.fingerprints = worker_fingerprints(self.engine, self.tokenizer)
            announce_at_failure(self.store)
        self._timing = Timing()
        self._settings_used: list[dict[str, Any]] = []
        self._conclusion = Conclusion(conclusion, self.tokenizer, max_length=int(self.max_length))

    def _load(self, pretrained: str, arguments: dict[str, Any]) -> None:
        """Make the vLLM engine, and answer what it refuses in one line."""
        from lm_eval_ext.vllm_engine.loading import (
            check_head_size,
            refusal,
            with_attempt_sampler,
        )

        arguments = with_attempt_sampler(arguments)
        location = model_location(pretrained)
        if pretrained in MODEL_NAMES:
            # vLLM would take half precision for models in float32.
            arguments.setdefault("dtype", "float32")
        if pretrained in SHIPPED:
            location = self._widened(pretrained)
        named = {"revision": arguments.get("revision")}
        if arguments.get("trust_remote_code"):
            named["trust_remote_code"] = True
        try:
            check_head_size(location, **named)
            # Its own seed must fit into 32 bits; nothing of ours is drawn from it.
            VLLM.__init__(self, location, seed=self.seed % 2**32, **arguments)
        except UserError:
            raise
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise refusal(pretrained, error) from error

    def _start_engine(self) -> EngineLoop | Replicas:
        from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
        from lm_eval_ext.vllm_engine.loading import generation_defaults
        from lm_eval_ext.vllm_engine.replicas import Replicas

        engine: EngineLoop | Replicas
        if self.data_parallel_size > 1:
            self.model = SimpleNamespace()  # each replica has its own
            engine = Replicas(self.data_parallel_size, self.model_args, self.lora_request)
        else:
            engine = EngineLoop(self.model, self.lora_request)
        # Where transformers' models have them.
        self.model.generation_config = generation_defaults(
            self.model_args["model"], self._config, self.model_args["revision"]
        )
        return engine

    def _widened(self, name: str) -> str:
        from lm_eval_ext.vllm_engine.widening import write_widened

        self._folder = tempfile.TemporaryDirectory(prefix="lm-eval-ext-")
        write_widened(model_path(name), self._folder.name)
        return self._folder.name

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Generation]:
        """Answer lm-eval's generation requests, in their order; see `SampledLM`."""
        return SampledLM.generate_until(self, requests, disable_tqdm)

    def _decode(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        stop: StopStrings,
        epilogue: Epilogue | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        from lm_eval_ext.vllm_engine.decoder import Ending, VLLMDecoder

        decoder = VLLMDecoder(
            self.engine,
            settings=settings,
            ending=Ending(
                stop, self._eos_token_ids(), budget_of_thoughts(self, settings.thinking_budget)
            ),
            epilogue=epilogue,
            timing=self._timing,
        )
        return decoder.run(requests)

    def _max_rows(self, *_: Any) -> int:
        """Return how many attempts are under way at once."""
        return self.engine.most_in_flight

    def _about_vllm(self) -> dict[str, str]:
        import vllm

        return {"version": str(vllm.__version__), "dtype": self.engine.facts()["dtype"]}

    def _model_generate(self, *arguments: Any, **named: Any) -> Any:
        """Answer loglikelihood requests as lm-eval does."""
        from lm_eval_ext.vllm_engine.replicas import Replicas

        if isinstance(self.engine, Replicas):
            self.engine.close()  # lm-eval starts replicas of its own, where ours are
        return super()._model_generate(*arguments, **named)

    def get_model_info(self) -> dict[str, Any]:
        """Return what was used, for the ``config`` of lm-eval's results."""
        return {"lm_eval_ext": {**self.run_record(), "timing": self._timing.record()}}

    def run_record(self) -> dict[str, Any]:
        """Return what a reader needs to repeat the run; see `SampledLM`."""
        return {**super().run_record(), "decoder": "vllm", "vllm": self._about_vllm()}
