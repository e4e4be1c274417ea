"""What the studies' scripts share: options, resumable runs of lm_eval, and the files of a report.

A study's folder, given as ``--output``:

    plan.json  plan.md  pilot.json  pilot.md     before the runs, see plan.py
    parts.json                                   which parts are finished
    attempts/                                    every attempt, as `store=` keeps it
    runs/NAME/  runs/NAME.log                    lm_eval's results and samples of each run
    report/STUDY.md  STUDY.json  board/          tables and page, rewritten after every part

Runs that are there are not made again, and one that was stopped continues from its attempts.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from plan import PLAN, Judgement, Plan, judgement_records, judgement_table

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.leaderboard.run_comparison import check_same_questions
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.training.run import commit, versions, write_json
from lm_eval_ext.training.self_training.phase import die_with_parent

SEED = 1234
PARTS = "parts.json"


def add_study_options(parser: argparse.ArgumentParser, *, pretrained: str = "smollm2") -> None:
    """Declare the options of every study.

    Parameters
    ----------
    parser
        The script's.
    pretrained
        Default model.
    """
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder; the same command continues")
    add("--pretrained", help=f"model ({pretrained}; tiny with --smoke)")
    add("--smoke", action="store_true", help="a minute's run on tiny, which shows nothing")
    add("--full", action="store_true", help="whole test sets and N=64, for a GPU")
    add("--device", help="as for lm_eval: cpu, cuda, ...")
    add("--batch-size", default="auto", help="rows decoded at once (auto)")
    add("--seed", type=int, default=SEED, help=f"of sampling and of the questions ({SEED})")
    add("--hours", type=float, help="begin no further part after so many hours of this call")


@dataclass(frozen=True)
class Run:
    """A run of lm_eval.

    Parameters
    ----------
    name
        Of its folder.
    model
        lm_eval's ``--model``.
    task
        The task.
    questions
        Numbers of the questions, as for ``--samples``.
    attempts
        N; None for tasks with one answer.
    arguments
        More ``--model_args``, beside ``pretrained`` and ``store``.
    generation
        ``--gen_kwargs``.
    pretrained
        Another model than the study's.
    num_fewshot
        Solved examples; None: the task's own.
    seed
        Another seed than the study's.
    runs_code
        Whether grading runs what the model wrote.
    """

    name: str
    model: str
    task: str
    questions: Sequence[int]
    attempts: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    num_fewshot: int | None = None
    seed: int | None = None
    runs_code: bool = False


class Study:
    """A study at work in its folder.

    Parameters
    ----------
    plan
        Written into the folder first, or compared with the one that is there.
    args
        Parsed options of `add_study_options`.
    pretrained
        The model.
    """

    def __init__(self, plan: Plan, args: argparse.Namespace, pretrained: str) -> None:
        self.plan, self.folder, self.pretrained = plan, args.output, pretrained
        self.seed, self.device, self.batch_size = args.seed, args.device, args.batch_size
        self.commands: list[str] = []
        self.cut: list[str] = []
        self._end = None if args.hours is None else time.monotonic() + 3600 * args.hours
        begun = plan.keep(self.folder)
        print(f"{'continuing' if begun else 'plan:'} {self.folder / PLAN}.md", flush=True)

    def may_begin(self, part: str) -> bool:
        """Return whether there is time for a part, and note it as cut otherwise.

        Parameters
        ----------
        part
            What the report calls it.
        """
        if self._end is None or time.monotonic() < self._end:
            print(f"== {part}", flush=True)
            return True
        print(f"cut, as --hours are over: {part}", flush=True)
        self.cut.append(part)
        return False

    def finish(self, part: str) -> None:
        """Note that a part was run to its end.

        Parameters
        ----------
        part
            As for `may_begin`.
        """
        write_json(self.folder / PARTS, sorted({*self._finished(), part}))

    def _finished(self) -> list[str]:
        path = self.folder / PARTS
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def evaluate(self, run: Run) -> Path:
        """Run lm_eval, or see that it was done, and return its output folder.

        Parameters
        ----------
        run
            The run.
        """
        folder = self.folder / "runs" / run.name
        arguments = {"pretrained": run.pretrained or self.pretrained, **run.arguments}
        arguments |= {"store": str(self.folder / "attempts")}
        words = ["lm_eval", "--model", run.model, "--model_args", json.dumps(arguments)]
        words += ["--tasks", run.task]
        if len(run.questions) < len(docs_of(run.task)):
            words += ["--samples", json.dumps({run.task: sorted(run.questions)})]
        if run.attempts is not None:
            words += ["--metadata", json.dumps({"attempts": run.attempts})]
        if run.generation:
            pairs = (f"{name}={value}" for name, value in run.generation.items())
            words += ["--gen_kwargs", ",".join(pairs)]
        words += ["--batch_size", str(self.batch_size)]
        words += ["--seed", str(self.seed if run.seed is None else run.seed)]
        words += [] if run.num_fewshot is None else ["--num_fewshot", str(run.num_fewshot)]
        words += ["--device", self.device] if self.device else []
        words += ["--confirm_run_unsafe_code"] if run.runs_code else []
        words += ["--log_samples", "--output_path", str(folder)]
        self.command(
            words, log=folder.parent / f"{run.name}.log", done=lambda: _has_results(folder)
        )
        return folder

    def command(
        self,
        words: Sequence[str],
        *,
        log: Path,
        done: Callable[[], bool],
        output: Path | None = None,
    ) -> None:
        """Run a command of this package's or of lm-eval's, unless that is done.

        Parameters
        ----------
        words
            ``lm_eval`` or ``lm-eval-ext``, and its arguments.
        log
            Gets what it prints.
        done
            Tells whether it was run to its end.
        output
            Gets what it prints on standard output instead.
        """
        shown = shlex.join(words).replace(str(self.folder), "OUT")
        if shown not in self.commands:
            self.commands.append(shown)
        if done():
            return
        module = {"lm_eval": "lm_eval", "lm-eval-ext": "lm_eval_ext"}[words[0]]
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"+ {_shortened(shown)}", flush=True)
        begun = time.monotonic()
        with (
            log.open("a", encoding="utf-8") as errors,
            errors if output is None else output.open("w", encoding="utf-8") as file,
        ):
            code = subprocess.run(
                [sys.executable, "-m", module, *words[1:]],
                stdout=file,
                stderr=errors,
                check=False,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            ).returncode
        if code or not done():
            print("\n".join(log.read_text(encoding="utf-8").splitlines()[-20:]), file=sys.stderr)
            raise UserError(f"that failed, see {log}; the study's same command continues it")
        print(f"  {time.monotonic() - begun:.0f} s", flush=True)

    def report(
        self, judged: Sequence[Judgement], sections: Sequence[str], data: Mapping[str, Any]
    ) -> None:
        """Write the tables, in a form that can be copied to ``leaderboards/``.

        Parameters
        ----------
        judged
            Verdicts about the plan's claims.
        sections
            Further Markdown.
        data
            Further results, JSON-serializable.
        """
        folder, name = self.folder / "report", self.plan.study
        folder.mkdir(exist_ok=True)
        cut = [f"Not run: {part}." for part in self.cut]
        shown = map(_shortened, self.commands)
        commands = ["### Commands", "", "```console", *shown, "```", ""]
        plan = [line.replace("# ", "### ", 1) for line in self._kept("plan.md")]
        pilot = [line.replace("# ", "### ", 1) for line in self._kept("pilot.md")]
        lines = [*judgement_table(judged), "", *cut, *([""] if cut else []), *sections, ""]
        text = "\n".join([*lines, *plan, "", *pilot, "", *commands])
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        record = {
            "study": name,
            "verdicts": judgement_records(judged),
            "cut": self.cut,
            **data,
            "commands": self.commands,
            "versions": versions(),
            "commit": commit(),
        }
        write_json(folder / f"{name}.json", record)

    def _kept(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def board(self, name: str, runs: Sequence[str], *, metrics: str) -> list[str]:
        """Build the page of some runs of one task, and return their comparison as Markdown.

        Parameters
        ----------
        name
            Of the folder in the report.
        runs
            Their names; the first is the baseline.
        metrics
            Patterns, as for ``lm-eval-ext leaderboard compare``.
        """
        folders = [str(self.folder / "runs" / run) for run in runs]
        board, log = self.folder / "report" / name, self.folder / "board.log"
        shutil.rmtree(board, ignore_errors=True)
        words = ["lm-eval-ext", "leaderboard", "build", *folders, "--output", str(board)]
        self.command(words, log=log, done=(board / "index.html").exists)
        if len(runs) < 2:
            return []
        table = board / "compare.md"
        words = ["lm-eval-ext", "leaderboard", "compare", *folders, "--metrics", metrics]
        words += ["--format", "markdown"]
        self.command(words, log=log, done=table.exists, output=table)
        lines = table.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip()]


def questions_of(task: str, n: int | None, *, seed: int, among: Callable[[Any], bool]) -> list[int]:
    """Choose questions of a task at random: more of them contain fewer.

    Parameters
    ----------
    task
        Its name.
    n
        How many; None: all.
    seed
        Of the choice.
    among
        Tells which questions may be chosen.

    Returns
    -------
    list of int
        Numbers as for ``--samples``, in the order of the choice.
    """
    numbers = [number for number, doc in enumerate(docs_of(task)) if among(doc)]
    random.Random(f"{seed}:{task}").shuffle(numbers)
    return numbers[:n]


@cache
def docs_of(task: str) -> list[dict[str, Any]]:
    """Return the questions of a task."""
    return harness.task_docs(task)


def values_of(run: RunOutput, metric: str, questions: Sequence[int] | None = None) -> Any:
    """Return a metric's value at each question of a run of one task, by question number.

    Parameters
    ----------
    run
        The run.
    metric
        A mean over questions, such as ``pass@16``.
    questions
        Only these.
    """
    (task,) = run.tasks.values()
    values = task.values[metric]
    return np.array([values[i] for i in (sorted(values) if questions is None else questions)])


def read_runs(folders: Sequence[Path]) -> list[RunOutput]:
    """Read runs of one task, and refuse them if they did not see the same questions.

    Parameters
    ----------
    folders
        Output folders.
    """
    runs = [read_run(folder) for folder in folders]
    check_same_questions(runs, next(iter(runs[0].tasks)))
    return runs


def _has_results(folder: Path) -> bool:
    return any(folder.rglob("results_*.json"))


def _shortened(text: str, length: int = 300) -> str:
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"
