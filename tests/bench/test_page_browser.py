"""The page in a real browser: silent, offline, drawn, and answering to mouse and keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE
from made_results import HOSTILE, every_method
from pyroute2 import IPRoute

from fastbridge.bench.report import html
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.parts import Document
from fastbridge.bench.report.sections import document_of

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")
MARKS = "g.mark-symbol path, g.mark-rect path, g.mark-line path, g.mark-rule line"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(21, 24, 29)"


@pytest.fixture(scope="module")
def loopback() -> Iterator[None]:
    """The browser's driver is spoken to over it; in the tests' own namespace it is down."""
    with IPRoute() as route:
        was_up = bool(route.get_links(1)[0]["flags"] & 1)
        if not was_up:
            route.link("set", index=1, state="up")
        yield
        if not was_up:
            route.link("set", index=1, state="down")


@pytest.fixture(scope="module")
def browser(loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(document_of(Report.of([("", every_method())]))), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{argument}")
    options.add_argument("--force-prefers-reduced-motion")  # a click shall not wait for a smooth scroll
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(path.as_uri())
        WebDriverWait(driver, 4 * PATIENCE).until(lambda it: it.find_elements(By.CSS_SELECTOR, "body.drawn"))
        yield driver
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def laptop(browser: Any) -> Iterator[None]:
    """What a test leaves behind is the next one's no more."""
    yield
    media = [{"name": "prefers-color-scheme", "value": ""}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_script(
        "delete document.documentElement.dataset.theme; scrollTo(0, 0);"
        "document.querySelectorAll('details').forEach((fold) => (fold.open = false))"
    )


def find(browser: Any, selector: str) -> list[WebElement]:
    found: list[WebElement] = browser.find_elements(By.CSS_SELECTOR, selector)
    return found


def test_it_loads_without_a_word_and_without_a_request(browser: Any) -> None:
    # The browser's own pages, before this one, are no concern of it.
    said = [entry for entry in browser.get_log("browser") if not entry["message"].startswith("chrome:")]
    assert said == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome:")]
    assert [url.partition(":")[0] for url in asked].count("file") == 1
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_no_name_became_markup(browser: Any) -> None:
    assert find(browser, "img") == []
    assert HOSTILE in find(browser, "#verdict")[0].text


@pytest.mark.slow
def test_every_chart_is_drawn(browser: Any) -> None:
    charts = find(browser, "[data-chart]")
    assert len(charts) >= 15
    for chart in charts:
        name = chart.get_attribute("data-chart")
        assert len(chart.find_elements(By.CSS_SELECTOR, MARKS)) >= 3, name
        assert "NaN" not in chart.get_attribute("innerHTML"), name
        sizes = [element.size["width"] for element in chart.find_elements(By.CSS_SELECTOR, "svg")]
        assert sizes and sizes[0] > 300, name


def test_hovering_over_a_dot_says_which_trial_it_is(browser: Any) -> None:
    dots = find(browser, "#chart-throughput g.mark-symbol.role-mark path")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", dots[0])

    def tooltip(it: Any) -> Any:
        ActionChains(it).move_to_element(dots[0]).perform()
        return find(it, "#vg-tooltip-element.visible")

    shown = WebDriverWait(browser, PATIENCE).until(tooltip)[0].text
    for word in ("engine", "forwarding rate, 64 B", "block", ", position ", "frames/s", "flags"):
        assert word in shown, shown
    assert "null" not in shown and "undefined" not in shown


@pytest.mark.slow
def test_a_click_on_a_head_sorts_by_number_and_back(browser: Any) -> None:
    table = find(browser, "#verdict table")[0]
    heads = table.find_elements(By.CSS_SELECTOR, "thead th")
    (column,) = (i for i, head in enumerate(heads) if head.text.startswith("forwarded"))

    def numbers() -> list[str]:
        return [
            row.find_elements(By.CSS_SELECTOR, "th, td")[column].text
            for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]

    def names() -> list[str]:
        return [each.text for each in table.find_elements(By.CSS_SELECTOR, "tbody th") if each.is_displayed()]

    before, tests = numbers(), names()
    assert len(tests) == len(set(tests)) < len(before)  # a name stands for all rows of its test
    found = sorted(float(text.replace(",", "")) for text in before if text)
    for order, wanted in (("descending", found[::-1]), ("ascending", found)):
        heads[column].find_element(By.TAG_NAME, "button").click()
        assert heads[column].get_attribute("aria-sort") == order
        assert set(names()) == set(tests) and len(names()) == len(before)
        after = numbers()
        assert [float(text.replace(",", "")) for text in after if text] == wanted
        assert sorted(after) == sorted(before) and "" in after and all(text == "" for text in after[len(wanted) :])


def test_folds_open_and_what_is_in_them_fits(browser: Any) -> None:
    fold = find(browser, "#rfc2889 details")[0]
    assert not fold.find_elements(By.CSS_SELECTOR, "table")[0].is_displayed()
    fold.find_element(By.TAG_NAME, "summary").click()
    assert fold.find_elements(By.CSS_SELECTOR, "table")[0].is_displayed()
    fold.find_element(By.TAG_NAME, "summary").click()


def test_the_system_s_scheme_holds_until_the_button_is_pressed(browser: Any) -> None:
    def ground() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def ink() -> str:
        label = find(browser, "#chart-throughput svg text")[0]
        return str(browser.execute_script("return getComputedStyle(arguments[0]).fill", label))

    for scheme, own, other in (("light", LIGHT, DARK), ("dark", DARK, LIGHT)):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.execute_script("delete document.documentElement.dataset.theme")
        assert ground() == own
        before = ink()
        browser.execute_script("scrollTo({top: 0, behavior: 'instant'})")
        find(browser, "#theme")[0].click()
        assert ground() == other and ink() != before


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_script("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    WebDriverWait(browser, PATIENCE).until(
        lambda it: all(svg.size["width"] <= width for svg in find(it, "[data-chart] svg.marks") if svg.is_displayed())
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = """return [...document.querySelectorAll("main *")].filter((each) => !each.closest(".scroll, svg")
        && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80))"""
    assert browser.execute_script(script) == []
    # Text of a chart that stands out of it would be over its neighbour.
    script = """return [...document.querySelectorAll("svg.marks")].flatMap((svg) => [...svg.querySelectorAll("text")]
        .filter((text) => text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 24
                       || text.getBoundingClientRect().left < svg.getBoundingClientRect().left - 24)
        .map((text) => text.textContent))"""
    assert browser.execute_script(script) == []


@pytest.mark.slow
def test_print_is_on_white_and_opens_what_is_closed(browser: Any) -> None:
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == LIGHT
    assert find(browser, "details:not([open])") == []
    assert not find(browser, "nav")[0].is_displayed()
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert find(browser, "details[open]") == []
    assert browser.execute_cdp_cmd("Page.printToPDF", {})["data"].startswith("JVBERi0")  # %PDF-


def test_without_charts_there_is_no_library_to_load(tmp_path: Path) -> None:
    empty = html.render(Document("empty", "", []))
    assert "vegaEmbed =" not in empty and len(empty) < 20_000
