"""The job of training drafts: responses, split, distillation, export; each stage resumable."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator, InitProcessGroupKwargs

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training import manifest
from lm_eval_ext.training.drafts.distillation import Teacher, TeacherSettings, step_seed
from lm_eval_ext.training.drafts.draft_training import (
    DraftRun,
    OptimizationSettings,
    read_checkpoint,
)
from lm_eval_ext.training.drafts.initialization import build_draft
from lm_eval_ext.training.drafts.shards import Split, prompt_hash, split_prompts
from lm_eval_ext.training.drafts.target_responses import (
    Example,
    ResponseSettings,
    examples_of,
    generate_responses,
    read_responses,
)
from lm_eval_ext.training.prompts import load_prompts
from lm_eval_ext.training.saved_model import export_draft, loss_curve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DraftJob:
    """Everything that decides the drafts of a run.

    Parameters
    ----------
    target, draft_init, num_drafts, prompts, num_prompts, split, seed, dtype
        As the command's options of these names.
    stop
        Stop strings, or None for those of the prompts' source.
    responses, teacher, optimization
        Settings of the three stages.
    """

    target: str
    draft_init: str
    num_drafts: int
    prompts: str
    num_prompts: int | None
    split: Split
    seed: int
    dtype: str
    stop: tuple[str, ...] | None
    responses: ResponseSettings
    teacher: TeacherSettings
    optimization: OptimizationSettings

    def flat(self) -> dict[str, Any]:
        """Return all settings by the names of their options."""
        nested = asdict(self)
        responses, teacher = nested.pop("responses"), nested.pop("teacher")
        responses["responses_per_prompt"] = responses.pop("per_prompt")
        del responses["stop"]
        teacher["teacher"], teacher["teacher_samples"] = teacher.pop("kind"), teacher.pop("samples")
        optimization = nested.pop("optimization")
        return {**nested, **responses, **teacher, **optimization}


def train_drafts(
    job: DraftJob,
    output: Path,
    *,
    checkpoint_every: int = 100,
    generation_batch_size: int | str = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Run or continue a job.

    Parameters
    ----------
    job
        What to train.
    output
        Folder of the run: ``draft-0``, ``draft-1``, ... and ``drafts.json`` when it is done.
    checkpoint_every
        Steps between checkpoints.
    generation_batch_size
        Attempts decoded at once.
    trust_remote_code
        Allow the models' own code.

    Raises
    ------
    UserError
        For settings that do not fit each other, the models, or the run in the folder.
    """
    # A process that is done waits for the slowest one, however long that takes.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(weeks=52))])
    _check_precision(accelerator)
    source = load_prompts(job.prompts, limit=job.num_prompts)
    shards = split_prompts(len(source.prompts), job.num_drafts, job.split, seed=job.seed)
    with accelerator.main_process_first():
        # A file of prompts may have changed under its name.
        read = "\0".join([*source.prompts, *source.stop])
        kept = {**job.flat(), "prompts_sha256": prompt_hash(read)}
        if manifest.keep_settings(output, kept) and accelerator.is_main_process:
            logger.info("continuing the run in %s", output)
    lm = SampledLM(
        job.target,
        seed=job.seed,
        batch_size=generation_batch_size,
        # accelerate calls the CPU of a process cpu:0, which lm-eval does not know.
        device="cpu" if accelerator.device.type == "cpu" else str(accelerator.device),
        dtype=job.dtype,
        trust_remote_code=trust_remote_code,
    )
    run = _Run(job, output, lm, accelerator, trust_remote_code)
    # Both are checked before hours of generation.
    teacher = Teacher(lm.model, job.teacher)
    run.untrained(0)
    settings = replace(job.responses, stop=source.stop if job.stop is None else job.stop)
    examples = run.respond(source.prompts, settings)
    of_draft = [[example for i in shard for example in examples[i]] for shard in shards]
    for number in range(accelerator.process_index, job.num_drafts, accelerator.num_processes):
        run.train(number, of_draft[number], teacher, checkpoint_every)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        # transformers writes weights from the first process only.
        for number in range(job.num_drafts):
            run.export(number)
        hashes = [[prompt_hash(source.prompts[i]) for i in shard] for shard in shards]
        run.write_manifest(hashes, [len(part) for part in of_draft], settings.stop)


