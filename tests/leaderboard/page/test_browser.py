"""The page in headless Chromium: what a reader does, and what a hostile model tries."""

import json
import time
from itertools import pairwise

import pytest

pytestmark = pytest.mark.xdist_group("browser")

WIDE, PHONE = (1280, 900), (390, 844)


@pytest.fixture
def opened(browser, toy_page):
    """Return the browser with the page just opened, and check at the end that it was clean."""
    size(browser, WIDE)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get("about:blank")
    browser.get(toy_page.as_uri())
    browser.execute_script("try { localStorage.clear() } catch {}")
    browser.get(toy_page.as_uri() + "?again")
    yield browser
    assert browser.title == "Toy <b>board</b>"
    assert browser.get_log("browser") == []
    messages = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        # A new browser may still be loading its own start page.
        if message["method"] == "Network.requestWillBeSent"
        and not message["params"]["documentURL"].startswith("chrome")
    ]
    assert any(url.startswith(toy_page.as_uri()) for url in requested)
    own = (toy_page.as_uri(), "data:", "about:")
    assert [url for url in requested if not url.startswith(own)] == []


def size(browser, width_and_height):
    width, height = width_and_height
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def texts(browser, selector):
    """Return the visible texts of all that fits, at one moment."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
    return browser.execute_script(script, selector)


def wait(condition, seconds=20):
    """Return the first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("nothing happened in time")


def press(browser, selector, text):
    next(found for found in find(browser, selector) if found.text == text).click()


def pick(browser, label, value):
    """Choose a value of the drop-down list with a label."""
    for field in find(browser, "label.field"):
        if field.find_element("css selector", "span").text == label and field.is_displayed():
            select = field.find_element("css selector", "select")
            script = "arguments[0].value = arguments[1];"
            script += "arguments[0].dispatchEvent(new Event('change'))"
            browser.execute_script(script, select, value)
            return
    raise AssertionError(f"no list {label!r}")


def open_run(browser, place=0):
    browser.execute_script(f"location.hash = 'run/{place}'")
    wait(lambda: find(browser, ".list tbody tr"))


def overflow(browser):
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return browser.execute_script(script)


def test_the_table_shows_the_printed_values(opened, toy_board):
    assert texts(opened, "#board-view tbody .label")[0] == "good run"
    shown = texts(opened, "#board-view td.cell .value")
    printed = {cell["printed"] for cell in toy_board["cells"] if cell["metric"] == "pass@1"}
    assert set(shown) == printed
    assert len(find(opened, "td .best[aria-hidden]")) == 2  # one run, two tasks


