"""The web site, built and walked through page by page in a real browser: nothing broken, nothing fetched elsewhere.

Needs Chromium or Chrome on the PATH; without one the test is skipped, but in continuous integration (CI=true) it fails.
"""

import importlib
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHONE = {"width": 375, "height": 800}
SMALLEST_TEXT, SMALLEST_CODE = 16, 14  # CSS pixels

# Everything that is asked of a page, gathered in one visit.
LOOK = """async () => {
    const all = (selector, read) => [...document.querySelectorAll(selector)].map(read);
    if (window.MathJax) await MathJax.startup.promise;
    const broken = [];
    for (const image of document.images) {
        image.loading = 'eager';
        await image.decode().catch(() => broken.push(image.src.slice(0, 100)));
    }
    const raw = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode;
        if (text.parentElement.closest('pre, code, script, style, mjx-container')) continue;
        if (/\\$[^$]+\\$|\\$\\$|\\\\\\(|\\\\\\[/.test(text.data)) raw.push(text.data.trim().slice(0, 100));
    }
    const idle = [];
    for (const slider of document.querySelectorAll('input.course-stepper')) {
        const image = slider.closest('.course-widget').querySelector('img.course-frame');
        const seen = new Set();
        for (const end of [slider.min, slider.max]) {
            slider.value = end;
            slider.dispatchEvent(new Event('input'));
            await image.decode();
            seen.add(image.src);
        }
        if (seen.size < 2) idle.push(slider.ariaLabel);
    }
    return {
        broken, raw, idle,
        cards: all('pre', code => code).filter(code => code.textContent.includes('widgets.predict(')).length,
        givenAway: all('pre', code => code)
            .filter(code => code.textContent.includes('widgets.predict(') && code.checkVisibility())
            .map(code => code.textContent.slice(0, 100)),
        links: all('a[href]', link => link.href),
        ids: all('[id]', element => element.id),
        steppers: document.querySelectorAll('input.course-stepper').length,
        pictures: document.querySelectorAll('article img').length,
        formulas: document.querySelectorAll('mjx-container').length,
        unrendered: all('.math', formula => formula.querySelector('mjx-container') ? '' : formula.textContent)
            .filter(Boolean),
        mistaken: all('mjx-merror, [data-mjx-error]', error => error.textContent),
    };
}"""

# Text by size, and boxes that cut off what is in them without letting it scroll.
LOOK_ON_A_PHONE = """([smallestText, smallestCode]) => {
    const small = [], main = document.querySelector('main');
    const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode, parent = text.parentElement;
        if (!text.data.trim() || !parent.checkVisibility()) continue;
        if (parent.closest('script, style, mjx-container, sup')) continue;
        const limit = parent.closest('pre, code') ? smallestCode : smallestText;
        const size = parseFloat(getComputedStyle(parent).fontSize);
        if (size < limit - 0.01) small.push(size + ' px: ' + text.data.trim().slice(0, 60));
    }
    const cut = [...main.querySelectorAll('*')].filter(element =>
        !element.closest('mjx-container') && element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1 &&
        ['hidden', 'clip'].includes(getComputedStyle(element).overflowX)).map(element => element.className);
    // Tables that reach beyond the window: the box that scrolls them, and whether the name of a row stays in sight.
    const tables = [...main.querySelectorAll('table')].filter(table => table.checkVisibility()), stuck = [];
    for (const table of tables) {
        if (table.getBoundingClientRect().right <= innerWidth + 1) continue;
        let box = table.parentElement;
        while (box !== main && !['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) box = box.parentElement;
        box.scrollLeft = 1e6;
        const name = table.querySelector('.course-table tbody tr:not(:has(th + th)) > th');
        const end = table.getBoundingClientRect().right <= innerWidth + 1;
        if (!end || (name && name.getBoundingClientRect().right < 0)) stuck.push(table.textContent.trim().slice(0, 60));
        box.scrollLeft = 0;
    }
    return {small, cut, tables: tables.length, stuck, width: document.documentElement.scrollWidth};
}"""


