"""Boards: the same numbers in every form, foreign texts that stay texts, and the command."""

import csv
import io
import json
import math
import re

import click
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.options import parse
from lm_eval_ext.leaderboard import build
from lm_eval_ext.leaderboard.board import board_of
from lm_eval_ext.leaderboard.entry import write_entry
from lm_eval_ext.leaderboard.formatting import csv_text, latex_text, markdown_text, printed
from lm_eval_ext.leaderboard.options import BuildOptions
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.tables import as_csv, as_latex, as_markdown, chosen_metrics
from lm_eval_ext.leaderboard.task_samples import HEADLINE

TASK = "synthetic_passn"


@pytest.fixture(scope="module")
def board(made_up_runs):
    return board_of([read_run(f, pooled=HEADLINE) for f in made_up_runs.values()])


def build_board(*words):
    return build.run(parse(BuildOptions, [str(word) for word in words]))


def test_numbers_are_those_of_score_in_every_form(made_up_runs, board, tmp_path):
    for label, folder in made_up_runs.items():
        scored = tmp_path / f"{label}.json"
        assert main(["score", str(folder), "--output", str(scored)]) == 0
        metrics = json.loads(scored.read_text())["tasks"][TASK]["metrics"]
        cells = {c["metric"]: c for c in board["cells"] if c["run"].startswith(f"{label}-")}
        assert len(cells) > 20
        for name, cell in cells.items():
            expected = metrics[name]
            # Both have null where an end of an interval is not known.
            assert [cell[key] for key in ("value", "low", "high", "n")] == [
                expected[key] for key in ("value", "low", "high", "n_questions")
            ]
            low, high = (math.nan if cell[end] is None else cell[end] for end in ("low", "high"))
            assert cell["printed"] == printed(cell["value"], low, high)
    rows = list(csv.DictReader(io.StringIO(as_csv(board))))
    assert [row["printed"] for row in rows] == [cell["printed"] for cell in board["cells"]]
    assert [float(row["value"]) for row in rows] == [cell["value"] for cell in board["cells"]]
    shown = chosen_metrics(board["tasks"][0], ["*"])
    markdown = as_markdown(board, columns=["*"])
    latex = as_latex(board, columns=["*"])
    for run in board["runs"]:
        own = [c for c in board["cells"] if c["run"] == run["id"]]
        (line,) = [x for x in markdown.splitlines() if x.startswith(f"| {run['label']} |")]
        (row,) = [x for x in latex.splitlines() if x.startswith(f"{run['label']} &")]
        # An interval that is not symmetric is printed by its ends. A confidence that ranks all
        # attempts at a question perfectly has none.
        number = r"-?[\d.]+ (?:± [\d.]+|\([\d.]+, [\d.]+\))"
        in_markdown = re.findall(number, line)
        in_latex = re.findall(number, row.replace(r"$\pm$", "±"))
        assert in_markdown == in_latex == [c["printed"] for c in own if " " in c["printed"]]
        assert len(own) == len(shown)


def test_schema(board):
    assert board.keys() == {"schema", "runs", "tasks", "cells", "details", "noise"}
    assert board["schema"] == "lm_eval_ext.board/1"
    assert board["runs"][0].keys() == {
        *("id", "label", "model", "wrapper", "date", "settings", "versions", "seconds", "folder")
    }
    assert board["tasks"][0].keys() == {"name", "n_questions", "metrics"}
    assert board["tasks"][0]["metrics"][0] == {"name": "pass@1", "higher_is_better": True}
    assert board["cells"][0].keys() == {
        *("run", "task", "metric", "value", "low", "high", "n", "printed", "rank", "best")
    }
    assert board["details"][0].keys() == {
        *("run", "task", "attempts", "temperature", "num_fewshot", "truncated_rate"),
        *("invalid_rate", "tokens", "seconds", "tokens_per_second", "samples_sha256"),
    }
    assert board["runs"][0]["date"] == "2026-01-01T00:00:00Z"
    assert len({run["id"] for run in board["runs"]}) == 3
    json.dumps(board, allow_nan=False)


def test_ranks_and_the_best_are_shown(board):
    cells = {c["run"].split("-")[0]: c for c in board["cells"] if c["metric"] == "pass@1"}
    assert cells["able"]["best"]
    assert [cells[label]["rank"] for label in ("able", "average", "weak")] == [1, 2, 3]
    markdown = as_markdown(board)
    assert f"**{cells['able']['printed']}** (1)" in markdown
    assert f"{cells['weak']['printed']} (3)" in markdown
    in_latex = cells["able"]["printed"].replace("±", r"$\pm$")
    assert rf"\textbf{{{in_latex}}} (1)" in as_latex(board)
    # Runs stand in the order of the first metric.
    order = re.findall(r"^\| (able|average|weak) ", markdown, flags=re.MULTILINE)
    assert order == ["able", "average", "weak"]


def test_columns():
    metrics = [{"name": n} for n in ("pass@1", "pass@16", "pass@8", "pass^16", "maj@16", "x:y")]
    task = {"metrics": metrics}
    assert chosen_metrics(task, ["maj@K", "pass@K", "pass@1"]) == ["pass@1", "pass@16", "maj@16"]
    assert chosen_metrics(task, ["x:*"]) == ["x:y"]
    assert chosen_metrics(task, ["nothing"]) == ["pass@1"]


