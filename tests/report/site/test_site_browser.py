"""The pages in a real browser: complaints, what it fetches, what clicks and keys do, phone, print and dark."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report.site.conftest import HOSTILE
from report.site.made_up import difference, gap

from cwdpo.cli.serve import open_server
from cwdpo.jobs.plan import Plan
from cwdpo.report.content import Table
from cwdpo.report.site.writing import write_site

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PAGES = ("index.html", "curves.html", "gallery-captions.html", "diagnosis.html", "cases.html", "cases/4-cw_dpo.html")


@pytest.fixture(params=["file", "http"])
def root(request: pytest.FixtureRequest, site: Path) -> Iterator[str]:
    """Address of the folder, as a file and as it is served."""
    if request.param == "file":
        yield site.as_uri()
        return
    server = open_server(site, 0)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser: Chrome, site: Path) -> Any:
    """Opens a page of the folder on a wide screen."""
    command = browser.execute_cdp_cmd

    def open_page(name: str, width: int = 1200, phone: bool = False) -> Chrome:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": phone}
        command("Emulation.setDeviceMetricsOverride", size)
        browser.get((site / name).as_uri())
        return browser

    yield open_page
    command("Emulation.setEmulatedMedia", {"media": "", "features": []})
    command("Emulation.clearDeviceMetricsOverride", {})


def run(browser: Chrome, script: str, *arguments: Any) -> Any:
    """What a script returns."""
    return browser.execute_script(f"return {script}", *arguments)


def column(browser: Chrome, place: int) -> list[str]:
    """Texts of a column of the first table, of rows that are shown."""
    rows = "[...document.querySelectorAll('table.results tbody tr')].filter(row => row.offsetParent)"
    found: list[str] = run(browser, f"{rows}.map(row => row.cells[arguments[0]].textContent)", place)
    return [" ".join(text.split()) for text in found]


def methods(browser: Chrome) -> list[str]:
    """Row headers, without the numbers of notes."""
    return [text.split()[0] for text in column(browser, 0)]


# ---- nothing goes wrong


def test_no_page_complains_and_nothing_fails_to_load(browser: Chrome, root: str) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    for name in PAGES:
        browser.get(f"{root}/{name}")
        assert run(browser, "document.readyState") == "complete"
        assert run(browser, "getComputedStyle(document.querySelector('.top')).display") == "flex", "the style is there"
        images = run(browser, "document.images.length")
        wait = "Promise.all([...document.images].map(one => one.decode())).then(() => arguments[0](1))"
        assert not images or browser.execute_async_script(wait), "every image can be decoded"
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [found["params"]["request"]["url"] for found in messages if found["method"] == "Network.requestWillBeSent"]
    assert [found for found in messages if found["method"] == "Network.loadingFailed"] == []
    assert [found["params"]["response"]["url"] for found in messages if _refused(found)] == []
    assert {url for url in asked if not url.startswith((root, "data:"))} == set()


def _refused(message: dict[str, Any]) -> bool:
    return message["method"] == "Network.responseReceived" and message["params"]["response"].get("status", 200) >= 400


def test_hostile_captions_are_text(page: Any) -> None:
    browser = page("gallery-captions.html")
    shown = run(
        browser,
        "[...document.querySelectorAll('.answers [data-method=\"1\"] dd p:first-child')].map(p => p.textContent)",
    )
    assert set(HOSTILE) <= set(shown)
    assert browser.title == "Gallery: captions - made-up"
    assert run(browser, "document.querySelectorAll('main script, main b, main img[src=x]').length") == 0
    assert run(browser, "document.scripts.length") == 1


def test_what_were_injected_would_not_run(page: Any) -> None:
    browser = page("index.html")
    inject = (
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1'; document.body.append(one)"
    )
    browser.execute_script(inject)
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 2\">')")
    assert run(browser, "window.ran") is None
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


# ---- tables


def test_columns_sort_by_click(page: Any) -> None:
    browser = page("index.html")
    assert methods(browser) == ["base", "sft", "sft_c", "dpo", "cw_dpo"]
    head = browser.find_elements("css selector", "th[data-by=number]")[-1]
    seen = []
    for _ in range(3):
        head.find_element("css selector", "button").click()
        seen.append((head.get_attribute("aria-sort"), methods(browser)))
    assert seen == [
        ("descending", ["cw_dpo", "dpo", "sft_c", "base", "sft"]),  # without a value: last, both ways
        ("ascending", ["base", "sft_c", "dpo", "cw_dpo", "sft"]),
        ("none", ["base", "sft", "sft_c", "dpo", "cw_dpo"]),
    ]


def test_columns_sort_by_keyboard_and_say_so(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = page("index.html")
    button = browser.find_element("css selector", "th[data-by=text] button")
    button.send_keys(Keys.ENTER)
    assert methods(browser) == ["base", "cw_dpo", "dpo", "sft", "sft_c"]
    button.send_keys(Keys.SPACE)
    assert methods(browser)[0] == "sft_c"
    states = run(browser, "[...document.querySelectorAll('table.results th[aria-sort]')].map(one => one.ariaSort)")
    assert states == ["descending", *["none"] * 5]
    assert run(browser, "document.activeElement.innerText.trim()") == "method", "focus stays"


def test_rows_are_filtered(page: Any) -> None:
    browser = page("index.html")
    box = browser.find_element("css selector", "section.table input[type=search]")
    status = browser.find_element("css selector", "section.table [role=status]")
    assert status.text == "5 of 5 rows"
    box.send_keys("SFT_C")
    assert methods(browser) == ["sft_c", "cw_dpo"]
    assert status.text == "2 of 5 rows"
    box.send_keys(" best")
    assert column(browser, 0) == ["cw_dpo"]


def test_rows_are_not_found_by_what_is_not_shown(page: Any) -> None:
    browser = page("index.html")
    box = browser.find_element("css selector", "section.table input[type=search]")
    shown = browser.find_element("css selector", "input[data-show=difference]")
    box.send_keys("p<0.001")
    assert methods(browser) == []
    shown.click()
    assert methods(browser) == ["cw_dpo"]
    shown.click()
    assert methods(browser) == []
    for shown in browser.find_elements("css selector", "input[data-show]"):
        shown.click()
    box.clear()
    box.send_keys("n = 2")
    assert "cw_dpo" in methods(browser)
    for unseen in ("interval", "difference", "note"):
        box.clear()
        box.send_keys(unseen)
        assert methods(browser) == [], "only a screen reader hears it"


def test_the_method_stays_in_sight_below_headings_of_groups(page: Any) -> None:
    browser = page("index.html", 360, phone=True)
    scroll = "document.querySelector('section.table .scroll')"
    browser.execute_script(f"{scroll}.scrollIntoView({{behavior: 'instant'}}); {scroll}.scrollLeft = 120")
    assert run(browser, f"{scroll}.scrollLeft") == 120
    heads = f"[...{scroll}.querySelectorAll('thead tr, tbody tr:first-child')]"
    spot = "const {left, top, width, height} = row.firstElementChild.getBoundingClientRect()"
    here = "document.elementFromPoint(left + width - 8, top + height / 2)"
    seen = f"{heads}.map(row => {{ {spot}; return row.firstElementChild.contains({here}) }})"
    assert run(browser, seen) == [True, True, True]
    lefts = run(browser, f"{heads}.map(row => row.firstElementChild.getBoundingClientRect().left)")
    assert set(lefts) == {run(browser, f"{scroll}.getBoundingClientRect().left")}


def test_what_is_shown_with_each_value(page: Any) -> None:
    browser = page("index.html")
    boxes = browser.find_elements("css selector", "input[data-show]")
    assert [box.get_attribute("data-show") for box in boxes] == ["interval", "difference", "paper"]
    assert more(browser) == []
    for box in boxes:
        box.click()
    interval, gain, published = more(browser)
    assert interval.endswith("n = 2")
    assert gain == "difference \N{MINUS SIGN}9.0 [\N{MINUS SIGN}11.0, \N{MINUS SIGN}7.0] p<0.001"
    assert published.startswith("published 100.0 (+")
    boxes[1].click()
    assert more(browser) == [interval, published]


def more(browser: Chrome) -> list[str]:
    """What is shown below the last value of the table."""
    found = "[...document.querySelector('.results tr:last-child td:last-child').querySelectorAll('.more')]"
    return [str(text) for text in run(browser, f"{found}.filter(one => one.offsetParent).map(one => one.textContent)")]


# ---- curves, gallery


def test_lines_can_be_hidden(page: Any) -> None:
    browser = page("curves.html")
    button = browser.find_elements("css selector", "section.curves .legend button")[1]
    lines = "[...document.querySelector('section.curves').querySelectorAll('.chart [data-line]')]"
    hidden = f"{lines}.filter(one => getComputedStyle(one).display === 'none').map(one => one.dataset.line)"
    assert run(browser, hidden) == []
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert set(run(browser, hidden)) == {"1"}


def test_the_gallery_is_ordered_and_filtered(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    browser = page("gallery-captions.html")
    shown = "[...document.querySelectorAll('article')].filter(one => !one.hidden)"
    values = f"{shown}.map(one => parseFloat(one.querySelector('[data-method=\"4\"]').dataset.sort))"
    order = Select(browser.find_element("css selector", ".controls.gallery select"))
    order.select_by_visible_text("cw_dpo: lowest CIDEr first")
    found = run(browser, values)
    assert found == sorted(found)
    assert len(set(found)) > 1
    order.select_by_visible_text("by name of the item")
    assert run(browser, f"{shown}.map(one => one.dataset.id)") == [str(number) for number in range(1, 9)]
    browser.find_element("css selector", ".controls.gallery input[type=search]").send_keys("<script>")
    assert run(browser, f"{shown}.map(one => one.dataset.id)") == ["1"]
    search = browser.find_element("css selector", ".controls.gallery input[type=search]")
    box = browser.find_element("css selector", "input[data-method='1']")
    box.click()
    assert run(browser, f"{shown}.length") == 0, "nobody sees the answer that has it"
    search.send_keys(Keys.BACK_SPACE * len("<script>"))
    assert run(browser, f"{shown}.length") == 8
    assert not browser.find_element("css selector", "article[data-id='1'] [data-method='1']").is_displayed()
    box.click()
    search.send_keys("<script>")
    assert run(browser, f"{shown}.map(one => one.dataset.id)") == ["1"]


def test_items_are_found_by_what_was_asked_and_answered_alone(page: Any) -> None:
    browser = page("gallery-captions.html")
    search = browser.find_element("css selector", ".controls.gallery input[type=search]")
    found = "[...document.querySelectorAll('article')].filter(one => !one.hidden).map(one => one.dataset.id)"
    for everywhere in ("reference", "highest", "item", "cider", "cw_dpo"):
        search.clear()
        search.send_keys(everywhere)
        assert run(browser, found) == [], everywhere
    first = "document.querySelector('article')"
    for part in (".prompt", ".reference bdi", ".references li", "[data-method='4'] dd p"):
        search.clear()
        search.send_keys(run(browser, f'{first}.querySelector("{part}").textContent'))
        assert run(browser, f"{first}.dataset.id") in run(browser, found), part


# ---- readers of all kinds


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_need_not_scroll_sideways(page: Any, name: str) -> None:
    browser = page(name, 360, phone=True)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert run(browser, "[innerWidth, document.documentElement.scrollWidth]") == [360, 360]


def test_print_has_no_controls_and_everything_is_open(page: Any) -> None:
    browser = page("cases/4-cw_dpo.html")
    folded = "window.folded = document.querySelectorAll('details:not([open])').length"
    browser.execute_script(f"addEventListener('beforeprint', () => {{ {folded} }})")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert run(browser, "[window.folded, document.querySelectorAll('details[open]').length]") == [0, 0]
    browser = page("index.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = "[...document.querySelectorAll('.controls, .top, .skip')].map(one => getComputedStyle(one).display)"
    assert set(run(browser, hidden)) == {"none"}
    assert column(browser, 0)


def test_numbers_beside_charts_are_not_printed(page: Any) -> None:
    browser = page("curves.html")
    count = "document.querySelectorAll('.charts details[open]').length"
    browser.execute_script(f"addEventListener('beforeprint', () => {{ window.unfolded = {count} }})")
    browser.execute_cdp_cmd("Page.printToPDF", {})
    assert run(browser, "window.unfolded") == 0
    tables = "[...document.querySelectorAll('.charts table')]"
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert run(browser, f"{tables}.every(one => one.offsetParent)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not run(browser, f"{tables}.some(one => one.offsetParent)"), "they are wider than their charts"


def wide(table: Table, columns: int) -> Table:
    """A table of so many columns, with everything in its cells that takes room."""
    picked = [(column, place) for place in range(columns) for column in table.columns][:columns]
    crowd = {"partial": True, "gaps": (gap("failed", "out of memory", (2,)),), "difference": difference(-9.0, 0.0001)}
    rows = [
        replace(row, entries={f"{one.key}_{place}": replace(row.entries[one.key], **crowd) for one, place in picked})
        for row in table.rows
    ]
    made = [replace(one, key=f"{one.key}_{place}", group=f"benchmark {place}") for one, place in picked]
    return replace(table, name=f"of-{columns}", title=f"{columns}", columns=tuple(made), rows=tuple(rows))


@pytest.fixture
def pages_of_tables(browser: Chrome, plan: Plan, table: Table, tmp_path: Path) -> Any:
    """Tables of some numbers of columns, everything shown, on a screen that is as wide as what a page can hold."""

    def open_tables(columns: Sequence[int], width: int) -> Chrome:
        written = write_site(plan, [wide(table, count) for count in columns], tmp_path / "html")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.get(written.as_uri())
        browser.execute_script("for (const one of document.querySelectorAll('input[data-show]')) one.click()")
        return browser

    yield open_tables
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


UPRIGHT, LYING = 718, 1047
"""Pixels across A4 between margins of 1 cm."""


@pytest.mark.parametrize(("columns", "width"), [((6,), UPRIGHT), ((7, 16), LYING)])
def test_tables_are_not_cut_off_on_paper(pages_of_tables: Any, columns: Sequence[int], width: int) -> None:
    browser = pages_of_tables(columns, width)
    paper = {"paperWidth": 8.27, "paperHeight": 11.69}
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", paper)["data"])
    sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert any(float(across) > float(down) for across, down in sizes) is (width == LYING)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    rights = "[...document.querySelectorAll('.results')].map(one => one.getBoundingClientRect().right)"
    assert len(sizes) > 1
    assert len(run(browser, rights)) == len(columns)
    assert max(run(browser, rights)) <= width


def test_dark_where_the_reader_wants_it(page: Any) -> None:
    browser = page("index.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert run(browser, ground) == "rgb(255, 255, 255)"
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert max(map(int, run(browser, ground)[4:-1].split(","))) < 40


def test_the_first_stop_of_the_keyboard_skips_the_navigation(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = page("index.html")
    browser.find_element("css selector", "body").send_keys(Keys.TAB)
    active = "document.activeElement"
    assert run(browser, f"{active}.className") == "skip"
    assert run(browser, f"{active}.getBoundingClientRect().top") >= 0, "it shows when it is reached"
    assert run(browser, f"getComputedStyle({active}).outlineStyle") == "solid"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert run(browser, f"{active}.id") == "content"


NAMED = {"button", "checkbox", "searchbox", "combobox", "link", "image", "img", "region", "navigation"}


@pytest.mark.parametrize("name", PAGES)
def test_everything_that_is_used_has_a_name(page: Any, name: str) -> None:
    browser = page(name)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [(_said(node, "role"), _said(node, "name")) for node in nodes if not node["ignored"]]
    roles = {role for role, _ in found}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "link"} <= roles
    assert [role for role, text in found if role in NAMED and not text.strip()] == []
    levels = [*map(int, run(browser, "[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName[1])"))]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels


def _said(node: dict[str, Any], key: str) -> str:
    return str(node.get(key, {}).get("value", ""))
