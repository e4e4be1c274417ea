"""TRL's GRPOTrainer with what DAPO and random soft prompts add to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.dynamic_sampling import (
    Filled,
    SamplingCounts,
    check_filled,
    fill_groups,
)
from lm_eval_ext.training.dapo.question_order import QuestionOrder
from lm_eval_ext.training.dapo.rewards import Group, Rewards, overlong_penalty, verdict
from lm_eval_ext.training.dapo.rollouts import Rollout, RolloutLM, RolloutSettings
from lm_eval_ext.training.dapo.self_evaluation import SelfEvaluationStep
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary
from lm_eval_ext.training.prompts import Problem

FIRST_TOKENS = 8
"""Tokens whose entropy is logged apart: the ones the paper says random vectors act on."""


_REWARDS: list[Any] = [verdict, overlong_penalty]


@dataclass(frozen=True)
class DapoSettings:
    """What this trainer adds to TRL's configuration.

    Parameters
    ----------
    sampler
        ``"engine"``: the package's decoder, one random stream per rollout. ``"transformers"``:
        TRL's own way, ``generate`` on torch's global random state.
    dynamic_sampling
        Drop groups without variance and refill; otherwise all groups enter the update.
    overlong_buffer
        Tokens over which the soft overlong penalty grows; 0 switches it off.
    rsp_update
        ``"same"``: the update reads the vectors of the rollout, exactly on-policy.
        ``"clean"``: it reads the prompt alone, with the explicit importance ratio.
    calibrate
        Take a step on self-evaluation after each update; see
        `lm_eval_ext.training.dapo.self_evaluation`.
    """

    rollouts: RolloutSettings
    sampler: Literal["engine", "transformers"] = "engine"
    dynamic_sampling: bool = True
    max_refills: int = 10
    overlong_buffer: int = 0
    rsp_update: Literal["same", "clean"] = "same"
    calibrate: bool = False


@dataclass
class RunState:
    """What a continued run needs beyond transformers' checkpoint, of one process.

    Parameters
    ----------
    rolled_out
        Groups rolled out; numbers the next one, and with it its random streams.
    """

    rolled_out: int = 0
    refilled: int = 0
    counts: SamplingCounts = field(default_factory=SamplingCounts)


class DAPOTrainer(GRPOTrainer):
    """Train on graded questions with DAPO.

    TRL computes advantages, loss, clipping and metrics. This class decides what is rolled out and
    which groups enter: it fills every generation batch with groups whose verdicts differ, hands
    TRL the finished rollouts, and masks truncated ones.

    Parameters
    ----------
    questions
        The training questions, in their order; the data set given to TRL refers to them by its
        column ``position``.
    refill_from
        First position of the order that no step uses: where refills begin.
    vocabulary
        The random vectors, or None. The hooks that read them must be on the model already
        (`lm_eval_ext.training.dapo.virtual_vocabulary.virtual_ids_embedded`).
    **grpo_arguments
        As for TRL's ``GRPOTrainer``, without reward functions.

    Raises
    ------
    UserError
        If a process does not hold whole groups, or weights are sharded over processes.
    """

    _tag_names = ["trl", "grpo", "dapo"]  # noqa: RUF012 (TRL's)
    _name = "DAPO"

    def __init__(
        self,
        *,
        settings: DapoSettings,
        questions: QuestionOrder,
        refill_from: int,
        vocabulary: VirtualVocabulary | None = None,
        **grpo_arguments: Any,
    ) -> None:
        # TRL warns that the interface may change; the tests of this module notice if it does.
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(
            reward_funcs=_REWARDS,
            rollout_func=_finished_rollouts,
            **grpo_arguments,
        )
        self.dapo = settings
        self.vocabulary = vocabulary
        self.run_state = RunState()
        self._questions, self._refill_from = questions, refill_from
        self._rewards = Rewards(self.max_completion_length, settings.overlong_buffer)
        self._finished: list[Rollout] = []
        self._asked: set[int] = set()
        self._token_sums: dict[str, torch.Tensor] = {}
        self._check_layout()
        base = self.accelerator.unwrap_model(self.model)
        self.policy = RolloutLM(
            base.get_base_model() if hasattr(base, "get_base_model") else base,
            self.processing_class,
            settings.rollouts,
            vocabulary=vocabulary,
            seed=self.args.seed,
            mixed_precision_dtype="bfloat16" if self.args.bf16 else None,
        )
        self._self_evaluation: SelfEvaluationStep | None = None
        self._rolled_out: list[Group] = []
        if settings.calibrate:
            self._self_evaluation = SelfEvaluationStep(self)
            self.add_callback(self._self_evaluation)

    def _check_layout(self) -> None:
        per_process = self.args.generation_batch_size // self.accelerator.num_processes
        if per_process % self.num_generations:
            raise UserError(
                f"group_size={self.num_generations} does not divide the {per_process} rollouts of "
                "a process: choose groups_per_step as a multiple of the number of processes"
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError(
                "sharded weights (FSDP, DeepSpeed) cannot be rolled out by this trainer: launch it "
                "with data parallelism only"
            )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        positions = [row["position"] for row in inputs[:: self.num_generations]]
        # Of all processes, for refills are not to repeat them.
        self._asked = {self._questions.index(place) for place in gather_object(positions)}
        self._rolled_out = []
        filled = self._fill([self._questions[place] for place in positions])
        if self._self_evaluation is not None:
            self._self_evaluation.take(self._rolled_out)
        self._finished = [rollout for group in filled.groups for rollout in group.rollouts]
        rows = [row for group in filled.groups for row in _rows(group)]
        output = super()._generate_and_score_completions(rows)
        truncated = [rollout.finish_reason == "length" for rollout in self._finished]
        self._mask_truncated(output, truncated)
        if self.vocabulary is not None and self.dapo.rsp_update == "clean":
            self._clean(output)
        return output

    def _fill(self, questions: Sequence[Problem]) -> Filled:
        """Return the groups of a generation batch, of this process."""
        if self.dapo.dynamic_sampling:
            filled = fill_groups(
                questions, self._roll_out, self._further, max_refills=self.dapo.max_refills
            )
        else:
            filled = Filled(self._roll_out(questions), 0)
            for group in filled.groups:
                filled.counts.note(group)
        self._note(filled, len(questions))
        return filled

    def _note(self, filled: Filled, wanted: int) -> None:
        """Log what dynamic sampling did in all processes; fail in all where it failed in one."""
        everywhere = gather_object([(filled.missing, wanted, filled.counts)])
        total = SamplingCounts()
        for _, _, counts in everywhere:
            _add(total, counts)
        check_filled(
            sum(missing for missing, _, _ in everywhere),
            sum(count for _, count, _ in everywhere),
            total,
            self.dapo.max_refills,
        )
        _add(self.run_state.counts, filled.counts)
        metrics = self._metrics["train"]
        for name in ("dropped", "all_right", "all_wrong", "cancelled"):
            metrics[f"groups/{name}_share"].append(getattr(total, name) / total.groups)
        metrics["groups/accuracy"].append(total.accuracy_sum / total.groups)
        metrics["groups/rolled_out"].append(total.groups)
        metrics["groups/refills"].append(total.refills / self.accelerator.num_processes)

    def _further(self, n: int) -> list[Problem]:
        """Return the next n questions after those of the steps, at places of this process alone.

        The order begins again where all questions are used up; one that the generation batch has
        asked already is passed over then, unless it has asked them all.
        """
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        found: list[Problem] = []
        while len(found) < n:
            place = self._refill_from + first + step * self.run_state.refilled
            self.run_state.refilled += 1
            number = self._questions.index(place)
            if number in self._asked and len(self._asked) < len(self._questions.questions):
                continue
            self._asked.add(number)
            found.append(self._questions[place])
        return found

    def _roll_out(self, questions: Sequence[Problem]) -> list[Group]:
        size, processes = self.num_generations, self.accelerator.num_processes
        numbers: list[int] = []
        prompts: list[str] = []
        for question in questions:
            # Unique over processes and over the run.
            group = self.run_state.rolled_out * processes + self.accelerator.process_index
            self.run_state.rolled_out += 1
            numbers += range(group * size, (group + 1) * size)
            prompts += [question.prompt] * size
        sample = self._generate_rollouts if self.dapo.sampler == "transformers" else None
        rollouts = (sample or self.policy.roll_out)(prompts, numbers)
        groups = [rollouts[i : i + size] for i in range(0, len(rollouts), size)]
        graded = self._rewards.grade(questions, groups)
        self._rolled_out += graded
        return graded

    def _generate_rollouts(self, prompts: list[str], numbers: list[int]) -> list[Rollout]:
        """Sample with TRL's generation; the model reads virtual ids as any others."""
        read = self.policy.prompts_read(prompts, numbers)
        ids = [list(prompt_ids) for prompt_ids in read]
        completions, _ = self._generate_single_turn(ids, None, {}, self.num_generations)
        return [self.policy.rollout_of(p, c) for p, c in zip(read, completions, strict=True)]

    def _mask_truncated(self, output: dict[str, Any], truncated: list[bool]) -> None:
        """Take truncated rollouts out of the loss.

        TRL's own switch takes every completion without an end-of-sequence token for truncated,
        also one that a stop string ended.
        """
        rows = torch.tensor(truncated, device=output["completion_mask"].device)
        output["completion_mask"] = output["completion_mask"].masked_fill(rows.unsqueeze(1), 0)
        tokens = self.accelerator.gather(output["completion_mask"].sum())
        output["num_items_in_batch"] = tokens.sum()
        metrics = self._metrics["train"]
        everywhere = self.accelerator.gather(rows)
        metrics["completions/clipped_ratio"][-1] = everywhere.float().mean().item()
        lengths = torch.tensor([len(r.completion_ids) for r in self._finished], device=rows.device)
        ended = self.accelerator.gather(lengths)[~everywhere].float()
        if not len(ended):
            ended = torch.zeros(1)
        for name in ("mean", "min", "max"):
            metrics[f"completions/{name}_terminated_length"][-1] = getattr(ended, name)().item()

    def _clean(self, output: dict[str, Any]) -> None:
        """Take the vectors out of the update; its old log-probs stay those of the rollout."""
        if "old_per_token_logps" not in output:
            checkpointing = self.args.gradient_checkpointing_kwargs
            with torch.no_grad(), disable_gradient_checkpointing(self.model, checkpointing):
                output["old_per_token_logps"], _, _ = self._get_per_token_logps_and_entropies(
                    self.model,
                    torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                    torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                    output["completion_ids"].size(1),
                    batch_size=self.args.per_device_train_batch_size,
                )
        assert self.vocabulary is not None
        ids, mask = output["prompt_ids"], output["prompt_mask"].bool()
        keep = mask & ~self.vocabulary.is_virtual(ids)
        # Moved together, for positions count every column.
        prompts = [row[kept] for row, kept in zip(ids, keep, strict=True)]
        padding = self.processing_class.pad_token_id
        output["prompt_ids"] = pad(prompts, padding_value=padding, padding_side="left")
        ones = [torch.ones_like(prompt) for prompt in prompts]
        output["prompt_mask"] = pad(ones, padding_value=0, padding_side="left")

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._last_pass = found
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        log_probs, entropies, _ = self._last_pass
        mask = inputs["completion_mask"].float()
        # Truncated rollouts are masked, and this pass did not read them.
        self._add_tokens("entropy", entropies, mask)
        first = slice(FIRST_TOKENS)
        self._add_tokens("entropy/first_tokens", entropies[:, first], mask[:, first])
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is not None:
            difference = (log_probs - sampled).abs()
            self._add_tokens("log_probs/difference_to_sampling", difference, mask)
        return loss

    def _add_tokens(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Add the tokens of a micro-batch to a figure that is a mean over those of the step."""
        sums = torch.stack([(values.detach() * mask).sum(), mask.sum()])
        self._token_sums[name] = self._token_sums.get(name, 0) + sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means over the tokens of the step to TRL's figures."""
        for name, sums in self._token_sums.items():
            total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
            # TRL's own mean over micro-batches counts an empty one as 0.
            self._metrics["train"].pop(name, None)
            if count:
                self._metrics["train"][name].append(total / count)
        self._token_sums.clear()
        super().log(logs, start_time)

    def create_model_card(self, *arguments: Any, **settings: Any) -> None:
        """Write none: TRL's would describe another method and no base model."""

    def gather_state(self) -> list[dict[str, Any]]:
        """Return the state of every process."""
        return list(gather_object([asdict(self.run_state)]))

    def restore_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the states of `gather_state`.

        Raises
        ------
        UserError
            If there are more or fewer processes now.
        """
        if len(states) != self.accelerator.num_processes:
            raise UserError(
                f"the run has {len(states)} processes, not {self.accelerator.num_processes}: "
                "launch it with as many to continue"
            )
        state = states[self.accelerator.process_index]
        self.run_state = RunState(**{**state, "counts": SamplingCounts(**state["counts"])})


def _finished_rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Hand TRL the rollouts that the trainer has chosen."""
    rollouts = trainer._finished
    log_probs = [rollout.log_probs for rollout in rollouts]
    return {
        "prompt_ids": [list(rollout.prompt_ids) for rollout in rollouts],
        "completion_ids": [list(rollout.completion_ids) for rollout in rollouts],
        "logprobs": None if None in log_probs else [list(values) for values in log_probs],
    }


def _rows(group: Group) -> list[dict[str, Any]]:
    """Return a group as rows of TRL's batch."""
    return [
        {"prompt": group.question.prompt, "verdict": right, "overlong_penalty": penalty}
        for right, penalty in zip(group.verdicts, group.penalties, strict=True)
    ]


def _add(total: SamplingCounts, counts: SamplingCounts) -> None:
    for name in (item.name for item in fields(SamplingCounts)):
        setattr(total, name, getattr(total, name) + getattr(counts, name))
