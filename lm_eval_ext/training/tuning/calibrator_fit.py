"""Fit a calibrator with scikit-learn, and cross-fit it by question."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.calibrator import Calibrator, Layer
from lm_eval_ext.training.tuning.options import Method

HIDDEN = 16
N_FOLDS = 5

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


class Fitted(NamedTuple):
    """The numbers of a fit; see `lm_eval_ext.methods.calibrator.Calibrator`."""

    center: FloatArray
    scale: FloatArray
    layers: tuple[Layer, ...]
    steps: FloatArray | None

    def probability(self, values: FloatArray) -> FloatArray:
        """Return the probability of each attempt, as the file's reader would."""
        nowhere: frozenset[str] = frozenset()
        return Calibrator("", (), 0, *self, nowhere, nowhere).probability(values)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as the file has them."""
        steps = None
        if self.steps is not None:
            steps = {"score": self.steps[0].tolist(), "probability": self.steps[1].tolist()}
        return {
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "layers": [
                {"weights": layer.weights.tolist(), "bias": layer.bias.tolist()}
                for layer in self.layers
            ],
            "steps": steps,
        }


def fit(values: FloatArray, correct: FloatArray, method: Method, *, seed: int = 0) -> Fitted:
    """Fit the probability that an attempt is correct.

    Parameters
    ----------
    values
        Sources of each attempt, shape (n_attempts, n_sources), all finite.
    correct
        Verdicts 0/1, shape (n_attempts,), of both kinds.
    method
        ``"logistic"``, ``"isotonic"`` or ``"mlp"``.
    seed
        Of the first weights of the network.
    """
    from sklearn.linear_model import LogisticRegression

    center, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (values - center) / scale
    if method == "mlp":
        return Fitted(center, scale, _network(x, correct, seed), None)
    model = LogisticRegression(max_iter=1_000).fit(x, correct)
    layers = (Layer(model.coef_.T.copy(), model.intercept_.copy()),)
    fitted = Fitted(center, scale, layers, None)
    if method == "logistic":
        return fitted
    return fitted._replace(steps=_steps(model.decision_function(x), correct))


def _network(x: FloatArray, correct: FloatArray, seed: int) -> tuple[Layer, ...]:
    from sklearn.neural_network import MLPClassifier

    # L-BFGS: small data, and no learning rate to choose.
    model = MLPClassifier((HIDDEN,), solver="lbfgs", alpha=1.0, max_iter=2_000, random_state=seed)
    model.fit(x, correct)
    return tuple(
        Layer(weights.copy(), bias.copy())
        for weights, bias in zip(model.coefs_, model.intercepts_, strict=True)
    )


def _steps(score: FloatArray, correct: FloatArray) -> FloatArray:
    from sklearn.isotonic import IsotonicRegression

    # As many right answers in a row do not make one that is certain: Laplace's rule of succession.
    least = 1 / (len(correct) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    model.fit(score, correct)
    return np.array([model.X_thresholds_, model.y_thresholds_])


def cross_fitted(
    values: FloatArray,
    correct: FloatArray,
    groups: IntArray,
    method: Method,
    *,
    n_folds: int = N_FOLDS,
    seed: int = 0,
) -> FloatArray:
    """Return for each attempt the probability by a fit that has not seen its group.

    Parameters
    ----------
    values, correct, method
        As in `fit`.
    groups
        Number of each attempt's group of questions, shape (n_attempts,): a group is in one fold.
    seed
        Of the folds and the fits.

    Returns
    -------
    numpy.ndarray
        Shape (n_attempts,).

    Raises
    ------
    UserError
        If there are fewer groups than folds, or a fit would see one outcome only.
    """
    from sklearn.model_selection import GroupKFold

    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise UserError(
            f"{n_groups} different questions (numbers apart) are too few for {n_folds} folds: give "
            "a run on more training problems"
        )
    found = np.empty(len(correct))
    folds = GroupKFold(n_folds, shuffle=True, random_state=seed)
    for seen, left_out in folds.split(values, correct, groups):
        if len(np.unique(correct[seen])) < 2:
            raise UserError(
                "the attempts have one outcome only, so nothing tells right from wrong ones: give "
                "a run on more or other training problems"
            )
        fitted = fit(values[seen], correct[seen], method, seed=seed)
        found[left_out] = fitted.probability(values[left_out])
    return found
