"""The job of DAPO training: model, questions, trainer, checkpoints and the exported result."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, ProgressCallback
from trl import GRPOConfig

from lm_eval_ext.models.embedding_statistics import embedding_statistics
from lm_eval_ext.models.model_loading import model_location, readable_load_errors
from lm_eval_ext.training.dapo.checkpoints import (
    LOG,
    STATE,
    CompactProgress,
    SaveState,
    latest_checkpoint,
)
from lm_eval_ext.training.dapo.configuration import (
    freeze,
    grpo_config,
    peft_config,
    process_state,
    without_renaming_warnings,
)
from lm_eval_ext.training.dapo.early_checks import (
    check_adapted_modules,
    check_mixed_precision,
    check_optimizer,
    check_positions,
    check_reports,
)
from lm_eval_ext.training.dapo.question_order import QuestionOrder
from lm_eval_ext.training.dapo.rollouts import RolloutSettings
from lm_eval_ext.training.dapo.settings import DapoJob, DapoRuntime
from lm_eval_ext.training.dapo.trainer import DapoSettings, DAPOTrainer
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary, virtual_ids_embedded
from lm_eval_ext.training.drafts.shards import prompt_hash
from lm_eval_ext.training.prompts import Renderer, load_problems
from lm_eval_ext.training.run import RunFolder, flat, last_step, write_json

logger = logging.getLogger(__name__)

MANIFEST = "dapo.json"
SOFT_PROMPT = "soft_prompt.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"
ADAPTER = "adapter"


def train_dapo(job: DapoJob, output: Path, runtime: DapoRuntime | None = None) -> None:
    """Run or continue a job.

    Parameters
    ----------
    output
        Folder of the run; ``model`` in it loads with transformers when it is done.

    Raises
    ------
    UserError
        For settings that are wrong, do not fit each other or the run in the folder, and when a
        step cannot get its groups. What is wrong from the start leaves no run in the folder.
    """
    runtime = runtime or DapoRuntime()
    job.optimization.check_batches(process_state().num_processes, runtime.checkpoint_steps)
    check_optimizer(job.optimization)
    check_mixed_precision(job.optimization.bf16)
    check_reports(runtime.report_to)
    renderer = Renderer(job.prompts, job.pretrained, trust_remote_code=runtime.trust_remote_code)
    problems = load_problems(
        job.problems, limit=job.num_problems, grader=job.grader, renderer=renderer
    )
    job = replace(job, rollouts=job.rollouts.completed(problems))
    # A file of prompts may have changed under its name.
    read = json.dumps([[problem.prompt, problem.record] for problem in problems])
    kept = {**flat(job, DapoJob), "prompts_sha256": prompt_hash(read)}
    folder = RunFolder(output, kept, manifest=MANIFEST)
    if folder.begun and folder.finished:
        logger.info("the run in %s is finished", output)
        return
    with without_renaming_warnings():
        run = _Run(job, folder, runtime)
        # What is wrong with the settings is known after this.
        trainer = run.trainer(QuestionOrder(problems, job.seed))
        is_main = trainer.accelerator.is_main_process
        with folder.work(run.resumes_from, is_main=is_main):
            trainer.accelerator.wait_for_everyone()
            if is_main and run.vocabulary is not None:
                write_json(output / SOFT_PROMPT, asdict(run.vocabulary))
            # Around the embeddings as they are trained, adapters included.
            with virtual_ids_embedded(run.model, run.vocabulary):
                run.train(trainer)
            states = trainer.gather_state()
            if is_main:
                run.export(trainer, states)
            trainer.accelerator.wait_for_everyone()


class _Run:
    """The stages of a job in its folder."""

    def __init__(self, job: DapoJob, folder: RunFolder, runtime: DapoRuntime) -> None:
        self.job, self.folder, self.output, self.runtime = job, folder, folder.path, runtime
        name = model_location(job.pretrained)
        options = {"trust_remote_code": runtime.trust_remote_code}
        with readable_load_errors(job.pretrained, "train dapo", argument="pretrained"):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                name, dtype=job.dtype, **options
            )
            self.tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **options)
        # The trainer turns it off.
        self._use_cache = getattr(self.model.config, "use_cache", None)
        freeze(self.model, job.optimization.trainable)
        if job.optimization.lora_rank:
            check_adapted_modules(self.model, job.optimization.lora_modules)
        self.vocabulary = self._frozen_vocabulary()

    def _frozen_vocabulary(self) -> VirtualVocabulary | None:
        """Return the random vectors, their moments as they were when the run began."""
        job, path = self.job, self.output / SOFT_PROMPT
        if job.soft_prompts.rsp_length == 0:
            return None
        if self.folder.begun and path.exists():
            frozen = json.loads(path.read_text())
        else:
            statistics = embedding_statistics(self.model)
            frozen = {
                "first": statistics.n_rows,
                "length": job.soft_prompts.rsp_length,
                "hidden": len(statistics.mean_per_dim),
                "mean": statistics.mean,
                "std": job.soft_prompts.rsp_scale * statistics.std,
                "seed": job.seed,
            }
        # Processes on different machines may differ in the last digit.
        (frozen,) = broadcast_object_list([frozen])
        return VirtualVocabulary(**frozen)

    def resumes_from(self) -> str:
        """Return what the same command does next."""
        return f"step {last_step(self.output / CHECKPOINTS, STATE) or 0}"

    def trainer(self, order: QuestionOrder) -> DAPOTrainer:
        """Return the trainer of the run, at its beginning."""
        job, runtime = self.job, self.runtime
        asked, vectors = job.rollouts, job.soft_prompts
        assert asked.max_new_tokens is not None
        assert asked.stop is not None
        n_questions = job.optimization.n_questions
        self._save_state = SaveState(self.frozen())
        rollouts = RolloutSettings(
            asked.temperature,
            asked.max_new_tokens,
            asked.stop,
            vectors.rsp_position,
            runtime.generation_batch_size,
        )
        positions = range(n_questions)
        trainer = DAPOTrainer(
            settings=DapoSettings(
                rollouts,
                asked.sampler,
                asked.dynamic_sampling,
                runtime.max_refills,
                asked.overlong_buffer,
                vectors.rsp_update,
                job.calibrate,
            ),
            questions=order,
            refill_from=n_questions,
            vocabulary=self.vocabulary,
            model=self.model,
            args=self._configuration(),
            train_dataset=Dataset.from_dict(
                {"prompt": [order[i].prompt for i in positions], "position": positions}
            ),
            processing_class=self.tokenizer,
            peft_config=peft_config(job.optimization),
            callbacks=[self._save_state],
        )
        check_positions(
            n_positions=int(trainer.policy.max_length),
            max_new_tokens=asked.max_new_tokens,
            rsp_length=job.soft_prompts.rsp_length,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(CompactProgress(self.output / LOG))
        self._save_state.trainer = trainer
        return trainer

    def _configuration(self) -> GRPOConfig:
        job, runtime = self.job, self.runtime
        return grpo_config(
            job.optimization,
            output=str(self.output / CHECKPOINTS),
            n_processes=process_state().num_processes,
            sampling={
                "temperature": job.rollouts.temperature,
                "max_completion_length": job.rollouts.max_new_tokens,
                "seed": job.seed,
            },
            runtime={"save_steps": runtime.checkpoint_steps, "report_to": list(runtime.report_to)},
        )

    def frozen(self) -> dict[str, Any]:
        """Return what was fixed when the run began."""
        return {"soft_prompt": None if self.vocabulary is None else asdict(self.vocabulary)}

    def train(self, trainer: DAPOTrainer) -> None:
        """Train from the newest finished checkpoint to the end."""
        found = latest_checkpoint(self.output / CHECKPOINTS)
        if found is None:
            trainer.train()
            return
        checkpoint, state = found
        trainer.restore_state(state["processes"])
        logger.info("continuing from %s", checkpoint.name)
        if int(checkpoint.name.rpartition("-")[2]) >= self.job.optimization.steps:
            # Killed after its last step: where that is in the middle of a generation batch,
            # transformers would find data left and take another step.
            trainer._load_from_checkpoint(str(checkpoint))
            return
        trainer.train(resume_from_checkpoint=str(checkpoint))

    def export(self, trainer: DAPOTrainer, states: list[dict[str, Any]]) -> None:
        """Write the trained model, whole, and what made it, the states of all processes too."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._use_cache is not None:
            model.config.use_cache = self._use_cache
        if self.job.optimization.lora_rank:
            model.save_pretrained(self.output / ADAPTER)
            model = model.merge_and_unload()
        scratch = self.output / f".writing-{MODEL}"
        model.save_pretrained(scratch)
        self.tokenizer.save_pretrained(scratch)
        target = self.output / MODEL
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
        self.folder.finish(
            {
                "settings": flat(self.job, DapoJob),
                **self.frozen(),
                "groups": states,
                "log": (self.output / LOG).name,
            }
        )
        print(f"trained model in {target}")