def test_sorting_by_a_header(opened):
    def order():
        return texts(opened, "#board-view tbody .label")

    assert [name[:4] for name in order()] == ["good", "</sc", "poor"]
    header = find(opened, "#scroller th[aria-sort]")
    assert [h.get_attribute("aria-sort") for h in header] == ["descending"]
    header[0].find_element("css selector", "button").click()
    assert [name[:4] for name in order()] == ["poor", "</sc", "good"]
    assert find(opened, "th[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
    # The header keeps the focus, so that the keyboard can go on.
    active = opened.switch_to.active_element
    assert active.get_attribute("class") == "sort"
    active.send_keys("\n")
    assert order()[0] == "good run"
    find(opened, "#scroller thead button")[0].click()
    assert sorted(order()) == order()


def test_filtering_runs(opened):
    field = find(opened, "input[type=search]")[0]
    field.send_keys("POOR")
    wait(lambda: texts(opened, "#board-view tbody .label") == ["poor run"])
    assert find(opened, "#status")[0].text.startswith("1 of 3 runs")
    assert opened.switch_to.active_element == field
    field.clear()
    field.send_keys("nothing like it")
    wait(lambda: not find(opened, "#board-view tbody tr"))
    opened.execute_script(
        "arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field
    )
    wait(lambda: len(find(opened, "#board-view tbody tr")) == 3)
    pick(opened, "Wrapper", "sampled")
    assert texts(opened, "#board-view tbody .label") == ["poor run"]


def test_metrics_of_a_task(opened):
    pick(opened, "Task", "toy_passn")
    heads = texts(opened, "#scroller thead th")
    assert any(head.startswith("maj@4") for head in heads)
    assert {"temperature", "shots", "truncated", "invalid", "N"} <= set(heads)
    press(opened, "#controls button", "Calibration")
    assert any(head.startswith("ece:self_eval") for head in texts(opened, "#scroller thead th"))
    # Lower is better: the lowest comes first.
    assert find(opened, "th[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
    press(opened, "#controls button", "Settings and cost")
    assert "12,345" in texts(opened, "#scroller tbody td")


def test_dark_mode_follows_the_system_and_the_button(opened):
    def background():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = background()
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    wait(lambda: background() != light)
    find(opened, "#theme")[0].click()
    assert background() == light
    opened.refresh()
    assert background() == light  # remembered


def test_a_phone_has_no_sideways_scrolling(opened):
    size(opened, PHONE)
    assert overflow(opened) == 0
    pick(opened, "Task", "toy_passn")
    assert overflow(opened) == 0
    open_run(opened)
    wait(lambda: find(opened, ".plot[data-drawn] .main-svg"))
    find(opened, ".list tbody button")[3].click()
    wait(lambda: find(opened, ".attempt"))
    assert overflow(opened) == 0


def test_charts_of_a_run_with_their_values(opened, toy_board):
    model = toy_board["runs"][0]["model"].rpartition("/")[2]
    size(opened, (1280, 3000))
    open_run(opened)
    titles = [text.split("\n")[0] for text in texts(opened, "figcaption")]
    assert titles == [
        "pass@k and maj@k",
        "Risk and coverage",
        "ROC",
        f"Attention heads of {model}",
        "Reliability diagram",
        "Confidence of right and wrong answers",
    ]
    wait(lambda: len(find(opened, ".plot[data-drawn] .main-svg")) >= len(titles))
    for figure in find(opened, "figure"):
        plot = figure.find_element("css selector", ".plot")
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label")) > 30
        assert figure.find_elements("css selector", "details table tbody tr")
    pick(opened, "Confidence in histogram and reliability diagram", "mean_logprob")
    assert "Reliability diagram" not in " ".join(texts(opened, "figcaption"))
    find(opened, "#theme")[0].click()  # charts are drawn again in the other colors
    time.sleep(0.3)


def test_confident_and_wrong_questions(opened):
    open_run(opened)
    pick(opened, "Show", "confident")
    numbers = texts(opened, ".list tbody button")
    assert {"0", "1"} <= set(numbers)  # the fixture's sure and wrong ones
    assert len(numbers) < 15
    pick(opened, "Sort by", "confident")
    assert set(texts(opened, ".list tbody button")[:2]) == {"0", "1"}
    find(opened, ".list tbody button")[0].click()
    wait(lambda: find(opened, ".detail .flag"))
    assert "0.99" in find(opened, ".detail .confidences")[0].text
    assert "wrong" in find(opened, ".detail .verdict")[0].text


def test_every_question_has_an_address(opened):
    opened.execute_script("location.hash = 'run/0/0/42'")
    wait(lambda: texts(opened, ".detail h4") == ["Question 42"])
    assert "42" in texts(opened, ".list tbody button")
    press(opened, ".detail button", "Next question")
    wait(lambda: texts(opened, ".detail h4") == ["Question 43"])
    assert opened.current_url.endswith("#run/0/0/43")
    opened.refresh()
    wait(lambda: texts(opened, ".detail h4") == ["Question 43"])
    opened.execute_script("location.hash = 'run/0/0/99999'")  # there is none: the run is shown
    wait(lambda: find(opened, ".list tbody tr") and not find(opened, ".detail h4"))


def test_the_focus_is_seen(opened):
    from selenium.webdriver.common.keys import Keys

    open_run(opened)
    opened.execute_script("document.querySelector('.list tbody button').focus()")
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    wait(lambda: find(opened, ".attempt"))
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    wait(lambda: opened.execute_script("return document.activeElement.className") == "detail")
    assert opened.execute_script(outline) == "solid"


def test_paging_and_searching_questions(opened):
    open_run(opened)
    assert texts(opened, ".list tbody button")[0] == "0"
    find(opened, ".pager .next")[0].click()
    assert texts(opened, ".list tbody button")[0] == "15"
    assert find(opened, ".pager span")[0].text == "Page 2 of 4"
    field = find(opened, "#run-view input[type=search]")[0]
    field.send_keys("plain text 42")
    wait(lambda: texts(opened, ".list tbody button") == ["42"])
    find(opened, ".list tbody button")[0].click()
    wait(lambda: find(opened, ".attempt"))
    # Question 42 is on the second page of texts.
    assert "plain text 42 What is 42?" in find(opened, ".detail pre")[0].text


def test_hostile_text_is_shown_and_does_nothing(opened):
    assert any("</script>" in text for text in texts(opened, "#board-view .label"))
    open_run(opened)
    expected = ["<script>document", "<img src=x", "</script><script>", "<!--<script>", "<a href="]
    for number, start in enumerate(expected):
        find(opened, ".list tbody button")[number].click()
        wait(lambda n=number: texts(opened, ".detail h4") == [f"Question {n}"])
        shown = opened.execute_script(
            "return [...document.querySelectorAll('.detail pre')].map(e => e.textContent)"
        )
        assert shown[0].startswith(start)
        for attempt in find(opened, ".attempt > summary")[1:]:
            attempt.click()
    tags = "#run-view script, #run-view img, #run-view style, #run-view iframe, #run-view [onerror]"
    assert find(opened, tags) == []
    links = opened.execute_script("return [...document.links].map(a => a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)


def test_token_scores_color_the_answer(opened):
    open_run(opened)
    find(opened, ".list tbody button")[9].click()
    wait(lambda: find(opened, ".heat span"))
    tokens = find(opened, ".heat span")
    assert [t.get_attribute("textContent") for t in tokens[:3]] == [" one", "<b>two</b>", "↵\n"]
    script = "return getComputedStyle(arguments[0]).backgroundColor"
    colors = [opened.execute_script(script, token) for token in tokens[:3]]
    assert colors[1] != colors[0] != colors[2]
    assert "eu 0.5" in tokens[1].get_attribute("title")
    pick(opened, "Token score", "jsd")
    assert "jsd 0.2" in find(opened, ".heat span")[1].get_attribute("title")


def test_a_run_without_a_folder_says_so(opened):
    opened.execute_script("location.hash = 'run/2'")
    wait(lambda: "without" in find(opened, "#run-view")[0].text)
    assert texts(opened, "#run-view h2")[0].startswith("</script><script>document.title=")
    opened.execute_script("location.hash = 'run/99'")
    wait(lambda: "no such run" in find(opened, "#run-view")[0].text)
    find(opened, ".crumbs a")[0].click()
    wait(lambda: find(opened, "#scroller table")[0].is_displayed())


def test_everything_can_be_reached_and_has_a_name(opened):
    open_run(opened)
    unnamed = opened.execute_script(
        """return [...document.querySelectorAll('button, a, select, input, summary')]
        .filter(e => e.checkVisibility())
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))
        .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    levels = opened.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')]"
        ".filter(e => e.checkVisibility()).map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    first = opened.switch_to.active_element
    assert first.get_attribute("id") == "run-heading"  # a screen reader starts at the run
