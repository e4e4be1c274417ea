"""The options of the commands that read finished runs; imports nothing heavy."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lm_eval_ext.checks import check_at_least, option, required
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.leaderboard.tables import COLUMNS

RESULTS = Path("leaderboards/results")
Form = Literal["json", "md", "csv", "tex", "html"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class StoredResults:
    """Where stored entries are."""

    results: Path = option("folder of stored entries", RESULTS)


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """Which metrics a command looks at."""

    metrics: tuple[str, ...] | None = option(
        "these, with * for anything: 'pass@*,maj@*'; all are tested together. By default few, by "
        "name: pass@1, pass@ and maj@ of the most attempts, accuracy and such, debiased_ece and "
        "hallucination_auroc of the method's own confidence"
    )


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """How a table is printed."""

    format: Literal["text", "markdown"] = option("form of the table", "text")
    json: bool = option("print JSON with every number instead", False)

    @property
    def markdown(self) -> bool:
        """Whether the table is Markdown."""
        return self.format == "markdown"


@dataclass(frozen=True)
class AddOptions(StoredResults):
    """Store finished runs as small JSON files.

    Example: lm-eval-ext leaderboard add out/rsp --label rsp-8
    """

    folders: tuple[Path, ...] = required(
        "--output_path of lm_eval, or a folder of such: every run below it is added"
    )
    _: KW_ONLY
    label: str | None = option(
        "name of the run in tables, if it is one; by default the folder given to lm_eval"
    )
    replace: bool = option("remove other entries with the same label", False)


@dataclass(frozen=True)
class BuildOptions(StoredResults):
    """Write the board of many runs as Markdown, CSV, JSON, LaTeX and HTML.

    Example: lm-eval-ext leaderboard build out/sampled out/rsp --output board
    """

    runs: tuple[str, ...] = option(
        "--output_path of lm_eval runs or a folder of such, files of stored entries or their names "
        "in --results; by default all entries in --results",
        (),
    )
    _: KW_ONLY
    output: Path = option(
        "folder of board.md, board.csv, board.json, board.tex and index.html", Path("leaderboards")
    )
    formats: tuple[Form, ...] | None = option("only these; by default all, html with Plotly")
    open: bool = option("open the page in the browser", False)
    metrics: tuple[str, ...] | None = option(
        "these, with * for anything; by default all of questions, the usual ones of confidence, "
        "and all in an entry"
    )
    columns: tuple[str, ...] = option(
        "metrics with a column in Markdown and LaTeX, with * for anything; pass@K is the largest k",
        COLUMNS,
    )
    processes: int | None = option(
        "processes that read runs; by default one per core, for more than one folder"
    )
    page: PageLimits = field(default_factory=PageLimits, metadata={"prefix": "page"})


@dataclass(frozen=True)
class CheckOptions(StoredResults, MetricNames, TableForm):
    """Fail where a run is significantly worse than a stored one.

    Example: lm-eval-ext leaderboard check out/today --baseline sampled-v1
    """

    run: str = required("--output_path of the lm_eval run to check, or a stored entry")
    _: KW_ONLY
    baseline: str = required(
        "stored entry (its file, or its name in --results) or output folder to compare with"
    )
    alpha: float = option("level of the tests, corrected for their number", 0.05)
    all: bool = option("list all metrics, and not only those that moved", False)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha={self.alpha:g} must be between 0 and 1")


@dataclass(frozen=True)
class CompareOptions(StoredResults, MetricNames, TableForm):
    """Compare runs on the same questions in one table.

    Example: lm-eval-ext leaderboard compare out/sampled out/rsp --metrics 'pass@*,maj@*'
    """

    runs: tuple[str, ...] = required(
        "--output_path of lm_eval runs with --log_samples, or stored entries (their files, or "
        "their names in --results); the first is the baseline"
    )
    _: KW_ONLY
    plot: Path | None = option("also draw pass@k over k into this picture")

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise UserError(f"{self.runs[0]}: give at least two runs to compare")


@dataclass(frozen=True, kw_only=True)
class TaskNames:
    """Which tasks of a run are read."""

    tasks: tuple[str, ...] | None = option("only these tasks of the run")


@dataclass(frozen=True)
class SourcesOptions(TaskNames, TableForm):
    """Compare the confidence sources of one run.

    Example: lm-eval-ext leaderboard sources out/epicar --metrics auroc,brier
    """

    run: Path = required("--output_path of an lm_eval run with --log_samples")
    _: KW_ONLY
    metrics: tuple[str, ...] = option(
        "metrics of a confidence: auroc, within_question_auroc, auprc, aurc, prr, and of "
        "probabilities ece, debiased_ece, brier, nll",
        ("auroc",),
    )
    against: str = option("the source that the others are compared with", "mean_logprob")


@dataclass(frozen=True)
class VotesOptions(TaskNames, TableForm):
    """Set weighted votes against a baseline's majority vote.

    Example: lm-eval-ext leaderboard votes out/epicar --baseline out/sampled --k 16
    """

    run: Path = required("--output_path of an lm_eval run with --log_samples: the votes' run")
    _: KW_ONLY
    baseline: Path = required("the run whose majority vote is the target; may be the same")
    vote: tuple[str, ...] = option(
        "votes of the run: maj, cisc:SOURCE, linear:SOURCE, best_of:SOURCE",
        ("maj", "cisc:self_eval", "linear:self_eval", "best_of:self_eval"),
    )
    baseline_k: int | None = option("attempts in the target; by default all of a question")
    k: int = option("attempts in a vote to compare", 10)
    ks: tuple[int, ...] | None = option("points of the curves; by default 1 to --baseline-k")
    tau: float = option("temperature of cisc", 1.0)
    margin: float = option("by how much a vote that is not inferior may be worse", 0.01)
    output: Path | None = option("also write all points as JSON to this file")
    plot: Path | None = option("also draw the votes over k into this picture")

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise UserError(f"tau={self.tau} must be above 0")
        check_at_least(self, margin=0)


@dataclass(frozen=True)
class ScoreOptions(TaskNames):
    """Compute the metrics of a finished run again, without a model.

    Example: lm-eval-ext score out/epicar --ks 1,8 --tau 0.1
    """

    run: Path = required("--output_path of an lm_eval run with --log_samples")
    _: KW_ONLY
    metrics: tuple[str, ...] | None = option(
        "rows to print, with * for anything: '*' are all, which --output always has; by default "
        "those that a run prints"
    )
    attempts: int | None = option("only the first so many of each question")
    ks: tuple[int, ...] | None = option("k of pass@k, such as 1,8,64")
    vote_ks: tuple[int, ...] | None = option("k of the votes, likewise")
    tau: float | None = option("temperature of the softmax vote")
    bins: int | None = option("bins of the calibration error")
    regrade: bool = option("judge every attempt again with the task's grader", False)
    confirm_run_unsafe_code: bool = option("let --regrade run programs that a model wrote", False)
    calibrator: Path | None = option(
        "add the probability of this file of lm-eval-ext train calibrator, as the source calibrated"
    )
    store: Path | None = option(
        "the store= of the run: adds the sources that need each token's log-probability to a run "
        "that was logged without them"
    )
    json: bool = option("print JSON instead of a table", False)
    output: Path | None = option("also write JSON to this file")

    def __post_init__(self) -> None:
        if self.output is not None and not self.output.absolute().parent.is_dir():
            raise UserError(f"output={self.output}: no folder {self.output.parent}; make it first")