HOSTILE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r\n=1",
    "<script>alert(1)</script>",
    "a|b\nc",
    "[x](javascript:alert(1))",
    "`code` **bold** _it_",
    "\\input{/etc/passwd} $x$ 50% #1 ~ ^ {",
    'plain, "quoted"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_texts_mean_nothing(made_up_runs, text):
    runs = [read_run(folder, label=text) for folder in list(made_up_runs.values())[:2]]
    for run in runs:
        run.results["model_name"] = text
        run.results["config"]["model"] = text
    board = board_of(runs)
    for row in csv.reader(io.StringIO(as_csv(board))):
        assert not [cell for cell in row[:5] if cell[:1] in "=+-@\t\r" and cell]
        assert len(row) == 22
    markdown = as_markdown(board)
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert len(counts) == 2  # of values and of noise: no cell of its own, no line of its own
    assert not re.search(r"(?<!\\)[<`\[]", markdown)
    latex = as_latex(board)
    assert not re.search(r"\\input|(?<!\\)[#^~]|(?<!\\)\$(?!\\)(?!&)x", latex)
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")


def test_escapes():
    assert csv_text("=1") == "'=1"
    assert csv_text("a=1") == "a=1"
    assert csv_text(" \t@x") == "'@x"
    assert markdown_text("a_b _c_ a|b") == r"a_b \_c\_ a\|b"
    assert latex_text("\\") == r"\textbackslash{}"


def test_command_with_folders_and_entries(made_up_runs, tmp_path, capsys):
    store = tmp_path / "store"
    write_entry(read_run(made_up_runs["weak"], pooled=["*"]), store)
    (store / "broken.json").write_text("{")
    output = tmp_path / "out"
    arguments = [made_up_runs["able"], made_up_runs["average"], *sorted(store.iterdir())]
    options = ["--output", output, "--formats", "json,md,csv,tex"]
    assert build_board(*arguments, *options) == 1
    err = capsys.readouterr().err
    assert [path.name for path in sorted(output.iterdir())] == [
        *("board.csv", "board.json", "board.md", "board.tex")
    ]
    assert "broken.json: not valid JSON" in err
    board = json.loads((output / "board.json").read_text())
    assert [run["label"] for run in board["runs"]] == ["able", "average", "weak"]
    assert board["runs"][2]["folder"] is None
    ranks = {c["run"][:4]: c["rank"] for c in board["cells"] if c["metric"] == "pass@1"}
    assert ranks == {"able": 1, "aver": 2, "weak": 3}  # paired across folders and entries
    assert build_board("--results", store, *options) == 1  # all entries of the store
    assert len(json.loads((output / "board.json").read_text())["runs"]) == 1


def test_one_run_given_twice_is_told(made_up_runs, tmp_path, capsys):
    folder = made_up_runs["weak"]
    path = write_entry(read_run(folder), tmp_path / "store")
    assert build_board(folder, path, "--output", tmp_path, "--formats", "json") == 1
    assert "is the same run as another one given" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "board.json").read_text())["runs"]) == 1


def test_several_processes_read_the_same(made_up_runs, tmp_path):
    for n in (1, 2):
        build_board(
            *made_up_runs.values(), "--output", tmp_path / str(n), "--formats", "json",
            "--processes", n,
        )  # fmt: skip
    first, second = (tmp_path / str(n) / "board.json" for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_of_runs_is_read_whole(made_up_runs, tmp_path):
    (folder,) = {path.parent for path in made_up_runs.values()}
    assert build_board(folder, "--output", tmp_path, "--formats", "json") == 0
    board = json.loads((tmp_path / "board.json").read_text())
    assert [run["label"] for run in board["runs"]] == ["able", "average", "weak"]


def test_without_plotly_all_but_the_page_is_written(made_up_runs, tmp_path, monkeypatch, capsys):
    found = build.importlib.util.find_spec
    monkeypatch.setattr(
        build.importlib.util, "find_spec", lambda name: None if name == "plotly" else found(name)
    )
    assert build_board(made_up_runs["weak"], "--output", tmp_path) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".md", ".tex"]
    assert "no page: it needs plotly; pip install" in capsys.readouterr().err


def test_the_page_is_opened(made_up_runs, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(build.webbrowser, "open", opened.append)
    assert build_board(made_up_runs["weak"], "--output", tmp_path, "--open") == 0
    assert opened == [(tmp_path / "index.html").as_uri()]


def test_the_page_is_built_from_the_same_board(made_up_runs, tmp_path):
    assert build_board(made_up_runs["weak"], "--output", tmp_path, "--formats", "json,html") == 0
    page = (tmp_path / "index.html").read_text()
    board = json.loads((tmp_path / "board.json").read_text())
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert board["runs"][0]["id"] in page


def test_user_errors(made_up_runs, tmp_path):
    with pytest.raises(ValueError, match="holds no entries"):
        build_board("--results", tmp_path)
    with pytest.raises(ValueError, match="--metrics=chess: no such metric"):
        build_board(made_up_runs["weak"], "--metrics", "chess", "--output", tmp_path)
    with pytest.raises(click.BadParameter):
        build_board(made_up_runs["weak"], "--formats", "pdf")
