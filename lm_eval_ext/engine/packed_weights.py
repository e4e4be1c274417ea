"""Linear layers on a CPU whose weights are packed once, not for every product.

Every matrix product copies the weights into the order its kernel reads them in. For a decoding
step, a few rows times large weights, that copy takes about as long as the product. MKL can keep it:
PyTorch has operators for it, which `torch.compile` uses when it freezes a model. Results are those
of the plain product, bit for bit from 16 rows on and to the last digits below.

The operators are private ones of PyTorch, used in this module only and tried before their first
use. Where anything does not fit (another build, device or type, changed weights, gradients) the
layer computes as usual. The price is a second copy of the weights of large layers.
"""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import nn

logger = logging.getLogger(__name__)

# With fewer rows the plain product reads the weights in place and is as fast.
_FEWEST_ROWS = 4
# With more rows packed weights are as fast as plain ones, and not worth their memory.
_MOST_ROWS = 1024
# Smaller weights stay in the processor's cache, and a call in Python costs what packing saves.
_FEWEST_NUMBERS = 2**18
# Packing takes as long as this many products save.
_FEWEST_PASSES = 8
# Packed copies may take this share of the free memory.
_USABLE_SHARE = 0.25
# Size of a packed copy over that of its weights: rows are padded, and blocks reused.
_OVERHEAD = 1.1
# Rows that MKL chooses its blocks for: packed for 64, a product of 256 rows is as slow as a plain
# one; packed for 512, none is slower.
_EXPECTED_ROWS = 512
_TOLERANCE = 1e-4


@dataclass(eq=False)
class _Copy:
    """The packed weights of a layer, None where packing failed, and how to notice a change.

    A change through ``weight.data``, as by merging an adapter, leaves address and version, but
    not `reading`, the weights' product with a fixed input.
    """

    packed: torch.Tensor | None
    address: int
    version: int
    reading: torch.Tensor

    def is_of(self, weight: torch.Tensor) -> bool:
        return self.address == weight.data_ptr() and self.version == weight._version


# MKL's copies must not be moved, so they are not attributes of the layers: those are copied.
_copies: WeakKeyDictionary[nn.Linear, _Copy] = WeakKeyDictionary()


@contextmanager
def packed_weights(model: nn.Module, *, rows: int = 0, passes: int = 0) -> Iterator[None]:
    """Let the large linear layers of a model compute with packed weights, unless it is training.

    A layer is packed when it is first used. Copies are kept for later contexts, and made again
    where the weights have changed in between. Hooks of the layers still run. Where the rows of most
    passes (sequences times positions) and the passes are too few to pay for packing, only existing
    copies are used.
    """
    layers = [] if model.training else [layer for layer in _layers(model) if _fits(layer)]
    pays = passes >= _FEWEST_PASSES and _FEWEST_ROWS <= rows <= _MOST_ROWS
    if layers and pays:
        pays = _operators_work() and _affordable(layers)
    with torch.inference_mode():
        for layer in layers:
            _forget_if_changed(layer)
    chosen = layers if pays else [layer for layer in layers if layer in _copies]
    for layer in chosen:
        # A bound method, so that a copy of the model calls itself.
        layer.forward = types.MethodType(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in chosen:
            if getattr(vars(layer).get("forward"), "__func__", None) is _forward:
                del layer.forward


def bytes_to_pack(model: nn.Module) -> int:
    """Return the memory that `packed_weights` is still going to take for a model."""
    layers = [layer for layer in _layers(model) if _fits(layer)]
    if not layers or not _operators_work() or not _affordable(layers):
        return 0
    return _bytes_to_pack(layers)


def release_packed_weights(model: nn.Module) -> None:
    """Give the packed copies of a model back, before its weights change for long."""
    for layer in _layers(model):
        _copies.pop(layer, None)


def _forward(self: nn.Linear, input: torch.Tensor) -> torch.Tensor:
    """Replace ``forward`` of `torch.nn.Linear`."""
    weight, bias = self.weight, self.bias
    rows = input.numel() // max(1, input.shape[-1])
    if rows >= _FEWEST_ROWS and _is_plain(input) and not _needs_plain_product():
        copy = _copies.get(self)
        if copy is None:
            copy = _copies[self] = _pack(weight)
        if copy.packed is not None and copy.is_of(weight) and input.shape[-1] == weight.shape[1]:
            return _product(input, copy.packed, weight, bias)
    return nn.functional.linear(input, weight, bias)


def _needs_plain_product() -> bool:
    """Return whether gradients, casts or a tracer need operators that PyTorch knows."""
    return (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds ordinary float32 numbers in the memory of the CPU."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
    )


def _layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear]


def _fits(layer: nn.Linear) -> bool:
    """Return whether a layer can be packed and is worth it.

    Quantised, adapted and parametrised layers have other classes; offloaded ones override
    ``forward``.
    """
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    return (
        weight is not None
        and weight.numel() >= _FEWEST_NUMBERS
        and _is_plain(weight)
        and weight.is_contiguous()
        and not weight.is_inference()  # such tensors do not count their changes
        and (bias is None or _is_plain(bias))
        and "forward" not in vars(layer)
    )


def _bytes_to_pack(layers: list[nn.Linear]) -> int:
    new = sum(layer.weight.numel() for layer in layers if layer not in _copies)
    return int(_OVERHEAD * new * torch.float32.itemsize)


def _affordable(layers: list[nn.Linear]) -> bool:
    return _bytes_to_pack(layers) <= _USABLE_SHARE * psutil.virtual_memory().available


def _forget_if_changed(layer: nn.Linear) -> None:
    copy = _copies.get(layer)
    if copy is None:
        return
    weight = layer.weight
    if not copy.is_of(weight) or not torch.equal(copy.reading, _reading(weight)):
        del _copies[layer]


def _reading(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight's product with a fixed input, shape (out_features,)."""
    draws = torch.Generator().manual_seed(0)
    probe = torch.rand(weight.shape[1], generator=draws).add_(0.5)
    return torch.mv(weight, probe)


def _pack(weight: torch.Tensor) -> _Copy:
    """Pack a weight; a failure, such as too little memory, leaves the plain product."""
    packed = None
    try:
        packed = _reordered(weight)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        logger.warning("a layer is not packed, and stays slower (%s)", reason)
    return _Copy(packed, weight.data_ptr(), weight._version, _reading(weight))


def _reordered(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkl._mkl_reorder_linear_weight(weight.detach(), _EXPECTED_ROWS)


def _product(
    input: torch.Tensor, packed: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows = input.numel() // input.shape[-1]
    # With any other number than that of the rows the operator would take the plain product.
    return torch.ops.mkl._mkl_linear(input, packed, weight, bias, rows)


@functools.cache
@torch.no_grad()
def _operators_work() -> bool:
    """Return whether packed products are available and agree with plain ones."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(530, 520, generator=draws) / 520**0.5
    bias = torch.randn(530, generator=draws)
    try:
        packed = _reordered(weight)
        for rows in (_FEWEST_ROWS, 17, 64, _EXPECTED_ROWS, _MOST_ROWS):
            inputs = torch.randn(rows, 2, 520, generator=draws)[:, 1]
            for offset in (None, bias):
                plain = nn.functional.linear(inputs, weight, offset)
                difference = (_product(inputs, packed, weight, offset) - plain).abs().max()
                if not difference <= _TOLERANCE:
                    return False
    except (RuntimeError, AttributeError) as error:  # other builds do not have the operators
        logger.debug("weights are not packed: %s", error)
        return False
    return True
