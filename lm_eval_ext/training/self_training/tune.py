"""Phase ``tune``: fine-tune a round's model on its rows, with TRL; continued from checkpoints."""

from __future__ import annotations

import json
import logging
import math
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_callback import ProgressCallback
from trl import SFTConfig

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.processes import join_processes
from lm_eval_ext.training.run import write_json
from lm_eval_ext.training.saved_model import causal_adapters, loss_curve, save_adapter, save_model
from lm_eval_ext.training.self_training.folders import ADAPTER, MODEL, Stage
from lm_eval_ext.training.self_training.models import ModelPlace, initial_model, stage_seed
from lm_eval_ext.training.self_training.order import n_steps, training_order
from lm_eval_ext.training.self_training.rows import read_rows
from lm_eval_ext.training.self_training.settings import (
    SelfTraining,
    SelfTrainingRuntime,
    TuningSettings,
)
from lm_eval_ext.training.self_training.trainer import RowCollator, RowTrainer, row_dataset

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def tune(run: SelfTraining, stage: Stage, runtime: SelfTrainingRuntime) -> None:
    """Fine-tune, in all processes of the launch, and write the model or the adapter.

    Raises
    ------
    UserError
        If the model cannot be loaded.
    """
    processes = join_processes()
    place = initial_model(run, stage)
    tokenizer = AutoTokenizer.from_pretrained(
        place.pretrained, trust_remote_code=runtime.trust_remote_code
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    precisions, model = _load(place, run.tuning, runtime)
    use_cache = model.config.use_cache if hasattr(model.config, "use_cache") else None
    rows = read_rows(stage)
    order = training_order(rows, run.tuning, seed=f"{run.seed}:{stage.number}")
    # TRL below 1.16 makes the adapter before it sets the seed.
    set_seed(stage_seed(run.seed, stage.number))
    trainer = RowTrainer(
        alpha=run.tuning.alpha,
        model=model,
        args=_arguments(run, stage, runtime, n_rows=len(rows)),
        train_dataset=row_dataset(rows, order),
        data_collator=RowCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=_adapter(run.tuning) if place.adapter is None else None,
    )
    trainer.remove_callback(ProgressCallback)
    if processes.rank == 0:
        trainer.add_callback(Progress(f"Fine-tuning, {stage.name}"))
    begun = last_checkpoint(stage.checkpoints) if processes.rank == 0 else None
    processes.wait()
    begun = last_checkpoint(stage.checkpoints)
    trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
    if processes.rank == 0:
        if use_cache is not None:
            trainer.model.config.use_cache = use_cache  # the trainer turns it off
        _export(trainer.model, tokenizer, run.tuning, stage.folder, precisions)
        write_json(stage.report("tune"), _report(trainer))
        shutil.rmtree(stage.checkpoints, ignore_errors=True)
    processes.wait()


class Precisions(NamedTuple):
    """Precisions of a model's weights."""

    stored: torch.dtype
    computed: torch.dtype


def _load(
    place: ModelPlace, settings: TuningSettings, runtime: SelfTrainingRuntime
) -> tuple[Precisions, PreTrainedModel]:
    """Return the precisions to write, and the model to train."""
    allow = {"trust_remote_code": runtime.trust_remote_code}
    half_base = settings.lora_rank > 0 and _uses_bfloat16(settings)
    try:
        config = AutoConfig.from_pretrained(place.pretrained, **allow)
        computed = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        # Weights that are trained themselves are kept in single precision.
        dtype = torch.bfloat16 if half_base else torch.float32
        model = AutoModelForCausalLM.from_pretrained(place.pretrained, dtype=dtype, **allow)
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"pretrained={place.pretrained}: {reason}") from error
    stated = settings.save_dtype
    stored = computed if stated == "auto" else getattr(torch, stated)
    if place.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, place.adapter, is_trainable=True)
    return Precisions(stored, computed), model


def _uses_bfloat16(settings: TuningSettings) -> bool:
    if settings.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.precision == "bfloat16"


def _adapter(settings: TuningSettings) -> Any:
    if not settings.lora_rank:
        return None
    return causal_adapters(settings.lora_rank, 2 * settings.lora_rank)


def _arguments(
    run: SelfTraining, stage: Stage, runtime: SelfTrainingRuntime, *, n_rows: int
) -> SFTConfig:
    settings = run.tuning
    steps = n_steps(n_rows, settings)
    with warnings.catch_warnings():
        # transformers is about to rename it, and TRL turns it on by its present name.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
        return _config(stage, settings, runtime, steps=steps, seed=run.seed)


def _config(
    stage: Stage, settings: TuningSettings, runtime: SelfTrainingRuntime, *, steps: int, seed: int
) -> SFTConfig:
    return SFTConfig(
        output_dir=str(stage.checkpoints),
        # The rows are tokens already, cut to length, and in the order of training.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        shuffle_dataset=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        num_train_epochs=1,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(steps * settings.warmup_ratio),
        weight_decay=settings.weight_decay,
        seed=stage_seed(seed, stage.number),
        bf16=_uses_bfloat16(settings),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=settings.gradient_checkpointing,
        save_strategy="steps",
        save_steps=runtime.checkpoint_steps,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=1,
        report_to="none",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, and remove those that a kill left incomplete."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        try:
            # The trainer writes its state last.
            json.loads((found[-1] / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and is removed", found[-1])
            shutil.rmtree(found.pop(), ignore_errors=True)
        else:
            return found[-1]
    return None


def _export(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    folder: Path,
    precisions: Precisions,
) -> None:
    if settings.lora_rank:
        save_adapter(model, folder / ADAPTER, stored=precisions.stored)
    if settings.merge:
        model = model.merge_and_unload()
    if settings.merge or not settings.lora_rank:
        save_model(model, tokenizer, folder / MODEL, **precisions._asdict())


class Progress(TrainerCallback):
    """A progress bar with the loss."""

    def __init__(self, title: str) -> None:
        self._bar = tqdm(desc=title, unit="step")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin at the step that the training continues from."""
        self._bar.reset(total=state.max_steps)
        self._bar.update(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss of a step."""
        if "loss" in (logs or {}):
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


def _report(trainer: RowTrainer) -> dict[str, Any]:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": trainer.state.global_step,
        "loss_curve": loss_curve(losses, points=20),
    }
