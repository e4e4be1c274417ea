"""How close any drafts could come to the reference: the errors of what they are trained to become.

The reference uncertainty is itself an estimate from M perturbed copies of the target. This compares
it with what no draft can beat: the same reference from other copies, the mean of many of these, and
the sum JSD + KL of drafts that have learned the average of the perturbed copies without any error
(all equal, so that JSD is 0).

python examples/draft_ceiling.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from draft_ablation import respond
from tqdm import tqdm

from lm_eval_ext.engine.packed import PackedAttempts
from lm_eval_ext.methods.epistemic.divergence import kl_divergence
from lm_eval_ext.methods.epistemic.ensemble import EnsembleSum
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel, blocks
from lm_eval_ext.methods.epistemic.weight_perturbation import Draw, WeightPerturbation
from lm_eval_ext.metrics import cluster_bootstrap, rmse
from lm_eval_ext.model_wrappers.sampled import SampledLM

Logits = Callable[[Draw | None], torch.Tensor]


class BlockScores(NamedTuple):
    """Scores of the tokens of some responses, each of shape (n_tokens,) unless stated.

    Parameters
    ----------
    references
        The reference from independent copies, shape (n_references, n_tokens).
    pooled
        Mutual information over all these copies together.
    perfect
        KL(average of all these copies, target), by sigma.
    """

    references: np.ndarray
    pooled: np.ndarray
    perfect: dict[float, np.ndarray]


class Copies:
    """Perturbed copies of the target, the same for all responses.

    Parameters
    ----------
    model
        The target.
    sigmas
        Standard deviations; the reference has the first.
    n_references
        Independent references.
    samples
        M of each, the clean target included.
    seed
        Of the copies.
    """

    def __init__(
        self,
        model: ForcedModel,
        sigmas: list[float],
        *,
        n_references: int,
        samples: int,
        seed: int,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._model = model
        self._perturbations = {
            sigma: WeightPerturbation(model.model, sigma=sigma) for sigma in sigmas
        }
        self._draws = {
            sigma: [
                [perturbation.draw(generator) for _ in range(samples - 1)]
                for _ in range(n_references)
            ]
            for sigma, perturbation in self._perturbations.items()
        }

    @property
    def n_passes(self) -> int:
        """Passes over the responses."""
        return sum(len(group) for groups in self._draws.values() for group in groups)

    def score(self, attempts: list, progress: tqdm) -> BlockScores:
        """Score one block of responses."""
        packed = PackedAttempts(attempts)
        clean = self._model.logits(attempts, packed)

        def empty() -> EnsembleSum:
            return EnsembleSum(len(clean), clean.shape[-1], clean.device)

        references, perfect, pooled = [], {}, None
        for sigma, groups in self._draws.items():
            together = empty()
            average = torch.zeros_like(clean)
            for group in groups:
                alone = empty()
                alone.add(clean)
                for logits in self._read(sigma, group, attempts, packed):
                    alone.add(logits)
                    together.add(logits)
                    average += logits.softmax(-1)
                    progress.update(len(clean))
                if pooled is None:
                    references.append(alone.uncertainty().eu)
            average /= average.sum(-1, keepdim=True)
            perfect[sigma] = kl_divergence(average.log(), clean.log_softmax(-1)).numpy()
            pooled = together.uncertainty().eu if pooled is None else pooled
        return BlockScores(torch.stack(references).numpy(), pooled.numpy(), perfect)

    def _read(
        self, sigma: float, group: list[Draw], attempts: list, packed: PackedAttempts
    ) -> Iterator[torch.Tensor]:
        for draw in group:
            with self._perturbations[sigma].applied(draw):
                yield self._model.logits(attempts, packed)


@torch.inference_mode()
def read_all(lm: SampledLM, args: argparse.Namespace) -> tuple[BlockScores, np.ndarray]:
    """Return the scores of all response tokens and the question of each."""
    responses = respond(lm, "test", args.questions)
    forced = [attempt.forced for attempt in responses.attempts]
    model = ForcedModel(lm.model)
    copies = Copies(
        model,
        [args.sigma, *args.other_sigma],
        n_references=1 + args.references,
        samples=args.samples,
        seed=args.seed,
    )
    parts: list[BlockScores] = []
    question: list[np.ndarray] = []
    total = int(responses.lengths.sum()) * copies.n_passes
    with model.ready(), tqdm(total=total, unit="token", unit_scale=True) as progress:
        for places in blocks(forced, 2048):
            parts.append(copies.score([forced[i] for i in places], progress))
            question += [np.full(responses.lengths[i], i) for i in places]
    joined = BlockScores(
        np.concatenate([part.references for part in parts], axis=1),
        np.concatenate([part.pooled for part in parts]),
        {
            sigma: np.concatenate([part.perfect[sigma] for part in parts])
            for sigma in parts[0].perfect
        },
    )
    return joined, np.concatenate(question)


def table(scores: BlockScores, question: np.ndarray) -> str:
    """Return the errors against one reference, and against all copies together."""
    first, others = scores.references[0], scores.references[1:]
    estimates = {
        "always 0": np.zeros_like(first),
        "mean of the reference": np.full_like(first, first.mean()),
        "one other reference": others[0],
        f"mean of {len(others)} other references": others.mean(axis=0),
        **{
            f"sum of perfect drafts, sigma {sigma:g}": values
            for sigma, values in scores.perfect.items()
        },
    }
    n_copies = f"all {scores.references.shape[0]} together"
    lines = [f"| estimate | mean | RMSE, one reference | RMSE, {n_copies} |", "|---|---|---|---|"]
    for name, estimate in estimates.items():
        cells = [f"{estimate.mean():.4f}"]
        for target in (first, scores.pooled):
            data = {"estimate": estimate, "reference": target}
            found = cluster_bootstrap(rmse, data, clusters=question)
            cells.append(f"{found.estimate:.4f} ({found.low:.4f}, {found.high:.4f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--target", default="tiny", help="(tiny)")
    add("--questions", type=int, default=200, help="test questions (200)")
    add("--references", type=int, default=8, help="other references (8)")
    add("--samples", type=int, default=10, help="M of each (10)")
    add("--sigma", type=float, default=0.1, help="of the reference (0.1)")
    add("--other-sigma", type=float, nargs="*", default=[0.07], help="of the teacher only (0.07)")
    add("--seed", type=int, default=1234, help="(1234)")
    args = parser.parse_args()
    lm = SampledLM(args.target, seed=args.seed, batch_size=64)
    print(table(*read_all(lm, args)))


if __name__ == "__main__":
    main()
