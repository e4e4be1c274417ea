"""The page as a file: what is in it, what is not, and what is refused."""

import base64
import gzip
import json
import logging
import re
import shutil
import subprocess

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.page.build import build_page
from lm_eval_ext.leaderboard.page.document import SCRIPTS, script_bundle, style_sheet
from lm_eval_ext.leaderboard.page.embedding import source_hash
from lm_eval_ext.leaderboard.page.size_limits import PageLimits

pytest.importorskip("plotly", reason="needs plotly, of the extra 'report'")


def page_data(path):
    html = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html)
    return json.loads(found[1])


def chunks_of(path):
    html = path.read_text(encoding="utf-8")
    rows = re.findall(r'<script type="application/gzip" id="chunk-(\d+)">([^<]*)</script>', html)
    return {int(number): gzip.decompress(base64.b64decode(body)).decode() for number, body in rows}


def test_the_board_is_in_the_page_to_the_digit(toy_page, toy_board):
    board = page_data(toy_page)["board"]
    assert board["cells"] == toy_board["cells"]
    assert board["details"] == toy_board["details"]
    assert "secret" not in toy_page.read_text(encoding="utf-8")  # no folder of this machine


def test_the_same_input_gives_the_same_page(toy_board, toy_runs, toy_page, tmp_path):
    again = build_page(toy_board, toy_runs, tmp_path / "again.html", title="Toy <b>board</b>")
    assert again.read_bytes() == toy_page.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_several_processes_give_the_same_page(toy_board, toy_runs, toy_page, tmp_path):
    again = tmp_path / "again.html"
    build_page(toy_board, toy_runs, again, title="Toy <b>board</b>", processes=2)
    assert again.read_bytes() == toy_page.read_bytes()


def test_runs_share_the_chunks_of_their_prompts(toy_page):
    runs = page_data(toy_page)["runs"]
    good, poor = (runs[name]["tasks"]["toy_passn"] for name in ("good", "poor"))
    assert good["prompts"] == poor["prompts"]
    assert good["excerpts"] == poor["excerpts"]
    assert not set(good["attempts"]) & set(poor["attempts"])
    assert len(good["prompts"]) == 3  # 60 questions, 25 to a page


def test_texts_stand_in_no_markup(toy_page):
    """Between the page's own elements there is nothing of a model: only base64 and escapes."""
    html = toy_page.read_text(encoding="utf-8")
    assert "hacked" not in re.sub(
        r'<script type="application/json" id="page-data">.*?</script>', "", html
    )
    assert html.count("<script") == 2 + len(chunks_of(toy_page))
    assert "Toy &lt;b&gt;board&lt;/b&gt;" in html


def test_the_policy_names_every_script_and_allows_no_network(toy_page):
    html = toy_page.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for forbidden in ("http:", "https:", "*", "unsafe-eval", "connect-src"):
        assert forbidden not in policy
    scripts = re.search(r"script-src ([^;]*)", policy)[1]
    assert "unsafe" not in scripts
    inline = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert [source_hash(source) in scripts for source in inline] == [True]
    plotly = chunks_of(toy_page)[page_data(toy_page)["plotly"]["chunk"]]
    assert source_hash(plotly) in scripts
    assert len(scripts.split()) == 2
    assert source_hash(style_sheet()) in policy
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', html) == []


def test_curves_and_questions_of_a_run(toy_page):
    run = page_data(toy_page)["runs"]["good"]
    chunks = chunks_of(toy_page)
    task = run["tasks"]["toy_passn"]
    index = json.loads(chunks[task["index"]])
    assert len(index["correct"]) == 60
    assert {"vote_share", "self_eval", "mean_logprob"} <= set(index["curves"]["sources"])
    assert set(index["curves"]["sources"]) == set(index["wrong"])
    assert index["curves"]["k"]["pass@k"]["k"] == [1, 2, 4]
    pages = [json.loads(chunks[number]) for number in task["attempts"]]
    assert [len(page) for page in pages] == [25, 25, 10]
    assert len(pages[0][0]) == 4
    heads = json.loads(chunks[run["heads"]])
    assert heads["removed"] == [[0, 1]]


