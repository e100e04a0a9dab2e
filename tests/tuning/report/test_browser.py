"""The page in a browser: pointing, clicking, filters, search, phones, themes, access, speed."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from detox_tune.tuning.report.page import write_comparison, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
DESKTOP, PHONE = (1280, 900), (390, 844)
HOSTILE = "</script><img src=x onerror=alert(1)><b>"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a page and waits until all is drawn; in the end, nothing may have gone wrong in it."""
    wrong: list[str] = []
    contexts = []

    def opened(path: Path, size: tuple[int, int] = DESKTOP, scheme: Any = "light") -> Page:
        viewport: Any = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn]", timeout=60_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def point_of(page: Page, trial: str, chart: str = "scatter") -> dict[str, float]:
    """The middle of a trial's mark in a chart."""
    page.evaluate("name => document.querySelector(`[data-chart=${name}]`).scrollIntoView()", chart)
    found: dict[str, float] = page.evaluate(
        """([chart, trial]) => {
            const marks = [...document.querySelectorAll(`[data-chart=${chart}] path`)];
            const mark = marks.find((one) => one.__data__?.datum?.trial === trial);
            const {x, y, width, height} = mark.getBoundingClientRect();
            return {x: x + width / 2, y: y + height / 2};
        }""",
        [chart, trial],
    )
    return found


def shown_trials(page: Page) -> list[str]:
    """What the first sentence is shown for."""
    return page.locator("#sentences li").first.locator("dt").all_text_contents()


def count(page: Page) -> int:
    """How many sentences the page says that it found."""
    return int((page.locator("#count").text_content() or "").split()[0])


def test_pointing_shows_a_trial_and_clicking_selects_it(
    make_run: Callable[..., Path], open_page: Open
) -> None:
    page = open_page(write_report(make_run()))
    assert page.locator("#trial").input_value() == "0/trial_001"  # the winner
    place = point_of(page, "trial_003")
    page.mouse.move(place["x"], place["y"])
    tip = page.locator("#tip")
    assert "trial_003\nj 0." in tip.inner_text()
    assert page.locator("tr.pointed").get_attribute("data-key") == "0/trial_003"
    assert shown_trials(page)[2] == "trial_001"
    page.mouse.click(place["x"], place["y"])
    assert page.locator("#trial").input_value() == "0/trial_003"
    assert page.locator("tr.picked").get_attribute("data-key") == "0/trial_003"
    assert "it copied its input" in page.locator("#about").inner_text()
    assert shown_trials(page)[2] == "trial_003"
    page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_outputs_are_filtered_and_searched(make_run: Callable[..., Path], open_page: Open) -> None:
    page = open_page(write_report(make_run(sentences=60)))
    page.select_option("#trial", "0/trial_003")
    page.select_option("#other", "0/trial_001")
    assert shown_trials(page) == ["source", "reference", "trial_003", "trial_001"]
    all_of_them = count(page)
    assert page.locator("#sentences li").count() == 25
    page.click("#more")
    assert page.locator("#sentences li").count() == 50
    page.select_option("#label", "copied")
    copies = count(page)
    assert 0 < copies < all_of_them
    assert page.locator("#sentences dd.copied").count() >= min(copies, 25)
    page.fill("#text", "N0 FINE")
    matching = page.locator("#sentences li")
    assert 0 < matching.count() < copies
    assert all("fine" in text for text in matching.all_text_contents())
    assert "n0" in matching.first.locator("ins").all_text_contents()
    page.fill("#text", "no such words")
    assert count(page) == 0


CHANGES = [
    ("holy cow , when ?", "When?", "<del>holy cow ,</del> When?"),
    ("a big ass cup .", "a cup.", "a <del>big ass</del> cup."),
    ("dumb luck", "Pure luck", "<del>dumb</del> <ins>Pure</ins> luck"),
    ("这是狗屎话", "这是话", "这是<del>狗屎</del>话"),
]


def test_changes_are_marked_and_words_stay_apart(
    make_run: Callable[..., Path], open_page: Open
) -> None:
    folder = make_run(trials=1, sentences=len(CHANGES))
    (outputs,) = (folder / "outputs").iterdir()
    rows = [json.loads(line) for line in outputs.read_text().splitlines()]
    changed = [
        json.dumps(row | {"source": source, "output": answer})
        for row, (source, answer, _) in zip(rows, CHANGES, strict=True)
    ]
    outputs.write_text("\n".join(changed))
    page = open_page(write_report(folder))
    shown = page.locator("#sentences li").evaluate_all(
        "items => items.map(item => item.lastElementChild.lastElementChild.innerHTML)"
    )
    assert [html.partition("<span")[0] for html in shown] == [html for *_, html in CHANGES]


