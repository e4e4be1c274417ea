"""A draft before training: the target's first layers, another model, or random weights."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.vocabulary import vocabulary_difference
from lm_eval_ext.models.model_loading import model_location

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_TRUNCATED = re.compile(r"first:(\d+)(?:,mlp:(\d+))?")


class TruncatedTarget(NamedTuple):
    """What ``first:N`` and ``first:N,mlp:W`` ask for.

    Parameters
    ----------
    mlp_width
        Neurons kept in each layer's MLP, those with the largest weights; None keeps all.
    """

    n_layers: int
    mlp_width: int | None = None


def parse_truncation(draft_init: str) -> TruncatedTarget | None:
    """Read ``first:N[,mlp:W]``; None for any other text.

    Raises
    ------
    UserError
        For a text that begins so and continues otherwise.

    Examples
    --------
    >>> parse_truncation("first:6,mlp:32")
    TruncatedTarget(n_layers=6, mlp_width=32)
    >>> parse_truncation("some/model") is None
    True
    """
    if not draft_init.startswith("first:"):
        return None
    found = _TRUNCATED.fullmatch(draft_init)
    if found is None or int(found[1]) < 1 or found[2] == "0":
        raise UserError(f"draft_init={draft_init}: write first:N or first:N,mlp:W, such as first:2")
    return TruncatedTarget(int(found[1]), int(found[2]) if found[2] else None)


def build_draft(
    draft_init: str,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return an untrained draft in float32, on the CPU, in training mode.

    Parameters
    ----------
    draft_init
        ``first:N``: the target's first N layers, with its embeddings and output layer;
        ``first:N,mlp:W``: of each MLP only the W neurons with the largest weights; a folder or Hub
        id of a model with the target's tokenizer; or a configuration (a ``.json`` file, or a
        folder with ``config.json`` and no weights) for random weights.

    Raises
    ------
    UserError
        If the draft cannot be made or does not share the target's tokenizer.
    """
    truncation = parse_truncation(draft_init)
    if truncation is not None:
        return truncated_copy(target, truncation).float().train()
    path = Path(draft_init).expanduser()
    location = model_location(draft_init, argument="draft_init")
    name = str(path) if location == draft_init and path.exists() else location
    try:
        if _is_configuration(path):
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
            _check_width(draft_init, config, tokenizer)
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
            own = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            check_same_tokenizer(draft_init, own, tokenizer)
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"draft_init={draft_init}: {reason} (give first:N, a folder, a Hub id or a "
            "configuration)"
        ) from error
    return model.float().train()


def _is_configuration(path: Path) -> bool:
    if path.suffix == ".json":
        return True
    weights = [*path.glob("*.safetensors"), *path.glob("*.bin")] if path.is_dir() else [path]
    return path.is_dir() and (path / "config.json").is_file() and not weights


def _check_width(
    draft_init: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    width = config.get_text_config().vocab_size
    if width < len(tokenizer):
        raise UserError(
            f"draft_init={draft_init}: vocab_size={width} is less than the target's tokenizer "
            f"has, {len(tokenizer)}; set vocab_size in the configuration"
        )


def check_same_tokenizer(
    name: str, own: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> None:
    """Raise unless two tokenizers give the same ids to the same tokens.

    Raises
    ------
    UserError
        Naming the first token that differs.
    """
    difference = vocabulary_difference(target.get_vocab(), own.get_vocab())
    if difference is not None:
        raise UserError(
            f"draft_init={name} has another tokenizer than the target: {difference}; use a model "
            "of the same family, or first:N"
        )


def truncated_copy(target: PreTrainedModel, truncation: TruncatedTarget) -> PreTrainedModel:
    """Return a copy of the target's first layers, its MLPs narrowed if asked.

    Raises
    ------
    UserError
        If the target has fewer layers or neurons, or is built in a way that cannot be cut so.
    """
    n_layers, width = truncation
    have = target.config.get_text_config().num_hidden_layers
    if n_layers > have:
        raise UserError(f"draft_init=first:{n_layers}: the target has only {have} layers")
    config = copy.deepcopy(target.config)
    text = config.get_text_config()
    text.num_hidden_layers = n_layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:n_layers]
    weights = {name: value.detach().cpu() for name, value in target.state_dict().items()}
    if width is not None:
        weights = _narrow_mlps(weights, width, n_layers)
        text.intermediate_size = width
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        missing = [str(error).strip().splitlines()[-1].strip()]
    if missing:
        raise UserError(
            f"draft_init=first:{n_layers}: {type(target).__name__} cannot be cut after a layer "
            f"({missing[0]}); give a smaller model with the same tokenizer"
        )
    return model


def _narrow_mlps(
    weights: dict[str, torch.Tensor], width: int, n_layers: int
) -> dict[str, torch.Tensor]:
    """Keep the neurons of gated MLPs whose three weight vectors have the largest product of norms.

    A neuron's output is bounded by that product times the square of its input.
    """
    ends = (".gate_proj.weight", ".up_proj.weight", ".down_proj.weight")
    mlps = sorted({name.removesuffix(ends[0]) for name in weights if name.endswith(ends[0])})
    if not mlps or len(mlps) < n_layers:
        raise UserError(
            "draft_init: mlp:W needs MLPs with gate_proj, up_proj and down_proj; leave it out"
        )
    narrowed = dict(weights)
    for mlp in mlps:
        gate, up, down = (weights[mlp + end] for end in ends)
        if width > len(gate):
            raise UserError(f"draft_init: mlp:{width} is more than the target has, {len(gate)}")
        size = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
        kept = size.topk(width).indices.sort().values
        for end, weight in zip(ends, (gate[kept], up[kept], down[:, kept]), strict=True):
            narrowed[mlp + end] = weight.clone()
    return narrowed
