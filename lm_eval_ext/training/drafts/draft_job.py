"""The job of training drafts: responses, split, distillation, export; each stage resumable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM
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
from lm_eval_ext.training.processes import Processes, accelerated
from lm_eval_ext.training.prompts import load_prompts
from lm_eval_ext.training.run import RunFolder, write_json
from lm_eval_ext.training.saved_model import export_draft, loss_curve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

MANIFEST, SHARDS = "drafts.json", "shards.json"


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
    processes = accelerated()
    _check_precision(processes)
    source = load_prompts(job.prompts, limit=job.num_prompts)
    shards = split_prompts(len(source.prompts), job.num_drafts, job.split, seed=job.seed)
    # A file of prompts may have changed under its name.
    read = "\0".join([*source.prompts, *source.stop])
    kept = {**job.flat(), "prompts_sha256": prompt_hash(read)}
    folder = RunFolder(output, kept, manifest=MANIFEST)
    lm = SampledLM(
        job.target,
        seed=job.seed,
        batch_size=generation_batch_size,
        device=processes.device,
        dtype=job.dtype,
        trust_remote_code=trust_remote_code,
    )
    run = _Run(job, folder, lm, processes, trust_remote_code)
    # Both are checked before anything is written.
    teacher = Teacher(lm.model, job.teacher)
    run.untrained(0)
    with folder.work(run.resumes_from, is_main=processes.rank == 0):
        processes.wait()
        settings = replace(job.responses, stop=source.stop if job.stop is None else job.stop)
        examples = run.respond(source.prompts, settings)
        of_draft = [[example for i in shard for example in examples[i]] for shard in shards]
        for number in range(processes.rank, job.num_drafts, processes.n):
            run.train(number, of_draft[number], teacher, checkpoint_every)
        processes.wait()
        if processes.rank == 0:
            # transformers writes weights from the first process only.
            for number in range(job.num_drafts):
                run.export(number)
            hashes = [[prompt_hash(source.prompts[i]) for i in shard] for shard in shards]
            run.write_manifest(hashes, [len(part) for part in of_draft], settings.stop)


def _check_precision(processes: Processes) -> None:
    assert processes.accelerator is not None
    precision = processes.accelerator.mixed_precision
    if precision not in ("no", "bf16"):
        raise UserError(
            f"mixed_precision={precision} is not supported: use bf16 or no (accelerate launch "
            "--mixed_precision bf16)"
        )


class _Run:
    """The stages of a job in its folder."""

    def __init__(
        self,
        job: DraftJob,
        folder: RunFolder,
        lm: SampledLM,
        processes: Processes,
        trust_remote_code: bool,
    ) -> None:
        self.job, self.folder, self.output, self.lm = job, folder, folder.path, lm
        self.processes, self.trust_remote_code = processes, trust_remote_code

    def resumes_from(self) -> str:
        """Return what the same command does next."""
        for number in range(self.job.num_drafts):
            if not self._is_exported(number):
                if self._checkpoint(number).exists():
                    step = len(read_checkpoint(self._checkpoint(number))["losses"])
                    return f"draft {number}, step {step}"
                if number:
                    return f"draft {number}, step 0"
                return f"the target's responses ({len(read_responses(self.output))} are there)"
        return "the manifest"

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
            rank=self.processes.rank,
            world_size=self.processes.n,
        )
        self.processes.wait()
        return examples_of(self.lm, prompts, read_responses(self.output), settings.per_prompt)

    def train(
        self, number: int, examples: list[Example], teacher: Teacher, checkpoint_every: int
    ) -> None:
        """Train one draft, unless that is done, and leave its last checkpoint."""
        if self._is_exported(number):
            return
        assert self.processes.accelerator is not None
        training = DraftRun(
            self.untrained(number),
            teacher,
            examples,
            self.job.optimization,
            seed=self.job.seed,
            number=number,
            checkpoint=self._checkpoint(number),
            accelerator=self.processes.accelerator,
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
            write_json(self._report(number), report)
        checkpoint.unlink(missing_ok=True)

    def write_manifest(
        self, hashes: list[list[str]], n_responses: list[int], stop: tuple[str, ...]
    ) -> None:
        """Write what made the drafts, last of all."""
        drafts = [f"draft-{number}" for number in range(self.job.num_drafts)]
        write_json(self.output / SHARDS, dict(zip(drafts, hashes, strict=True)))
        losses = [json.loads(self._report(number).read_text()) for number in range(len(drafts))]
        self.folder.finish(
            {
                "drafts": drafts,
                "settings": {**self.job.flat(), "stop": list(stop)},
                "shards": [
                    # One hash over the hashes, which may be a hundred thousand.
                    {
                        "n_prompts": len(shard),
                        "n_responses": count,
                        "prompts_sha256": hashlib.sha256("\n".join(shard).encode()).hexdigest(),
                    }
                    for shard, count in zip(hashes, n_responses, strict=True)
                ],
                "losses": losses,
            }
        )
        print(f"{len(drafts)} drafts of {self.job.target} in {self.output}")
