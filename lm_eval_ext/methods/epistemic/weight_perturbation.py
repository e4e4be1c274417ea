r"""Random low-rank perturbations of a model's weights: samples from a posterior around it.

The posterior is TokUR's (arXiv:2505.11737, read in its public code): for every chosen linear
module with weight ``W0`` of shape (out, in),

.. math:: W = W_0 + U' \varepsilon^T, \qquad \varepsilon_{ij} \sim N(0, \sigma^2),

where the columns of ``U'`` are the top ``rank`` left singular vectors of ``W0``. For one input
``x`` this is ``y = W0 x + U' (sigma * |x| * xi)`` with standard normal ``xi``.

Nothing is written into the weights: forward hooks add the low-rank term to a module's output, so
quantized modules work and taking the hooks off leaves the model bit for bit as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from lm_eval_ext.errors import UserError

# Rows of the identity that are passed through a module whose weight cannot be read directly.
_PROBE_ROWS = 1024
# Modules with more entries than this take over a second each, and then there is a progress bar.
_LARGE_WEIGHT = 2**22


@dataclass(frozen=True, eq=False)
class Draw:
    """One sample of the perturbed weights.

    Parameters
    ----------
    eps
        By module name, the noise of shape (in_features, rank), float32 on the CPU.
    """

    eps: Mapping[str, torch.Tensor]


class WeightPerturbation:
    """TokUR's posterior over some linear modules of a model.

    Parameters
    ----------
    model
        Any module with linear layers; it is not changed.
    rank
        Number of singular vectors, at least 1; 8 in TokUR's code.
    sigma
        Standard deviation of the noise, at least 0; 0.1 in TokUR's code.
    modules
        Last parts of the names of the modules to perturb. TokUR's code perturbs the query and
        value projections; its text names query and key.

    Attributes
    ----------
    basis
        By module name, the top left singular vectors, float32 of shape (out_features, rank).

    Raises
    ------
    UserError
        If a name in `modules` matches no linear module, or a setting is out of range.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        rank: int = 8,
        sigma: float = 0.1,
        modules: Sequence[str] = ("q_proj", "v_proj"),
    ) -> None:
        if rank < 1 or rank % 1:
            raise UserError(f"rank={rank} must be a whole number of at least 1")
        if not 0 <= sigma < math.inf:
            raise UserError(f"sigma={sigma} must be a number of at least 0")
        self.rank, self.sigma = int(rank), float(sigma)
        self._modules = _named_linear_modules(model, modules)
        self.basis: dict[str, torch.Tensor] = {}
        large = any(_n_entries(module) > _LARGE_WEIGHT for module in self._modules.values())
        named = tqdm(self._modules.items(), desc="Singular vectors", disable=not large)
        for name, module in named:
            self.basis[name] = _left_singular_vectors(name, effective_weight(module), self.rank)
        self._placed: dict[tuple[str, torch.device], torch.Tensor] = {}

    @property
    def module_names(self) -> tuple[str, ...]:
        """Full names of the perturbed modules."""
        return tuple(self._modules)

    def draw(self, generator: torch.Generator) -> Draw:
        """Sample one set of weights.

        Parameters
        ----------
        generator
            A generator on the CPU; the draw depends on nothing else.
        """
        return Draw(
            {
                name: self.sigma * torch.randn(_in_features(module), self.rank, generator=generator)
                for name, module in self._modules.items()
            }
        )

    @contextmanager
    def applied(self, draw: Draw) -> Iterator[None]:
        """Let the model compute with a draw's weights, and restore it afterwards.

        Parameters
        ----------
        draw
            From `draw`; every token of every row sees the same weights.
        """
        placed: dict[str, torch.Tensor] = {}

        def coefficients(name: str, inputs: torch.Tensor) -> torch.Tensor:
            if name not in placed:
                placed[name] = draw.eps[name].to(inputs.device)
            return inputs.float() @ placed[name]

        with self._added(coefficients):
            yield

    @contextmanager
    def token_noise(
        self, generator: torch.Generator, *, rows: Sequence[int] | torch.Tensor | None = None
    ) -> Iterator[None]:
        """Give every token of every row its own weights (the activation form).

        The noise depends on the shape of what passes through the model; for noise that belongs to
        an attempt whatever its batch, see `with_noise`.

        Parameters
        ----------
        generator
            A generator on the CPU.
        rows
            Which rows of the batch are perturbed, as indices or as a mask of shape (n_rows,); all
            of them by default.
        """

        def noise(name: str, inputs: torch.Tensor) -> torch.Tensor:
            xi = torch.randn((*inputs.shape[:-1], self.rank), generator=generator)
            if rows is not None:
                chosen = torch.zeros(len(xi), dtype=torch.bool)
                chosen[rows if isinstance(rows, torch.Tensor) else list(rows)] = True
                xi[~chosen] = 0.0
            return xi

        with self._with_noise(noise):
            yield

    @contextmanager
    def with_noise(self, xi: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Give every token the weights that its standard normal noise stands for.

        Parameters
        ----------
        xi
            By module name, noise of shape (n_rows, n_tokens, rank); 0 leaves a token clean.
        """
        with self._with_noise(lambda name, inputs: xi[name]):
            yield

    @contextmanager
    def _with_noise(self, noise: Callable[[str, torch.Tensor], torch.Tensor]) -> Iterator[None]:
        def coefficients(name: str, inputs: torch.Tensor) -> torch.Tensor:
            norms = inputs.float().norm(dim=-1, keepdim=True)
            return self.sigma * norms * noise(name, inputs).to(inputs.device)

        with self._added(coefficients):
            yield

    @contextmanager
    def _added(self, coefficients: Callable[[str, torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Add ``U' coefficients(name, inputs)`` to the output of every perturbed module."""

        def hook_for(name: str) -> Callable[..., torch.Tensor]:
            def hook(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> Any:
                change = coefficients(name, args[0]) @ self._basis_on(name, output.device).T
                return output + change.to(output.dtype)

            return hook

        handles = []
        try:
            for name, module in self._modules.items():
                handles.append(module.register_forward_hook(hook_for(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _basis_on(self, name: str, device: torch.device) -> torch.Tensor:
        if (name, device) not in self._placed:
            self._placed[name, device] = self.basis[name].to(device)
        return self._placed[name, device]


def effective_weight(module: torch.nn.Module) -> torch.Tensor:
    """Return the matrix of a linear module, shape (out_features, in_features), float32.

    A weight stored in another form, such as a quantized one, is found by passing the rows of the
    identity through the module.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> linear = torch.nn.Linear(3, 2)
    >>> torch.equal(effective_weight(linear), linear.weight)
    True
    """
    with torch.inference_mode(False), torch.no_grad():
        if type(module) is torch.nn.Linear:
            return module.weight.detach().float()
        device = next(module.parameters()).device
        n_inputs = _in_features(module)
        dtype = _input_dtype(module)
        offset = module(torch.zeros(1, n_inputs, device=device, dtype=dtype)).float()
        columns = []
        for first in range(0, n_inputs, _PROBE_ROWS):
            last = min(first + _PROBE_ROWS, n_inputs)
            rows = torch.zeros(last - first, n_inputs, device=device, dtype=dtype)
            rows[torch.arange(last - first), torch.arange(first, last)] = 1
            columns.append(module(rows).float() - offset)
        return torch.cat(columns).T.contiguous()


def _input_dtype(module: torch.nn.Module) -> torch.dtype:
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _left_singular_vectors(name: str, weight: torch.Tensor, rank: int) -> torch.Tensor:
    if rank > min(weight.shape):
        raise UserError(
            f"rank={rank} is more than {name} has: its weight is {tuple(weight.shape)}; lower rank "
            f"to at most {min(weight.shape)}"
        )
    with torch.inference_mode(False), torch.no_grad():
        return torch.linalg.svd(weight, full_matrices=False).U[:, :rank].clone()


def _n_entries(module: torch.nn.Module) -> int:
    return _in_features(module) * _out_features(module)


def _in_features(module: torch.nn.Module) -> int:
    return int(getattr(module, "in_features", 0) or getattr(module, "nx", 0))


def _out_features(module: torch.nn.Module) -> int:
    return int(getattr(module, "out_features", 0) or getattr(module, "nf", 0))


def _named_linear_modules(
    model: torch.nn.Module, wanted: Sequence[str]
) -> dict[str, torch.nn.Module]:
    """Find modules with input and output features (``nx`` and ``nf`` in GPT-2) by last name."""
    if isinstance(wanted, str) or not wanted:
        raise UserError(f"modules={wanted!r} must be a list of names, such as q_proj and v_proj")
    linear = {
        name: module
        for name, module in model.named_modules()
        if _in_features(module) and _out_features(module)
    }
    last_names = {name.rpartition(".")[2] for name in linear}
    missing = [name for name in wanted if name not in last_names]
    if missing:
        raise UserError(
            f"modules={'+'.join(wanted)}: {type(model).__name__} has no linear module named "
            f"{missing[0]}; choose among {', '.join(sorted(last_names))}"
        )
    return {n: module for n, module in linear.items() if n.rpartition(".")[2] in wanted}
