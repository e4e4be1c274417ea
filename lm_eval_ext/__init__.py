"""Pass@N, calibration and uncertainty for lm-evaluation-harness."""

__version__ = "0.2.0"


def evaluate_module(name: str) -> str:
    """Return the path of a metric for Hugging Face ``evaluate.load``, which needs no network.

    Parameters
    ----------
    name
        ``"ece"``, ``"brier"``, ``"auroc_hallucination"`` or ``"pass_at_k"``.

    Raises
    ------
    ValueError
        If there is no module of that name.

    Examples
    --------
    >>> evaluate_module("ece").endswith("ece.py")
    True
    """
    # Not at the top: this module is imported by every process that uses lm-eval.
    from pathlib import Path

    scripts = {path.stem: path for path in Path(__file__).parent.glob("evaluate_modules/*/*.py")}
    del scripts["__init__"]
    if name not in scripts:
        raise ValueError(f"no evaluate module {name!r}; there are {', '.join(sorted(scripts))}")
    return str(scripts[name])
