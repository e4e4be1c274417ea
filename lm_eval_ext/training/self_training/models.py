"""The model that a stage answers with, and the wrapper it answers through."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.model_loading import model_location
from lm_eval_ext.training.self_training.folders import ADAPTER, MODEL, Stage
from lm_eval_ext.training.self_training.settings import SelfTraining, SelfTrainingRuntime

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM


_OWN_ARGUMENTS = {
    "pretrained", "peft", "seed", "batch_size", "box_completion", "self_eval", "self_eval_prompt",
    "self_eval_labels", "calibration_temperature",
}  # fmt: skip
"""Arguments of the wrapper that differ between rounds, or that rows are laid out by."""


class ModelPlace(NamedTuple):
    """Where a model is.

    Parameters
    ----------
    adapter
        Folder of an adapter on it, or None.
    """

    pretrained: str
    adapter: str | None = None

    def arguments(self) -> dict[str, str]:
        """Return it as arguments of a model wrapper."""
        found = {"pretrained": self.pretrained}
        return found if self.adapter is None else {**found, "peft": self.adapter}


def base_model(run: SelfTraining) -> str:
    """Return the folder or Hub id of the base model."""
    return model_location(run.pretrained)


def trained_model(run: SelfTraining, stage: Stage) -> ModelPlace:
    """Return what a round's fine-tuning wrote."""
    if (stage.folder / MODEL).is_dir():
        return ModelPlace(str(stage.folder / MODEL))
    return ModelPlace(base_model(run), str(stage.folder / ADAPTER))


def answering_model(run: SelfTraining, stage: Stage) -> ModelPlace:
    """Return the current model of a stage: what the round before it wrote, or the base model."""
    before = stage.previous()
    return ModelPlace(base_model(run)) if before is None else trained_model(run, before)


def stage_seed(seed: int, number: int) -> int:
    """Return the seed of a stage, below 2^31, the same however the run got there.

    Examples
    --------
    >>> stage_seed(0, 1) == stage_seed(0, 1) != stage_seed(0, 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def load_generator(
    run: SelfTraining,
    stage: Stage,
    runtime: SelfTrainingRuntime,
    *,
    completes_boxes: bool,
    device: str | None = None,
) -> HFLM:
    """Load the current model in the wrapper that samples attempts.

    Parameters
    ----------
    device
        As lm-eval has it, or None for the wrapper's own choice.

    Raises
    ------
    UserError
        If lm-eval knows no such wrapper, the model cannot be loaded, or `generator_args` set what
        the run sets.
    """
    wrapper = generator_class(run)
    arguments: dict[str, Any] = {
        **answering_model(run, stage).arguments(),
        "seed": stage_seed(run.seed, stage.number),
        "batch_size": runtime.generation_batch_size,
    }
    if runtime.trust_remote_code:
        arguments["trust_remote_code"] = True
    if device is not None:
        arguments["device"] = device
    if completes_boxes:
        arguments["box_completion"] = True
    if stage.held_out:
        template = run.rows.template()
        arguments["self_eval"] = True
        arguments["self_eval_prompt"] = template.prompt
        arguments["self_eval_labels"] = list(template.labels)
    try:
        lm: HFLM = wrapper(**{**arguments, **generator_arguments(run)})
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"pretrained={arguments['pretrained']}: {reason}") from error
    return lm


def generator_class(run: SelfTraining) -> Any:
    """Return the model class that samples.

    Raises
    ------
    UserError
        If lm-eval knows none of its name.
    """
    from lm_eval.api.registry import get_model

    try:
        return get_model(run.sampling.generator)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"generator={run.sampling.generator} is not a model type of lm-eval: use sampled, or "
            "another of lm_eval ls models"
        ) from error


def generator_arguments(run: SelfTraining) -> dict[str, Any]:
    """Return the further arguments of the class that samples.

    Raises
    ------
    UserError
        If they set what the run sets.
    """
    from lm_eval_ext.harness import requests as harness

    stated = harness.parse_model_args(run.sampling.generator_args)
    for name in sorted(_OWN_ARGUMENTS & stated.keys()):
        raise UserError(
            f"generator_args={run.sampling.generator_args}: {name} is set by the run itself; leave "
            "it out, and use the option of the command"
        )
    return stated


def initial_model(run: SelfTraining, stage: Stage) -> ModelPlace:
    """Return the model that a round's fine-tuning starts from."""
    before = stage.previous()
    if run.init_from == "base" or before is None:
        return ModelPlace(base_model(run))
    if run.tuning.lora_rank:
        # The adapter is trained further; its base model is the same in every round.
        return ModelPlace(base_model(run), str(before.folder / ADAPTER))
    return ModelPlace(str(before.folder / MODEL))


def adapter_or_model(folder: Path) -> str:
    """Return the name of what fine-tuning leaves in a folder for a reader to load."""
    return MODEL if (folder / MODEL).is_dir() else ADAPTER
