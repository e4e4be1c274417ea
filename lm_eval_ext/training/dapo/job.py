"""The job of DAPO training: model, questions, trainer, checkpoints and the exported result."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, ProgressCallback
from trl import GRPOConfig

from lm_eval_ext.checks import check_at_least, check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.rsp import Position
from lm_eval_ext.models.embedding_statistics import embedding_statistics
from lm_eval_ext.models.model_loading import model_location, readable_load_errors
from lm_eval_ext.training.dapo.checkpoints import STATE, SaveState, latest_checkpoint
from lm_eval_ext.training.dapo.configuration import (
    Optimization,
    freeze,
    grpo_config,
    peft_config,
    process_state,
    without_renaming_warnings,
)
from lm_eval_ext.training.dapo.early_checks import (
    check_adapted_modules,
    check_mixed_precision,
    check_positions,
    check_reports,
)
from lm_eval_ext.training.dapo.progress import LOG, CompactProgress
from lm_eval_ext.training.dapo.question_order import QuestionOrder
from lm_eval_ext.training.dapo.rewards import check_overlong_buffer
from lm_eval_ext.training.dapo.rollouts import RolloutSettings
from lm_eval_ext.training.dapo.trainer import DapoSettings, DAPOTrainer
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary, virtual_ids_embedded
from lm_eval_ext.training.drafts.shards import prompt_hash
from lm_eval_ext.training.prompts import Problem, load_problems
from lm_eval_ext.training.run import RunFolder, last_step, write_json

logger = logging.getLogger(__name__)

MANIFEST = "dapo.json"
SOFT_PROMPT = "soft_prompt.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"
ADAPTER = "adapter"

_DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


@dataclass(frozen=True)
class DapoJob:
    """Everything that decides the result of a run.

    Parameters
    ----------
    pretrained, problems, num_problems, seed, dtype, temperature, overlong_buffer
        As the command's options of these names.
    dynamic_sampling, sampler
        As the command's options of these names.
    rsp_length, rsp_scale, rsp_position, rsp_update
        As the command's options of these names.
    grader
        Family of the records of a file.
    stop, max_new_tokens
        None for those of the problems' source.
    optimization
        Batches, steps and rates.
    """

    pretrained: str
    problems: str
    num_problems: int | None
    grader: str | None
    seed: int
    dtype: str
    temperature: float
    max_new_tokens: int | None
    overlong_buffer: int
    dynamic_sampling: bool
    sampler: Literal["engine", "transformers"]
    rsp_length: int
    rsp_scale: float
    rsp_position: Position
    rsp_update: Literal["same", "clean"]
    stop: tuple[str, ...] | None
    optimization: Optimization

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature={self.temperature} must be positive")
        check_at_least(self, max_new_tokens=1, rsp_length=0, rsp_scale=0)
        check_choice("dtype", self.dtype, _DTYPES)
        if self.max_new_tokens is not None:
            check_overlong_buffer(self.max_new_tokens, self.overlong_buffer)

    def completed(self, problems: Sequence[Problem]) -> DapoJob:
        """Return the job with what it leaves to the source of its problems."""
        stop = dict.fromkeys(text for problem in problems for text in problem.stop)
        longest = max(problem.max_new_tokens for problem in problems)
        return replace(
            self,
            stop=tuple(stop) if self.stop is None else self.stop,
            max_new_tokens=self.max_new_tokens or longest,
        )

    def flat(self) -> dict[str, Any]:
        """Return all settings by the names of their options."""
        nested = asdict(self)
        optimization = nested.pop("optimization")
        return {**nested, **optimization}


@dataclass(frozen=True)
class Upkeep:
    """What does not change the result of a run.

    Parameters
    ----------
    checkpoint_every
        Steps between checkpoints.
    max_refills
        Most refill rounds of a step; a run that hit it may resume with a higher one.
    max_rows
        Rollouts decoded at once.
    report_to
        As in transformers: ``none``, ``tensorboard``, ``wandb``, ...
    trust_remote_code
        Allow the model's own code.
    """

    checkpoint_every: int = 20
    max_refills: int = 10
    max_rows: int | str = "auto"
    report_to: tuple[str, ...] = ("none",)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, checkpoint_every=1, max_refills=0)


def train_dapo(job: DapoJob, output: Path, upkeep: Upkeep | None = None) -> None:
    """Run or continue a job.

    Parameters
    ----------
    job
        What to train.
    output
        Folder of the run; ``model`` in it loads with transformers when it is done.
    upkeep
        What does not change the result.

    Raises
    ------
    UserError
        For settings that are wrong, do not fit each other or the run in the folder, and when a
        step cannot get its groups. What is wrong from the start leaves no run in the folder.
    """
    upkeep = upkeep or Upkeep()
    job.optimization.check(process_state().num_processes, upkeep.checkpoint_every)
    check_mixed_precision(job.optimization.bf16)
    check_reports(upkeep.report_to)
    problems = load_problems(job.problems, limit=job.num_problems, grader=job.grader)
    job = job.completed(problems)
    # A file of prompts may have changed under its name.
    read = json.dumps([[problem.prompt, problem.record] for problem in problems])
    kept = {**job.flat(), "prompts_sha256": prompt_hash(read)}
    folder = RunFolder(output, kept, manifest=MANIFEST)
    if folder.begun and folder.finished:
        logger.info("the run in %s is finished", output)
        return
    with without_renaming_warnings():
        run = _Run(job, folder, upkeep)
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

    def __init__(self, job: DapoJob, folder: RunFolder, upkeep: Upkeep) -> None:
        self.job, self.folder, self.output, self.upkeep = job, folder, folder.path, upkeep
        name = model_location(job.pretrained)
        options = {"trust_remote_code": upkeep.trust_remote_code}
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
        if job.rsp_length == 0:
            return None
        if self.folder.begun and path.exists():
            frozen = json.loads(path.read_text())
        else:
            statistics = embedding_statistics(self.model)
            frozen = {
                "first": statistics.n_rows,
                "length": job.rsp_length,
                "hidden": len(statistics.mean_per_dim),
                "mean": statistics.mean,
                "std": job.rsp_scale * statistics.std,
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
        job, upkeep = self.job, self.upkeep
        assert job.max_new_tokens is not None
        assert job.stop is not None
        n_questions = job.optimization.n_questions
        self._save_state = SaveState(self.frozen())
        rollouts = RolloutSettings(
            job.temperature, job.max_new_tokens, job.stop, job.rsp_position, upkeep.max_rows
        )
        positions = range(n_questions)
        trainer = DAPOTrainer(
            settings=DapoSettings(
                rollouts,
                job.sampler,
                job.dynamic_sampling,
                upkeep.max_refills,
                job.overlong_buffer,
                job.rsp_update,
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
            max_new_tokens=job.max_new_tokens,
            rsp_length=job.rsp_length,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(CompactProgress(self.output / LOG))
        self._save_state.trainer = trainer
        return trainer

    def _configuration(self) -> GRPOConfig:
        job, upkeep = self.job, self.upkeep
        return grpo_config(
            job.optimization,
            output=str(self.output / CHECKPOINTS),
            n_processes=process_state().num_processes,
            sampling={
                "temperature": job.temperature,
                "max_completion_length": job.max_new_tokens,
                "seed": job.seed,
            },
            upkeep={"save_steps": upkeep.checkpoint_every, "report_to": list(upkeep.report_to)},
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
                "settings": self.job.flat(),
                **self.frozen(),
                "groups": states,
                "log": (self.output / LOG).name,
            }
        )
        print(f"trained model in {target}")