def test_limits_leave_texts_out_and_statistics_alone(toy_board, toy_runs, toy_page, tmp_path):
    limits = PageLimits(questions=10, attempts=1, token_score_attempts=0)
    small = build_page(toy_board, toy_runs, tmp_path / "small.html", limits=limits)
    task = page_data(small)["runs"]["good"]["tasks"]["toy_passn"]
    chunks = chunks_of(small)
    (page,) = (json.loads(chunks[number]) for number in task["attempts"])
    assert len(page) == 10
    assert [("text" in attempt) for attempt in page[0]] == [True, False, False, False]
    full = page_data(toy_page)["runs"]["good"]["tasks"]["toy_passn"]["index"]
    assert json.loads(chunks[task["index"]]) == json.loads(chunks_of(toy_page)[full])
    assert small.stat().st_size < toy_page.stat().st_size


def test_a_damaged_run_keeps_its_row(toy_board, toy_runs, tmp_path, caplog):
    folder = tmp_path / "damaged"
    shutil.copytree(toy_runs["good"], folder)
    (samples,) = folder.glob("samples_*.jsonl")
    samples.write_text(samples.read_text()[:-100])
    with caplog.at_level(logging.WARNING):
        page = build_page(toy_board, {**toy_runs, "good": folder}, tmp_path / "page.html")
    assert "line 60" in caplog.text
    data = page_data(page)
    assert list(data["runs"]) == ["poor"]
    assert len(data["board"]["runs"]) == 3


def test_impossible_values_cost_the_run_its_charts_only(toy_board, toy_runs, tmp_path, caplog):
    folder = tmp_path / "odd"
    shutil.copytree(toy_runs["good"], folder)
    (samples,) = folder.glob("samples_*.jsonl")
    samples.write_text(samples.read_text().replace('"self_eval": 0.', '"self_eval": 7.'))
    with caplog.at_level(logging.WARNING):
        page = build_page(toy_board, {**toy_runs, "good": folder}, tmp_path / "page.html")
    assert "cannot be shown" in caplog.text
    assert list(page_data(page)["runs"]) == ["poor"]


def test_without_folders_the_page_is_small(toy_board, tmp_path):
    page = build_page(toy_board, {}, tmp_path / "page.html")
    assert page_data(page)["plotly"] is None
    assert page.stat().st_size < 200_000


def test_sink_scores_of_a_run_that_was_not_pruned(toy_board, toy_runs, tmp_path):
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"heads": {"sink": [[0.5, None]]}}))
    page = build_page(toy_board, toy_runs, tmp_path / "page.html", sink_scores={"poor": scores})
    number = page_data(page)["runs"]["poor"]["heads"]
    assert json.loads(chunks_of(page)[number])["scores"] == [[0.5, None]]


def test_what_does_not_fit_is_refused(toy_board, toy_runs, tmp_path):
    output = tmp_path / "page.html"
    with pytest.raises(UserError, match="schema 'other' is not"):
        build_page({**toy_board, "schema": "other"}, {}, output)
    with pytest.raises(UserError, match="folders: no run 'else' on the board"):
        build_page(toy_board, {"else": tmp_path}, output)
    with pytest.raises(UserError, match="sink_scores: no run"):
        build_page(toy_board, {}, output, sink_scores={"else": tmp_path})
    assert not output.exists()


def test_the_scripts_read_no_html_and_run_no_text():
    bundle = script_bundle()
    markup = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "</script", "<!--")
    code = ("eval(", "new Function", "fetch(", "XMLHttpRequest", "import(")
    assert [word for word in (*markup, *code) if word in bundle] == []
    assert not re.search(r"^(import|export)\b", bundle, flags=re.MULTILINE)
    assert "</style" not in style_sheet()


@pytest.mark.parametrize("name", [*SCRIPTS, "bundle"])
def test_the_scripts_are_valid(name, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    from importlib.resources import files

    path = tmp_path / ("bundle.js" if name == "bundle" else f"{name}.mjs")
    assets = files("lm_eval_ext.leaderboard.page") / "assets" / "js"
    source = script_bundle() if name == "bundle" else (assets / f"{name}.mjs").read_text()
    path.write_text(source)
    done = subprocess.run([node, "--check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_is_in_the_bundle():
    from importlib.resources import files

    assets = files("lm_eval_ext.leaderboard.page") / "assets" / "js"
    assert {item.name.removesuffix(".mjs") for item in assets.iterdir()} == set(SCRIPTS)
    known = set()
    for name in SCRIPTS:  # a module comes behind those it needs
        needed = re.findall(r'from "\./(\w+)\.mjs"', (assets / f"{name}.mjs").read_text())
        assert set(needed) <= known, name
        known.add(name)
