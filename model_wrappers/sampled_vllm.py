"""``--model sampled-vllm``: the attempts of ``sampled``, decoded by vLLM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lm_eval_ext.engine.attempt_texts import budget_of_thoughts
from lm_eval_ext.engine.follow_up import FollowUp
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling
from lm_eval_ext.models.model_loading import MODEL_NAMES, model_location
from lm_eval_ext.models.shipped import SHIPPED
from lm_eval_ext.vllm_engine.lm_eval_class import VLLM
from lm_eval_ext.vllm_engine.worker_fingerprint import worker_fingerprints

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
    from lm_eval_ext.vllm_engine.replicas import Replicas


class SampledVLLM(AttemptSampling, VLLM):
    """Sample N attempts per prompt with vLLM; loglikelihood requests as ``--model vllm``.

    The token at each position of an attempt is chosen inside vLLM's worker, by the uniform number
    that ``sampled`` would use there, so both give the same texts as far as their logits agree.

    Takes the arguments of `AttemptSampling` and those of `load`.

    Raises
    ------
    UserError
        Where vLLM is missing, refuses the model or an argument, or cannot sample attempts with it.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sampled-vllm --model_args pretrained=tiny --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of `AttemptSampling`

    def load(self, pretrained: str, **vllm_arguments: Any) -> None:
        """Make the vLLM engine, and answer what it refuses in one line.

        Parameters
        ----------
        pretrained
            Hub id or folder of a causal model, or the name of a shipped or fetched one. Shipped
            models are widened on the way, as vLLM's CPU build has no attention for their small
            heads; see `lm_eval_ext.vllm_engine.widening`.
        **vllm_arguments
            Whatever ``--model vllm`` takes: ``dtype``, ``max_model_len``,
            ``gpu_memory_utilization``, ``tensor_parallel_size``, ``pipeline_parallel_size``,
            ``distributed_executor_backend``, ``enable_prefix_caching``, ``max_num_seqs``,
            ``lora_local_path`` and so on. ``batch_size`` is for loglikelihood requests alone.
        """
        from lm_eval_ext.vllm_engine.loading import check_head_size, refusal, with_attempt_sampler

        if not isinstance(pretrained, str):
            raise UserError(
                f"pretrained={type(pretrained).__name__}: vLLM loads models itself; give a Hub "
                "id or a folder"
            )
        if self.store is not None and vllm_arguments.get("lora_local_path"):
            raise UserError(
                f"store={self.store.folder}: attempts are kept under what the model's weights are, "
                "which an adapter that vLLM applies does not change; merge it into the model"
            )
        arguments = with_attempt_sampler(vllm_arguments)
        self.pretrained = pretrained
        location = self.checkpoint(model_location(pretrained))
        if pretrained in MODEL_NAMES:
            # vLLM would take half precision for models in float32.
            arguments.setdefault("dtype", "float32")
        if pretrained in SHIPPED:
            location = self._widened(location)
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
        self.engine = self._start_engine()

    @property
    def generation_defaults(self) -> GenerationConfig | None:
        """Those of the checkpoint."""
        return self._generation_defaults

    def _start_engine(self) -> EngineLoop | Replicas:
        from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
        from lm_eval_ext.vllm_engine.loading import generation_defaults
        from lm_eval_ext.vllm_engine.replicas import Replicas

        self._generation_defaults = generation_defaults(
            self.model_args["model"], self._config, self.model_args["revision"]
        )
        if self.data_parallel_size > 1:
            return Replicas(self.data_parallel_size, self.model_args, self.lora_request)
        return EngineLoop(self.model, self.lora_request)

    def checkpoint(self, location: str) -> str:
        """Return what vLLM is to load; methods that change the model override this."""
        return location

    def _widened(self, location: str) -> str:
        from lm_eval_ext.vllm_engine.widening import write_widened

        self._folder = tempfile.TemporaryDirectory(prefix="lm-eval-ext-")
        write_widened(location, self._folder.name)
        return self._folder.name

    def model_fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the model in vLLM's workers and of its tokenizer."""
        return worker_fingerprints(self.engine, self.tokenizer)

    def decode(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        *,
        stop: StopStrings,
        follow_up: FollowUp | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Decode attempts with vLLM."""
        from lm_eval_ext.vllm_engine.decoder import Ending, VLLMDecoder

        decoder = VLLMDecoder(
            self.engine,
            settings=settings,
            ending=Ending(
                stop, self.eos_token_ids, budget_of_thoughts(self, settings.thinking_budget)
            ),
            follow_up=follow_up,
            timing=self._timing,
        )
        return decoder.run(requests)

    def max_rows(self, requests: Sequence[AttemptRequest], settings: SamplingSettings) -> int:
        """Return how many attempts are under way at once, in vLLM and waiting for it."""
        return self.engine.max_in_flight

    def _model_generate(self, *arguments: Any, **named: Any) -> Any:
        """Answer loglikelihood requests as lm-eval does."""
        from lm_eval_ext.vllm_engine.replicas import Replicas

        if isinstance(self.engine, Replicas):
            self.engine.close()  # lm-eval starts replicas of its own, where ours are
        return super()._model_generate(*arguments, **named)

    def run_record(self) -> dict[str, Any]:
        """Add vLLM's release and precision to the record of the run."""
        import vllm

        from lm_eval_ext.vllm_engine.loading import model_runner

        about = {
            "version": str(vllm.__version__),
            "dtype": self.engine.facts()["dtype"],
            "model_runner": model_runner(self.model_args),
        }
        return {**super().run_record(), "decoder": "vllm", "vllm": about}

    def common_settings(self) -> dict[str, Any]:
        """Add what the keys of vLLM's attempts have held from the first release on."""
        ours = {"decoder": "shared_prefix", "mixed_precision": "None"}
        return {**super().common_settings(), **ours}
