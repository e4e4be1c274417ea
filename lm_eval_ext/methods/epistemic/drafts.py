"""Find, load and check draft models."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.vocabulary import check_vocabulary
from lm_eval_ext.models.model_loading import MODEL_NAMES, model_location
from lm_eval_ext.models.shipped import SHIPPED_DRAFTS, model_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MANIFEST = "drafts.json"
"""File in a folder of drafts whose ``drafts`` lists the folders of the models."""

logger = logging.getLogger(__name__)

_NAMES = (*SHIPPED_DRAFTS, *MODEL_NAMES)


class Drafts(NamedTuple):
    """Drafts, equal ones held once.

    Parameters
    ----------
    names
        Each draft as the user gave it, or the folder a manifest led to.
    models
        The distinct models other than the target.
    model_of_draft
        Index into `models` for each draft; None for a copy of the target.
    """

    names: tuple[str, ...]
    models: tuple[PreTrainedModel, ...]
    model_of_draft: tuple[int | None, ...]


def draft_names(drafts: str | Sequence[str]) -> list[str]:
    """Resolve ``drafts=`` to the models it names.

    Parameters
    ----------
    drafts
        Hub ids, folders or names of shipped models, as a list or joined by ``+`` or ``;``. A
        folder with a ``drafts.json``, as the trainer writes it, stands for the drafts it lists.

    Raises
    ------
    UserError
        If nothing is named, or a folder holds no model.

    Examples
    --------
    >>> draft_names("some/model+other/model")
    ['some/model', 'other/model']
    """
    if isinstance(drafts, str):
        whole = Path(drafts).is_dir()  # a path may hold a plus sign
        given = [drafts] if whole else re.split(r"[+;]", drafts)
    else:
        given = list(drafts)
    named = [model for one in given if one.strip() for model in _models_of(one.strip())]
    if not named:
        raise UserError(
            f"drafts={drafts!r} names no model: give folders or Hub ids joined by +, or the "
            "folder of lm-eval-ext train drafts"
        )
    return named


def _models_of(name: str) -> list[str]:
    drafts_of_ours = name in SHIPPED_DRAFTS
    folder = Path(model_path(name) if drafts_of_ours else model_location(name, argument="drafts"))
    manifest = folder / MANIFEST
    if manifest.is_file():
        try:
            listed = [str(folder / one) for one in json.loads(manifest.read_text())["drafts"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"drafts={name}: {manifest} does not list its drafts ({error!r}); train again"
            ) from error
        if not listed:
            raise UserError(f"drafts={name}: {manifest} lists no drafts; train again")
        return listed
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"drafts={name} is a folder with neither {MANIFEST} nor config.json: give the output "
            "folder of lm-eval-ext train drafts, or that of a model"
        )
    return [str(folder)]


def load_drafts(
    drafts: str | Sequence[str | PreTrainedModel],
    *,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> Drafts:
    """Load drafts and check that they speak the target's vocabulary.

    Parameters
    ----------
    drafts
        As for `draft_names`; loaded models may stand in the list and are used where they are.
    target
        The target. A draft equal to it is not run: its logits are the target's.
    tokenizer
        The target's tokenizer.
    device, dtype
        Where and in what precision drafts run.
    trust_remote_code
        As in transformers.

    Raises
    ------
    UserError
        If a draft cannot be loaded, is not a causal model, or has another vocabulary.
    """
    names: list[str] = []
    distinct: list[PreTrainedModel] = []
    model_of_draft: list[int | None] = []
    vocabulary = tokenizer.get_vocab()
    width = target.config.get_text_config().vocab_size
    for entry in _entries(drafts):
        if isinstance(entry, str):
            model = _load(entry, device, dtype, trust_remote_code)
            own = _own_vocabulary(entry, trust_remote_code)
        else:
            model, own = entry, None
        name = entry if isinstance(entry, str) else type(entry).__name__
        draft_width = model.config.get_text_config().vocab_size
        check_vocabulary(name, vocabulary, own, target_width=width, draft_width=draft_width)
        names.append(name)
        model_of_draft.append(_place_among(model, target, distinct))
    if equal := [name for name, i in zip(names, model_of_draft, strict=True) if i is None]:
        logger.warning("drafts=%s: equal to the target, from which they differ in nothing",
                       "+".join(equal))  # fmt: skip
    return Drafts(tuple(names), tuple(distinct), tuple(model_of_draft))


def _entries(drafts: str | Sequence[str | PreTrainedModel]) -> list[str | PreTrainedModel]:
    if isinstance(drafts, str) or not drafts:
        return list(draft_names(drafts or ""))
    several = (draft_names([one]) if isinstance(one, str) else [one] for one in drafts)
    return [one for part in several for one in part]


def _place_among(
    model: PreTrainedModel, target: PreTrainedModel, distinct: list[PreTrainedModel]
) -> int | None:
    """Return the index of an equal model, None for the target, appending a new one."""
    if same_model(model, target):
        return None
    for i, other in enumerate(distinct):
        if same_model(model, other):
            return i
    distinct.append(model)
    return len(distinct) - 1


def same_model(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Return whether two models compute the same: class, settings, weights, device and dtype."""
    if one is other:
        return True
    if type(one) is not type(other) or (one.device, one.dtype) != (other.device, other.dtype):
        return False
    if _settings(one) != _settings(other):
        return False
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        value.shape == others[name].shape and torch.equal(value, others[name])
        for name, value in weights.items()
    )


def _settings(model: PreTrainedModel) -> dict[str, object]:
    about_files = ("_name_or_path", "architectures", "transformers_version", "dtype")
    return {k: v for k, v in model.config.to_dict().items() if k not in about_files}


def _load(
    name: str, device: torch.device | str, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"drafts={name}: {reason} (give Hub ids or folders of causal models joined by +, the "
            f"folder of lm-eval-ext train drafts, or one of {', '.join(_NAMES)})"
        ) from error
    return model.to(device).eval()


def _own_vocabulary(name: str, trust_remote_code: bool) -> dict[str, int] | None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return None  # weights without a tokenizer: their width is checked
    return dict(tokenizer.get_vocab())
