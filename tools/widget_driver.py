"""Move every control of a notebook's widgets in a browser, and time from the hand's move to the new picture.

    with lab_server.serve(folder) as server, lab_server.chromium() as page:
        lab_server.open_notebook(page, server.notebook(name))
        widget_driver.stills(page)                   # as a freshly cloned notebook shows them
        widget_driver.trust(page)
        for move in widget_driver.steppers(page, moves=10): ...
        widget_driver.run_cells(page, cells.demo_cells(notebook))
        for move in widget_driver.live_widgets(page, moves=10): ...

A time is measured in the page: from the event that the move causes until the new picture is decoded and the next frame
is drawn. So it holds the way to the kernel and back, the computation and the encoding, as the hand feels them.
"""

from dataclasses import dataclass
from functools import partial

from lab_server import PATIENCE

# Counts for each picture what it shows: the address of an <img> is its content, since all are data: addresses.
STILLS = """() => [...document.querySelectorAll('.jp-CodeCell')].flatMap((cell, number) =>
    [...cell.querySelectorAll('.jp-OutputArea-output .course-widget')].map(widget => {
        const image = widget.querySelector('img.course-frame');
        const still = widget.querySelector('.course-still');
        return {
            kind: widget.classList.contains('course-predict') ? 'predict'
                : widget.querySelector('input.course-stepper') ? 'stepper' : 'live',
            picture: !image ? null : image.complete && image.naturalWidth > 0 && image.checkVisibility(),
            words: still !== null && still.checkVisibility() && still.textContent.trim().length > 0,
            alt: image ? image.alt : null,
        };
    }))"""

# The command's promise is not waited for: on a busy machine Chromium has collected it before it was kept.
TRUST = "() => { window.jupyterapp.commands.execute('notebook:trust'); }"

RUN_CELL = """async number => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.sessionContext.ready;
    panel.content.deselectAll();
    panel.content.activeCellIndex = number;
    const start = performance.now();
    await window.jupyterapp.commands.execute('notebook:run-cell');
    const errors = panel.content.widgets[number].model.outputs.toJSON().filter(o => o.output_type === 'error');
    return {seconds: (performance.now() - start) / 1000, errors: errors.map(e => e.ename + ': ' + e.evalue)};
}"""

# Waits for one change of a widget's picture. Called before the move; the promise is awaited after it.
WATCH = """([kind, index]) => {
    const root = document.querySelectorAll(kind)[index];
    const image = () => root.querySelector('img.course-frame, img.course-live');
    const before = image().src;
    let start = null;
    const begin = () => { if (start === null) start = performance.now(); };
    const events = ['keydown', 'input', 'change', 'click'];
    events.forEach(name => root.addEventListener(name, begin, true));
    window.courseMove = new Promise(done => {
        const stop = (changed, text) => {
            events.forEach(name => root.removeEventListener(name, begin, true));
            observer.disconnect();
            clearTimeout(limit);
            done({changed, milliseconds: start === null ? null : performance.now() - start, text});
        };
        const look = async () => {
            const now = image();
            if (!now || now.src === before) return;
            observer.disconnect();
            await now.decode();
            requestAnimationFrame(() => requestAnimationFrame(() => stop(true, '')));
        };
        const observer = new MutationObserver(look);
        const limit = setTimeout(() => stop(false, root.innerText), LIMIT);
        observer.observe(root, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
    });
}"""
SECONDS = 120  # to wait for a picture before a widget counts as broken
LIVE = ".jp-OutputArea-output .jupyter-widgets.widget-vbox:has(img.course-live)"
STEPPER = ".course-widget:has(input.course-stepper)"


@dataclass(frozen=True)
class Move:
    """One move of one control: the widget (its kind, its number among these, its title), the control, and the
    milliseconds until the new picture, or None where none came; then `text` is what the widget shows."""

    kind: str
    index: int
    title: str
    control: str
    milliseconds: float | None
    text: str = ""