@pytest.fixture(scope="module")
def visits(chromium, site):
    """What was seen on every page, by its address below the site's."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    troubles = []

    def requested(request):
        if not request.url.startswith((site.address, "data:")):
            troubles.append(f"elsewhere: {request.url}")

    def failed(request):
        if request.failure != "net::ERR_ABORTED":  # as the page's icon is, if the next page is opened before it is here
            troubles.append(f"{request.failure}: {request.url}")

    tab.on("request", requested)
    tab.on("requestfailed", failed)
    tab.on(
        "response", lambda answer: troubles.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None
    )
    tab.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    seen = {}
    for name in site.pages():
        tab.set_viewport_size({"width": 1280, "height": 1000})
        tab.goto(site.address + name, wait_until="load")
        seen[name] = tab.evaluate(LOOK)
        tab.set_viewport_size(PHONE)
        seen[name]["phone"] = tab.evaluate(LOOK_ON_A_PHONE, [SMALLEST_TEXT, SMALLEST_CODE])
        seen[name]["troubles"] = list(troubles)
        troubles.clear()
    tab.close()
    return seen


def faults(visits, read):
    """{page: what `read` found there}, of those pages where it found something."""
    found = {name: read(visit) for name, visit in visits.items()}
    return {name: fault for name, fault in found.items() if fault}


def test_every_notebook_and_document_is_a_page(site):
    sources = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]
    expected = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in sources}
    assert expected | {"index.html", "search.html"} <= set(site.pages())


def test_it_is_built_in_under_two_minutes(site):
    print(f"built in {site.seconds:.0f} s, {site.processor_seconds:.0f} s of them processor time")
    assert site.processor_seconds < 120  # of one processor, whatever else runs on the machine


def test_no_error_in_the_console_and_no_request_fails_or_leaves_the_machine(visits):
    assert faults(visits, lambda visit: visit["troubles"]) == {}


def test_every_picture_is_there(visits):
    assert faults(visits, lambda visit: visit["broken"]) == {}
    assert all(visit["pictures"] for name, visit in visits.items() if name.startswith("notebooks/"))


def test_every_formula_is_rendered(visits):
    assert visits["notebooks/02_diffusion_theory.html"]["formulas"] > 100
    for fault in ("unrendered", "mistaken", "raw"):
        assert faults(visits, lambda visit, fault=fault: visit[fault]) == {}, fault


def test_every_link_inside_the_site_leads_to_a_page_and_a_place(visits, site):
    dead = set()
    for name, visit in visits.items():
        for link in visit["links"]:
            target, fragment = urldefrag(link)
            if not target.startswith(site.address):
                continue
            target = unquote(target.removeprefix(site.address)).split("?")[0] or "index.html"
            known = visits[target]["ids"] if target in visits else []
            if not (site.folder / target).is_file() or (fragment and unquote(fragment) not in known):
                dead.add((name, link))
    assert dead == set()


def test_every_public_function_of_a_module_in_the_reference_is_there(visits):
    names = re.findall(r"automodule:: (\S+)", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"))
    assert {"course_lib.schedules", "course_lib.denoisers", "course_lib.samplers"} <= set(names)
    modules = map(importlib.import_module, names)
    public = {
        f"{module.__name__}.{name}"
        for module in modules
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and value.__doc__ and not name.startswith("_")
    }
    assert len(public) > 150 and public - set(visits["docs/reference.html"]["ids"]) == set()


def test_links_between_notebooks_stay_on_the_site(visits, site):
    links = visits["notebooks/00_start_here.html"]["links"]
    assert site.address + "notebooks/01_generative_models.html" in links
    assert not [
        link
        for visit in visits.values()
        for link in visit["links"]
        if link.endswith(".ipynb") and link.startswith(site.address)
    ]


def test_every_stepper_moves_without_a_kernel(visits):
    assert sum(visit["steppers"] for visit in visits.values()) >= 10
    assert faults(visits, lambda visit: visit["idle"]) == {}


def test_a_prediction_can_be_made_without_a_kernel(tab, site):
    tab.goto(site.address + "notebooks/03_ddpm.html")
    card = tab.locator(".course-predict").first
    assert not card.locator(".course-reveal").is_visible()
    card.locator("input").first.check()
    card.locator(".course-commit").click()
    assert card.locator(".course-reveal").is_visible()
    assert card.locator(".course-verdict").text_content()


def test_the_code_of_a_prediction_does_not_give_it_away(visits):
    assert faults(visits, lambda visit: visit["givenAway"]) == {}
    assert all(visit["cards"] for name, visit in visits.items() if name.startswith("notebooks/"))


def test_code_is_folded_and_one_switch_unfolds_it_on_every_page_but_for_predictions(tab, site):
    def code():
        """How much code can be read, and how many of the cells with a prediction show theirs."""
        return tab.evaluate(
            """() => {
                const all = [...document.querySelectorAll('article .cell_input pre')];
                const code = all.filter(pre => pre.checkVisibility());
                return [code.length, code.filter(pre => pre.textContent.includes('widgets.predict(')).length];
            }"""
        )

    switch = tab.get_by_role("button", name=re.compile("(Show|Fold) code"))
    tab.goto(site.address + "notebooks/03_ddpm.html")
    assert code() == [0, 0] and switch.get_attribute("aria-pressed") == "false"
    switch.click()
    many, given_away = code()
    assert many > 20 and given_away == 0
    tab.goto(site.address + "notebooks/05_guidance.html")
    assert code()[0] > 20 and switch.get_attribute("aria-pressed") == "true", "it is remembered"
    switch.press("Enter")
    assert code() == [0, 0]
    tab.reload()
    assert code() == [0, 0]
    tab.locator("article details.hide summary").first.click()
    assert code()[0] == 1, "a single cell opens by itself"


def test_a_page_without_code_of_a_notebook_has_no_switch(tab, site):
    tab.goto(site.address + "docs/clinicians.html")
    assert tab.locator(".course-switch").count() == 0


def test_a_live_widget_shows_its_still_picture_and_says_what_it_needs(tab, site):
    tab.goto(site.address + "notebooks/05_guidance.html")
    live = tab.locator(".course-widget:has(.course-still:has-text('kernel'))").first
    assert live.locator("img").is_visible()
    assert live.locator(".course-still").is_visible()


def test_search_finds_a_word(tab, site):
    tab.goto(site.address + "search.html?q=autoguidance")
    tab.wait_for_selector("#search-results a[href*='05_guidance']")
    tab.goto(site.address + "search.html?q=xyzzyx")
    tab.wait_for_selector("#search-results :text('did not match any documents')")


def test_on_a_phone_the_page_does_not_scroll_sideways_and_nothing_is_cut_off(visits):
    assert faults(visits, lambda visit: visit["phone"]["width"] > PHONE["width"]) == {}
    assert faults(visits, lambda visit: visit["phone"]["cut"]) == {}


def test_on_a_phone_every_table_fits_or_scrolls_with_its_first_column_in_sight(visits):
    assert sum(visit["phone"]["tables"] for visit in visits.values()) > 100
    assert faults(visits, lambda visit: visit["phone"]["stuck"]) == {}


def test_on_a_phone_the_text_is_large_enough(visits):
    assert faults(visits, lambda visit: visit["phone"]["small"][:5]) == {}
