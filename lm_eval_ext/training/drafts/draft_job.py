"""The job of training drafts: responses, split, distillation, export; each stage resumable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.drafts.distillation import Teacher, step_seed
from lm_eval_ext.training.drafts.draft_training import DraftRun, read_checkpoint
from lm_eval_ext.training.drafts.initialization import build_draft
from lm_eval_ext.training.drafts.settings import DraftJob, ResponseSettings
from lm_eval_ext.training.drafts.shards import prompt_hash, split_prompts
from lm_eval_ext.training.drafts.target_responses import (
    Example,
    examples_of,
    generate_responses,
    read_responses,
)
from lm_eval_ext.training.options import RuntimeOptions
from lm_eval_ext.training.processes import Processes, accelerated
from lm_eval_ext.training.prompts import Renderer, load_problems, stop_strings
from lm_eval_ext.training.run import RunFolder, flat, write_json
from lm_eval_ext.training.saved_model import export_draft, loss_curve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

MANIFEST, SHARDS = "drafts.json", "shards.json"


def train_drafts(
    job: DraftJob,
    output: Path,
    runtime: RuntimeOptions | None = None,
) -> None:
    """Run or continue a job.

    Parameters
    ----------
    output
        Folder of the run: ``draft-0``, ``draft-1``, ... and ``drafts.json`` when it is done.

    Raises
    ------
    UserError
        For settings that do not fit each other, the models, or the run in the folder.
    """
    processes = accelerated()
    _check_precision(processes)
    runtime = runtime or RuntimeOptions()
    allow: dict[str, Any] = {"trust_remote_code": runtime.trust_remote_code}
    problems = load_problems(
        job.problems,
        limit=job.num_problems,
        graded=False,
        renderer=Renderer(job.prompts, job.pretrained, **allow),
    )
    prompts, stop = [problem.prompt for problem in problems], stop_strings(problems)
    shards = split_prompts(len(prompts), job.num_drafts, job.split, seed=job.seed)
    # A file of prompts may have changed under its name.
    read = "\0".join([*prompts, *stop])
    kept = {**flat(job, DraftJob), "prompts_sha256": prompt_hash(read)}
    folder = RunFolder(output, kept, manifest=MANIFEST)
    lm = SampledLM(
        job.pretrained,
        seed=job.seed,
        batch_size=runtime.generation_batch_size,
        device=processes.device,
        dtype=job.dtype,
        **allow,
    )
    run = _Run(job, folder, lm, processes, runtime)
    # Both are checked before anything is written.
    teacher = Teacher(lm.model, job.teacher)
    run.untrained(0)
    with folder.work(run.resumes_from, is_main=processes.rank == 0):
        processes.wait()
        settings = job.responses
        if settings.stop is None:
            settings = replace(settings, stop=stop)
        examples = run.respond(prompts, settings)
        of_draft = [[example for i in shard for example in examples[i]] for shard in shards]
        for number in range(processes.rank, job.num_drafts, processes.n):
            run.train(number, of_draft[number], teacher)
        processes.wait()
        if processes.rank == 0:
            # transformers writes weights from the first process only.
            for number in range(job.num_drafts):
                run.export(number)
            hashes = [[prompt_hash(prompts[i]) for i in shard] for shard in shards]
            run.write_manifest(hashes, [len(part) for part in of_draft], settings.stop or ())


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
        runtime: RuntimeOptions,
    ) -> None:
        self.job, self.folder, self.output, self.lm = job, folder, folder.path, lm
        self.processes, self.runtime = processes, runtime

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
            trust_remote_code=self.runtime.trust_remote_code,
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
        return examples_of(
            self.lm, prompts, read_responses(self.output), settings.responses_per_prompt
        )

    def train(self, number: int, examples: list[Example], teacher: Teacher) -> None:
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
        training.train(self.runtime.checkpoint_steps)
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
                "settings": {**flat(self.job, DraftJob), "stop": list(stop)},
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
        print(f"{len(drafts)} drafts of {self.job.pretrained} in {self.output}")