def _check_precision(accelerator: Accelerator) -> None:
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise UserError(
            f"mixed_precision={accelerator.mixed_precision} is not supported: use bf16 or no "
            "(accelerate launch --mixed_precision bf16)"
        )


class _Run:
    """The stages of a job in its folder."""

    def __init__(
        self,
        job: DraftJob,
        output: Path,
        lm: SampledLM,
        accelerator: Accelerator,
        trust_remote_code: bool,
    ) -> None:
        self.job, self.output, self.lm = job, output, lm
        self.accelerator, self.trust_remote_code = accelerator, trust_remote_code

    def untrained(self, number: int) -> PreTrainedModel:
        """Return a draft as it is before training."""
        return build_draft(
            self.job.draft_init,
            self.lm.model,
            self.lm.tokenizer,
            seed=step_seed(self.job.seed, number, -1),
            trust_remote_code=self.trust_remote_code,
        )

    def respond(self, prompts: Sequence[str], settings: ResponseSettings) -> list[list[Example]]:
        """Return the examples of each prompt, generating those that are not there yet."""
        generate_responses(
            self.lm,
            prompts,
            settings,
            folder=self.output,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        self.accelerator.wait_for_everyone()
        return examples_of(self.lm, prompts, read_responses(self.output), settings.per_prompt)

    def train(
        self, number: int, examples: list[Example], teacher: Teacher, checkpoint_every: int
    ) -> None:
        """Train one draft, unless that is done, and leave its last checkpoint."""
        if self._is_exported(number):
            return
        training = DraftRun(
            self.untrained(number),
            teacher,
            examples,
            self.job.optimization,
            seed=self.job.seed,
            number=number,
            checkpoint=self._checkpoint(number),
            accelerator=self.accelerator,
        )
        training.train(checkpoint_every)
        training.save()

    def _checkpoint(self, number: int) -> Path:
        return self.output / "checkpoints" / f"draft-{number}.pt"

    def _report(self, number: int) -> Path:
        return self._checkpoint(number).with_suffix(".json")

    def _is_exported(self, number: int) -> bool:
        return self._report(number).exists() and (self.output / f"draft-{number}").is_dir()

    def export(self, number: int) -> None:
        """Write a trained draft and its losses, and drop its checkpoint."""
        checkpoint = self._checkpoint(number)
        if not self._is_exported(number):
            saved = read_checkpoint(checkpoint)
            model = self.untrained(number)
            model.load_state_dict(saved["model"])
            folder = self.output / f"draft-{number}"
            export_draft(model, self.lm.tokenizer, folder, target=self.lm.model)
            losses = saved["losses"]
            report = {
                "loss_first": losses[0],
                "loss_last": losses[-1],
                "loss_curve": loss_curve(losses),
                "n_parameters": sum(p.numel() for p in model.parameters()),
            }
            manifest.write_json(self._report(number), report)
        checkpoint.unlink(missing_ok=True)

    def write_manifest(
        self, hashes: list[list[str]], n_responses: list[int], stop: tuple[str, ...]
    ) -> None:
        """Write what made the drafts, last of all."""
        drafts = [f"draft-{number}" for number in range(self.job.num_drafts)]
        manifest.write_json(self.output / manifest.SHARDS, dict(zip(drafts, hashes, strict=True)))
        manifest.write_json(
            self.output / manifest.MANIFEST,
            {
                "drafts": drafts,
                "settings": {**self.job.flat(), "stop": list(stop)},
                "shards": manifest.describe_shards(hashes, n_responses),
                "losses": [
                    json.loads(self._report(number).read_text()) for number in range(len(drafts))
                ],
                "versions": manifest.versions(),
                "commit": manifest.commit(),
            },
        )
        print(f"{len(drafts)} drafts of {self.job.target} in {self.output}")
