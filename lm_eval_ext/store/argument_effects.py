"""What the arguments of a wrapper change, and how they enter the keys of a store.

A wrapper's class declares the arguments of its constructor in ``argument_effects``, each once. One
that is declared with an entry is in the key under that entry, by its effect: pruning by the heads
that are removed, whatever chose them. All others are in the key by their value, and an argument
that nobody declared counts as one that changes the text: two settings of a new wrapper never share
a key, even where its author has not thought of keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import PurePath
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.digests import digest
from lm_eval_ext.models.fingerprint import tensor_checksum, weights_fingerprint

Kind = Literal["text", "annotation", "none"]


class Effect(NamedTuple):
    """What an argument changes: what is sampled, what is added to it, or neither.

    `entry` is the name of what stands for the argument in the key; None where its value does.
    """

    kind: Kind
    entry: str | None = None


NO_EFFECT = Effect("none")
UNDECLARED = Effect("text")

SAMPLED_ARGUMENTS: Mapping[str, Effect] = {
    "seed": Effect("text", "seed"),
    # The probability is read while sampling, so it is in the key of the text too.
    **dict.fromkeys(
        ("self_eval", "self_eval_prompt", "self_eval_labels", "calibration_temperature"),
        Effect("annotation", "self_evaluation"),
    ),
    "box_completion": Effect("text", "box_completion"),
    **dict.fromkeys(
        (
            "pretrained", "revision", "subfolder", "dtype", "peft", "delta", "autogptq",
            "gptqmodel", "gguf_file",
        ),
        Effect("text", "model"),
    ),
    # Whatever else transformers or vLLM loads a model with.
    "model_arguments": Effect("text", "model"),
    **dict.fromkeys(("tokenizer", "use_fast_tokenizer"), Effect("text", "tokenizer")),
    # The hash of the prompt, and that of the tokens which are read of it.
    **dict.fromkeys(("enable_thinking", "chat_template_args"), Effect("text", "prompt")),
    **dict.fromkeys(("truncation", "add_bos_token"), Effect("text", "read")),
    "max_length": Effect("text", "max_length"),
    "think_end_token": Effect("text", "think_end_token"),
    "think_start_token": Effect("text", "think_start_token"),
    "thinking_budget": Effect("text", "sampling"),
    "mixed_precision_dtype": Effect("text", "mixed_precision"),
    # Where and how fast it runs, what loads it, and what concerns loglikelihood requests only.
    **dict.fromkeys(
        (
            "batch_size", "max_batch_size", "device", "store", "backend", "trust_remote_code",
            "parallelize", "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "tp_plan",
            "calibrator", "logits_cache", "softmax_dtype", "prefix_token_id",
        ),
        NO_EFFECT,
    ),
}  # fmt: skip
"""Arguments of `AttemptSampling`, those of lm-eval's classes among them."""