def test_everything_is_reached_by_keyboard(make_run: Callable[..., Path], open_page: Open) -> None:
    page = open_page(write_report(make_run()))
    button = page.locator("button.trial[data-key='0/trial_002']")
    button.focus()
    assert page.locator("tr.pointed").get_attribute("data-key") == "0/trial_002"
    page.keyboard.press("Enter")
    assert page.locator("#trial").input_value() == "0/trial_002"
    assert button.get_attribute("aria-pressed") == "true"
    page.locator("#trial").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#trial").input_value() == "0/trial_003"


def test_the_table_is_sorted_by_its_heads(make_run: Callable[..., Path], open_page: Open) -> None:
    page = open_page(write_report(make_run(trials=12)))
    heads, rows = page.locator(".trials thead th"), page.locator(".trials tbody tr")

    def column(number: int) -> list[str]:
        return [
            cell.split(" (")[0]
            for cell in rows.locator(f"> :nth-child({number})").all_text_contents()
        ]

    named = heads.locator("button").all_text_contents()
    names, scores = column(1), list(map(float, column(2)))
    assert heads.first.get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="j", exact=True).focus()
    page.keyboard.press("Enter")
    assert list(map(float, column(2))) == sorted(scores)
    assert [head.get_attribute("aria-sort") for head in heads.all()[:3]] == [
        "none",
        "ascending",
        "none",
    ]
    page.keyboard.press("Enter")
    assert list(map(float, column(2))) == sorted(scores, reverse=True)
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    window = named.index("context_window") + 1  # a setting that only some trials have
    found = column(window)
    known = sorted(value for value in found if value != "–")
    missing = [value for value in found if value == "–"]
    assert known
    assert missing
    for wanted in (known, known[::-1]):
        page.click("button[data-column=context_window]")
        assert column(window) == wanted + missing
    page.click("button[data-column=ended]")
    assert column(len(named)) == sorted(column(len(named)))
    page.click("button[data-column=trial]")
    assert column(1) == names


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_fault(
    make_run: Callable[..., Path], open_page: Open, size: tuple[int, int], scheme: str
) -> None:
    page = open_page(write_report(make_run()), size, scheme)
    page.add_style_tag(content="section { content-visibility: visible !important }")
    found = Axe().run(page).response["violations"]
    serious = [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:3]
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]


def test_hostile_texts_run_nothing(make_run: Callable[..., Path], open_page: Open) -> None:
    folder = make_run(prefix=HOSTILE, source=HOSTILE, reason=HOSTILE)
    page = open_page(write_report(folder))
    assert page.locator("img, b").count() == 0
    assert HOSTILE in (page.locator("#sentences li").first.text_content() or "")
    place = point_of(page, "trial_002")
    page.mouse.move(place["x"], place["y"])
    assert HOSTILE in page.locator("#tip").inner_text()


def test_hostile_settings_run_nothing(make_run: Callable[..., Path], open_page: Open) -> None:
    """The order of a choice gets into expressions of Vega, which are compiled to scripts."""
    prefixes = [HOSTILE, '"]+alert(1)+["', "\\\"'${alert(1)}`"]
    page = open_page(write_report(make_run(trials=24, prefix={"choice": prefixes})))
    labels = page.locator("[data-chart=marginal-task_prefix] .role-axis-label text")
    shown = [label.removesuffix("…") for label in labels.all_text_contents()]
    found = [label for label in shown if not label.replace(".", "").isdigit()]
    assert len(found) == len(prefixes)
    assert all(map(str.startswith, prefixes, found))
    cells = page.locator(".trials td").all_text_contents()
    assert set(prefixes) <= set(cells)


def test_runs_side_by_side(make_run: Callable[..., Path], open_page: Open) -> None:
    page = open_page(write_comparison([make_run("one"), make_run("two", trials=5)]))
    page.select_option("#other", "1/trial_003")
    assert shown_trials(page)[2:] == ["one trial_001", "two trial_003"]
    boxes = [page.locator("[data-chart=scatter]").nth(n).bounding_box() for n in range(2)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]


def test_paper_shows_everything(make_run: Callable[..., Path], open_page: Open) -> None:
    page = open_page(write_report(make_run()), scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("#bar").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_many_trials_are_drawn_with_few_elements(
    make_run: Callable[..., Path], open_page: Open
) -> None:
    """What a page costs is measured by benchmarks/report_page.py; elements are what it costs."""
    trials = 150
    path = write_report(make_run(trials=trials, sentences=100))
    assert path.stat().st_size < 5_000_000
    page = open_page(path)
    drawn = "name => document.querySelectorAll(`[data-chart=${name}] .mark-symbol path`).length"
    # The selected trial is drawn once more; those that failed have reported, too.
    assert page.evaluate(drawn, "scatter") == trials + 1
    assert page.evaluate(drawn, "curve-j") == trials + 1
    # A point and at most one stretch between reports, axes or labels: no group for each trial.
    assert page.locator(".chart *").count() < 1500 + 20 * trials