def stored(notebook):
    """The kinds of the widgets among a notebook's stored outputs, in order: "stepper", "live" or "predict"."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            markup = output.get("data", {}).get("text/html", "")
            if 'class="course-widget' in markup:
                is_predict, is_stepper = "course-predict" in markup, 'class="course-stepper"' in markup
                found.append("predict" if is_predict else "stepper" if is_stepper else "live")
    return found


def stills(page):
    """For each widget of the open notebook its kind and whether its still picture or its words are seen."""
    return page.evaluate(STILLS)


def trust(page):
    """Trust the open notebook, as the command palette does, and wait until its scripts run."""
    page.evaluate(TRUST)
    page.locator(".jp-Dialog button.jp-mod-accept").click(timeout=PATIENCE)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.course-controls')].every(controls => !controls.hidden)", timeout=PATIENCE
    )


def run_cells(page, numbers):
    """Run cells of the open notebook in turn; returns the seconds of each. Raises RuntimeError with a cell's error."""
    seconds = {}
    for number in numbers:
        answer = page.evaluate(RUN_CELL, number)
        if answer["errors"]:
            raise RuntimeError(f"cell {number}: {answer['errors']}")
        seconds[number] = answer["seconds"]
    return seconds


def stop_kernel(page):
    """Shut the open notebook's kernel down, which frees half a gigabyte."""
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def _watched(page, kind, index, title, control, move):
    """Do `move()` and time it."""
    page.evaluate(WATCH.replace("LIMIT", str(1000 * SECONDS)), [kind, index])
    move()
    seen = page.evaluate("() => window.courseMove")
    name = "stepper" if kind == STEPPER else "live"
    return Move(name, index, title, control, seen["milliseconds"] if seen["changed"] else None, seen["text"])


def steppers(page, moves):
    """Move each kernel-free slider to `moves` other places; yields a :class:`Move` each."""
    for index in range(page.locator(STEPPER).count()):
        widget = page.locator(STEPPER).nth(index)
        slider = widget.locator("input.course-stepper")
        slider.scroll_into_view_if_needed()
        title = widget.get_attribute("aria-label")
        last = int(slider.get_attribute("max"))
        places = [round(k * last / moves) for k in range(moves, -1, -1)]
        slider.fill(str(last))
        for place in list(dict.fromkeys(places))[1:]:
            yield _watched(page, STEPPER, index, title, "slider", partial(slider.fill, str(place)))


def live_widgets(page, moves):
    """Move the controls of each widget that the kernel computes, in turn, `moves` times in all and each at least once;
    yields a :class:`Move` each."""
    page.wait_for_selector(LIVE, timeout=PATIENCE)
    for index in range(page.locator(LIVE).count()):
        widget = page.locator(LIVE).nth(index)
        widget.scroll_into_view_if_needed()
        title = widget.locator("b").first.inner_text()
        controls = widget.locator(".noUi-handle, select, input[type=checkbox]")
        count = controls.count()
        for k in range(max(moves, count)):
            control = controls.nth(k % count)
            name = control.locator("xpath=ancestor::*[contains(@class, 'widget-inline-hbox')][1]//label").first
            yield _watched(page, LIVE, index, title, name.inner_text(), partial(_nudge, control))


def _nudge(control):
    """Move a control: a slider by the keyboard to the right while it can, a choice to the one before, the first to the
    last. (Neighbouring choices at the lowest setting may give the same picture: two samplers at one step.)"""
    if control.evaluate("control => control.tagName") == "SELECT":
        control.evaluate(
            "select => { const n = select.options.length; select.selectedIndex = (select.selectedIndex + n - 1) % n;"
            "select.dispatchEvent(new Event('change', {bubbles: true})); }"
        )
    elif control.get_attribute("type") == "checkbox":
        control.click()
    else:
        at_the_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.focus()
        control.press("ArrowLeft" if at_the_end else "ArrowRight")