class KeyedArguments:
    """Base of the wrappers: knows what each constructor was given, for the keys of a store.

    Attributes
    ----------
    argument_effects
        The arguments of the class's own constructor, but for those it passes on under their name.
        The name of ``**arguments`` stands for all that are passed in it and not declared. A class
        without a declaration of its own is named in the keys of its attempts.
    pretrained
        What the model was loaded from, for people who look into a store.
    """

    argument_effects: ClassVar[Mapping[str, Effect]] = {}
    pretrained: Any
    _calls: dict[type, _Call]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, effect in vars(cls).get("argument_effects", {}).items():
            if not isinstance(effect, Effect) or effect.kind not in get_args(Kind):
                raise TypeError(
                    f"{cls.__qualname__}.argument_effects: {name} must be an Effect of kind "
                    f"{', '.join(get_args(Kind))}, got {effect!r}"
                )
        if "__init__" in vars(cls):
            cls.__init__ = _recorded(cls, cls.__init__)  # type: ignore[method-assign]

    @property
    def annotates(self) -> bool:
        """Whether the wrapper annotates attempts after they are sampled."""
        return False

    def common_settings(self) -> dict[str, Any]:
        """Return the entries that all wrappers have; `AttemptSampling` overrides this."""
        return {}

    def key_settings(self) -> dict[str, Any]:
        """Return the entries for a wrapper's arguments that change texts, where they have one."""
        return {}

    def annotation_settings(self) -> dict[str, Any]:
        """Return the entries for arguments that change what `annotate` adds, and no text."""
        return {}

    def undeclared_classes(self) -> list[str]:
        """Return the names of the classes that declare nothing."""
        return [
            f"{kind.__module__}.{kind.__qualname__}"
            for kind in type(self).__mro__
            if issubclass(kind, KeyedArguments)
            and kind is not KeyedArguments
            and "argument_effects" not in vars(kind)
        ]

    def arguments_by_value(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Return the arguments that are in the key by their value, by class and name.

        Raises
        ------
        UserError
            If a value cannot be written down so that it is the same in another process.
        """
        values: dict[str, dict[str, Any]] = {}
        for owner, call in getattr(self, "_calls", {}).items():
            for name, value in call.values.items():
                if self._effect(owner, name) == (kind, None):
                    values.setdefault(owner.__qualname__, {})[name] = _plain(owner, name, value)
        return values

    def _effect(self, owner: type, name: str) -> Effect:
        declared: Mapping[str, Effect] = vars(owner).get("argument_effects", {})
        if name in declared:
            return declared[name]
        order, call = type(self).__mro__, self._calls[owner]
        further = (
            self._calls[kind] for kind in order[order.index(owner) + 1 :] if kind in self._calls
        )
        if any(name in other.given for other in further):
            return NO_EFFECT  # the class it is passed to declares it
        return declared.get(str(call.rest), UNDECLARED) if name in call.in_rest else UNDECLARED


class _Call(NamedTuple):
    """What one class's constructor was called with.

    `values` are by argument, defaults included, `given` those that were passed, and `in_rest` those
    in ``**arguments``, whose name is `rest`.
    """

    values: dict[str, Any]
    given: frozenset[str]
    rest: str | None
    in_rest: frozenset[str]


def _recorded(owner: type, init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    rest = next((n for n, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)

    @wraps(init)
    def recorded(self: Any, *positional: Any, **named: Any) -> None:
        try:
            bound = signature.bind(self, *positional, **named)
        except TypeError:
            init(self, *positional, **named)  # says what is wrong
            return
        given = {*bound.arguments} - {rest}
        bound.apply_defaults()
        values = dict([*bound.arguments.items()][1:])
        more = dict(values.pop(rest)) if rest is not None else {}
        call = _Call({**values, **more}, frozenset(given | more.keys()), rest, frozenset(more))
        self._calls = {**getattr(self, "_calls", {}), owner: call}
        init(self, *positional, **named)

    return recorded


def _plain(owner: type, name: str, value: Any) -> Any:
    """Return a value as JSON has it, equal in every process for equal values."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), digest(array.tobytes())]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), tensor_checksum(value)]
    if isinstance(value, torch.nn.Module):
        return [type(value).__qualname__, weights_fingerprint(value.state_dict().items())]
    if isinstance(value, (PurePath, torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, Enum):
        return _plain(owner, name, value.value)
    if isinstance(value, Mapping):
        return {str(key): _plain(owner, name, one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(owner, name, one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(owner, name, one) for one in value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(owner, name, getattr(value, f.name)) for f in fields(value)}
    if callable(value) and "<" not in getattr(value, "__qualname__", "<"):
        return f"{value.__module__}.{value.__qualname__}"
    raise UserError(
        f"store=: {name}={type(value).__name__} of {owner.__qualname__} cannot be written into a "
        f"key; declare {name} in {owner.__qualname__}.argument_effects with the name of an entry, "
        "and return that from key_settings"
    )
