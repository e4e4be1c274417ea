"""Give any generation task of lm-eval N attempts per question, and the metrics that need them.

A task file names the class and the grader of its answers::

    task: gsm8k_passn
    class: !function lm_eval_ext.task.AttemptsTask
    grader: gsm8k
    metrics: passn
    ...

An existing task, lm-eval's own included, gets N attempts from a group around it; its own filters
and its own metric then judge each attempt::

    group: gsm8k_cot_passn
    task:
      - task: gsm8k_cot
        class: !function lm_eval_ext.task.AttemptsTask

``--metadata '{"attempts": 64, "ks": [1, 8, 64]}'`` sets the number of attempts and the k of pass@k;
``{"report": "all"}`` prints every row of the results instead of those that speak for the task;
``{"store": "FOLDER"}`` keeps the attempts of a model of any type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean_stderr
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask
from tqdm import tqdm

from lm_eval_ext.checks import check_choice
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import (
    UNFINISHED_THOUGHT,
    Attempt,
    check_family,
    grade_many,
    grade_questions,
)
from lm_eval_ext.grading.attempt_details import AttemptDetails, attempt_details
from lm_eval_ext.grading.responses import Responses, ResponseThoughts, first_text, with_record
from lm_eval_ext.grading.run_report import RunReport
from lm_eval_ext.harness.attempt_seeds import ask_with_own_seeds
from lm_eval_ext.harness.attempt_settings import REPORTS, read_settings, single_answer
from lm_eval_ext.harness.bridge import unsupported_release
from lm_eval_ext.harness.kept_answers import keep_with
from lm_eval_ext.harness.requests import info_logger, model_arguments
from lm_eval_ext.harness.task_config import (
    about_decoding,
    about_equal_attempts,
    explicit_sampling,
    for_attempts,
    invalid_answers,
    is_greedy,
    parameters_of,
)
from lm_eval_ext.scoring.metric_suites import SINGLE_ANSWER, suite
from lm_eval_ext.scoring.question import QuestionResult
from lm_eval_ext.scoring.run_rows import RunRows
from lm_eval_ext.store.kept_responses import kept_responses

logger = logging.getLogger(__name__)
shown = info_logger(__name__)


class AttemptsTask(ConfigurableTask):
    """A generation task with N attempts per question.

    Four keys of a task file are its own, beside those of lm-eval:

    ``grader``
        Family of `lm_eval_ext.grading` that judges the attempts. Without it, each attempt goes
        through the task's own filters and metric as if it were the only response.
    ``verdict``
        Without a grader: which metric of the task says whether an attempt is correct. It must be
        aggregated by ``mean`` and is read as 0 or 1; the first of ``metric_list`` by default.
    ``metrics``
        A suite of `lm_eval_ext.scoring.metric_suites`: ``passn``, the default, or ``calib`` or
        ``eu``, which make one attempt whatever the metadata says.
    ``chat``
        Whether the prompt is written for a chat template; a run that disagrees says so.

    In ``metadata``, ``attempts`` and the options of the metrics are reserved; see `read_settings`.
    ``store`` there names a folder that keeps the attempts of a model of any type; see
    `lm_eval_ext.store.kept_responses`.

    Parameters
    ----------
    config
        The task's configuration, as lm-eval reads it from the task file.

    Raises
    ------
    UserError
        For a task that does not generate, an unknown grader or suite, a metric that cannot be a
        verdict, invalid settings, or an lm-eval that is not supported.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        name = config.get("task")
        unsupported = unsupported_release()
        if unsupported is not None:
            raise UserError(f"task {name}: {unsupported}")
        self.grader: str | None = config.pop("grader", None)
        self._verdict: str | None = config.pop("verdict", None)
        self.chat = bool(config.pop("chat", False))
        if self.grader is not None:
            check_family(self.grader)
        if config.get("output_type", "generate_until") != "generate_until":
            raise UserError(
                f"task {name}: output_type={config['output_type']} has no attempts to sample; "
                "AttemptsTask needs a task with output_type: generate_until"
            )
        metadata, written = (dict(config.get(k) or {}) for k in ("metadata", "generation_kwargs"))
        self._report = metadata.pop("report", REPORTS[0])
        check_choice("report", self._report, REPORTS)
        metrics = config.pop("metrics", "passn")
        known = model_arguments() | parameters_of(config.get("custom_dataset"))
        self.settings = (
            single_answer(metadata, known=known)
            if metrics in SINGLE_ANSWER
            else read_settings(metadata, config.get("repeats"), known=known)
        )
        self.metrics = suite(metrics, self.settings)
        super().__init__(config=for_attempts(config, metadata, self.settings, self.grader, metrics))
        self._written_kwargs = dict(written)
        self._keeper = kept_responses(metadata)
        if self.grader is None:
            self._verdict = self._check_verdict()
        self._rows = RunRows(
            str(name), self.metrics, mean=get_aggregation("mean"), mean_error=mean_stderr
        )
        self._aggregation_list = self._rows
        self._higher_is_better: dict[str, bool | None] = {}
        self._invalid_answers = invalid_answers(self.config.filter_list or [])
        self._warned: set[str] = set()
        self._response_thoughts = ResponseThoughts(str(name), metadata)
        self._run_report = RunReport(str(name))
        self._n_unreported = 0  # questions, once by each filter
        self._timing = Timing()
        self._is_first_process = True

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        """Load the data; a ``custom_dataset`` without lm-eval's warning that it is one."""
        if not callable(self.config.custom_dataset):
            super().download(dataset_kwargs, **options)
            return
        keywords = {**(self.config.metadata or {}), **(dataset_kwargs or {})}
        self.dataset = self.config.custom_dataset(**keywords)

    def build_all_requests(self, **options: Any) -> None:
        """Build one request per question, which lm-eval repeats N times.

        Requests from lm-eval's request cache carry the number of attempts and the sampling of the
        run that wrote them; this run's replace them.

        Raises
        ------
        UserError
            On every process, if there are fewer questions than processes.
        """
        self._check_share(options)
        self._is_first_process = not options.get("rank")
        self._response_thoughts.know_model(options.get("chat_template"))
        super().build_all_requests(**options)
        generation_kwargs = explicit_sampling(self.config.generation_kwargs)
        attempts = self.settings.attempts
        if attempts > 1:
            self._warn_once(about_decoding(generation_kwargs, self._written_kwargs, attempts))
        for instance in self._instances:
            instance.repeats = attempts
            context, _, *others = instance.arguments
            instance.arguments = (context, deepcopy(generation_kwargs), *others)
            ask_with_own_seeds(instance)
            if self._keeper is not None:
                keep_with(instance, self._keeper)

    def _check_share(self, options: Mapping[str, Any]) -> None:
        """Refuse, where all processes do alike, what only those without a question would notice."""
        n_processes = int(options.get("world_size") or 1)
        asked, limit = options.get("samples") or self.eval_docs, options.get("limit")
        n_questions = min(len(asked), int(limit or len(asked)))
        if n_questions < n_processes:
            raise UserError(
                f"task {self.task_name}: {n_questions} question(s) for {n_processes} processes, "
                f"and each needs one: lower --num_processes to {n_questions}, or raise --limit"
            )

    def apply_filters(self) -> None:
        """Run every filter pipeline on each attempt by itself.

        ``filtered_resps`` of a question is the list of its filtered attempts, each with the record
        that the filter dropped.
        """
        for instance in self._instances:
            # Several ranks pad their batches with copies of the last request.
            del instance.resps[self.settings.attempts :]
        self._n_unreported = len(self._instances) * len(self._filters)
        thoughts = self._response_thoughts.read(self._instances, self.doc_to_prefix)
        if not is_greedy(self._instances[0].args[1]):
            self._warn_once(about_equal_attempts([one.resps for one in self._instances]))
        for pipeline in self._filters:
            singles = [
                Instance(
                    request_type=instance.request_type,
                    doc=instance.doc,
                    arguments=instance.arguments,
                    idx=instance.idx,
                    resps=[response],
                )
                for instance in self._instances
                for response in instance.resps
            ]
            pipeline.apply(singles)
            filtered = iter(singles)
            for instance, of_responses in zip(self._instances, thoughts, strict=True):
                responses = [
                    with_record(next(filtered).filtered_resps[pipeline.name], response)
                    for response in instance.resps
                ]
                instance.filtered_resps[pipeline.name] = Responses(
                    responses, of_responses, instance.resps
                )
            if self.grader is not None and "bypass" not in self._metric_fn_list:
                self._grade(pipeline.name, self.grader)

    def _grade(self, pipeline: str, grader: str) -> None:
        """Grade all questions, several at once; the verdicts go along with the attempts."""
        questions = [
            instance.filtered_resps[pipeline].to_grade(instance.doc) for instance in self._instances
        ]
        verdicts = tqdm(
            grade_questions(grader, questions),
            total=len(questions),
            desc=f"Grading {self.task_name}",
            unit="question",
            disable=None,
        )
        responses = [instance.filtered_resps[pipeline] for instance in self._instances]
        with self._timing.part("grading", sum(one.n_tokens for one in responses)):
            for of_question, attempts in zip(responses, verdicts, strict=True):
                of_question.verdicts = attempts
        if self._is_first_process:
            n_attempts = sum(map(len, responses))
            shown.info("%s: %d attempts: %s", self.task_name, n_attempts, self._timing.line())

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> QuestionResult:
        """Judge the attempts at one question and compute its metrics.

        Parameters
        ----------
        doc
            The question's record.
        results
            One element: the list of its filtered attempts.

        Returns
        -------
        QuestionResult
            One value per metric, and ``attempts``, what is logged of each attempt.
        """
        filtered = Responses.of(results[0])
        if "bypass" in self._metric_fn_list:  # --predict_only
            ungraded = [attempt_details(i, text, None) for i, text in enumerate(filtered.texts)]
            return QuestionResult({"bypass": None}, attempts=ungraded)
        if len(filtered) < self.settings.attempts:
            self._warn_once(
                "a question has %d attempts instead of %d: pass@k with more than that and maj@N "
                "are NaN",
                len(filtered),
                self.settings.attempts,
            )
        attempts = self._judge(doc, filtered)
        question = [
            attempt_details(i, first_text(text), attempt, thought)
            for i, (text, attempt, thought) in enumerate(
                zip(filtered, attempts, filtered.thoughts, strict=True)
            )
        ]
        self._run_report.add(question, [str(text) for text in filtered.texts])
        self._n_unreported -= 1
        if self._n_unreported == 0:
            self._run_report.write()
        with self._rows.noting("a confidence"):
            values = self.metrics.values(question)
        for name in values:
            self._higher_is_better.setdefault(name, self.metrics[name].higher_is_better)
        return QuestionResult(values, attempts=question)

    def dump_config(self) -> dict[str, Any]:
        """Return the configuration for the results file, functions by their names."""
        config: dict[str, Any] = super().dump_config()
        few_shot = config.get("fewshot_config") or {}
        config["fewshot_config"] = {key: _name_of(value) for key, value in few_shot.items()}
        if callable(self.config.custom_dataset):
            config["custom_dataset"] = _name_of(self.config.custom_dataset)
        if "bypass" not in self._metric_fn_list:
            config["metric_list"] = self._scalar_metrics()
        if self._timing.record():
            config["timing"] = self._timing.record()
        self._rows.warn()
        # Rows of several filters would need the filters' names: lm-eval's own table has them.
        if self._report == "headline" and len(self._filters) == 1 and self._rows.headline():
            config["headline"] = self._rows.headline()
        return config

    def _scalar_metrics(self) -> list[dict[str, Any]]:
        """Return the metrics that are one number per question, for lm-eval's W&B logger."""
        bare = [
            AttemptDetails(attempt=i, answer=None, correct=False)
            for i in range(self.settings.attempts)
        ]
        return [
            {"metric": name, "higher_is_better": metric.higher_is_better}
            for name, metric in self.metrics.metrics.items()
            if isinstance(metric.value(bare), (int, float))
        ]

    def _judge(self, doc: Mapping[str, Any], responses: Responses) -> list[Attempt]:
        if responses.verdicts is not None:
            return responses.verdicts
        if self.grader is not None:
            return grade_many(self.grader, *responses.to_grade(doc))
        return [
            UNFINISHED_THOUGHT if is_unfinished else self._judge_by_metric(doc, text)
            for text, is_unfinished in zip(responses, responses.unfinished, strict=True)
        ]

    def _judge_by_metric(self, doc: Mapping[str, Any], filtered: Any) -> Attempt:
        """Judge an attempt as the task itself would judge a single response."""
        response = str(filtered) if isinstance(filtered, str) else filtered
        scores = super().process_results(doc, [response])
        if self._verdict not in scores:
            raise UserError(
                f"task {self.task_name}: no metric {self._verdict} among {', '.join(scores)}; "
                "name the one that judges an attempt with the key verdict"
            )
        score = float(scores[self._verdict])
        if score not in (0.0, 1.0):
            self._warn_once(
                "%s of an attempt is %g: an attempt counts as correct only where it is 1",
                self._verdict,
                score,
            )
        answer = first_text(filtered)
        if not isinstance(answer, str) or answer.strip() in self._invalid_answers:
            return Attempt(answer=None, correct=False)
        return Attempt(answer=str(answer), correct=score == 1.0)

    def _check_verdict(self) -> str:
        """Return the metric that judges an attempt; called while the task's own are in place."""
        metrics = {
            metric: getattr(aggregation, "__name__", str(aggregation))
            for metric, aggregation in self._aggregation_list.items()
        }
        verdict = self._verdict or next(iter(metrics), None)
        if verdict is None or metrics.get(verdict) != "mean":
            raise UserError(
                f"task {self.task_name}: an attempt is judged by a 0/1 metric aggregated by mean, "
                f"not by {verdict}; name one with the key verdict (the task has "
                f"{', '.join(f'{m} by {a}' for m, a in metrics.items()) or 'no metric'})"
            )
        return verdict

    def _warn_once(self, message: str | None, *values: Any) -> None:
        if message and message not in self._warned:
            self._warned.add(message)
            logger.warning("%s: " + message, self.task_name, *values)


def _name_of(value: Any) -> Any:
    if not callable(value):
        return value
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
