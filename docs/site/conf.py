"""Sphinx settings of the web site: *.md, docs/*.md, notebooks with their stored outputs. `python3 start.py site`.

The folder of the course itself is the source, so that every link of README.md and of the notebooks holds on the site.
No notebook is executed and nothing is fetched: MathJax comes with the package sphinx-mathjax-offline. Beside the pages
stands the lab, in the folder lab; docs/lab.md says how it is made.
"""

import base64
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
import quiz  # noqa: E402
import serve  # noqa: E402

project = "Diffusion models for medical imaging"
author = "the authors of the course"
copyright = "the authors of the course. Prose and figures CC BY 4.0, code Apache-2.0. Not for clinical use"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # of arguments, as they are written
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = ["**/.*"]

nb_execution_mode = "off"
nb_merge_streams = True  # what a loop printed in two goes is one block
# Without a kernel a live widget is a dead frame: its still picture stands in the same output.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_code_prompt_show, nb_code_prompt_hide = "Code", "Code"
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_update_mathjax = False
mathjax3_config = {
    "tex": {"inlineMath": [["$", "$"], ["\\(", "\\)"]], "processEscapes": True},
    # Formulas are marked by Sphinx; only in what cells showed are there bare dollars.
    "options": {"ignoreHtmlClass": "tex2jax_ignore|document", "processHtmlClass": "math|text_html"},
}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["code.js"]
html_favicon = "static/icon.svg"
templates_path = ["templates"]
html_sidebars = {"**": ["navbar-logo.html", "lab-link.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_context = {"default_mode": "light"}  # a dark one would alter the grey values of the pictures
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 2,
}

FENCE = "`" * 12  # longer than any in what cells show
SWITCHED = "course-code"  # a tag, in HTML the class tag_course-code: code that the switch of a page unfolds

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: Notebooks
notebooks/*
```

```{toctree}
:hidden:
:glob:
:caption: More
docs/*
CONTRIBUTING
LICENSE-CONTENT
```
"""


def make_front_page(app, docname, source):
    """README.md as the first page: title before commands, the picture in Markdown, and the contents of the site."""
    if docname == root_doc:
        commands, text = source[0].split("\n# ", 1)
        text = text.replace("## Start\n", f"## Start\n\n{commands}\n", 1)
        source[0] = "# " + re.sub(r"</?p\b[^>]*>\n?", "", text) + CONTENTS


def fold_code(app, docname, source):
    """All code is folded. The switch of the page (code.js) unfolds it, but for what JupyterLab folds, too: the set-up,
    claims, and cards that ask for a prediction, whose code holds the answer."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                stays = cell["metadata"].get("jupyter", {}).get("source_hidden")
                cell["metadata"].setdefault("tags", []).extend(["hide-input"] if stays else ["hide-input", SWITCHED])
        source[0] = json.dumps(notebook)


def shown_by(notebook, cell):
    """What a cell of a stored notebook shows, as HTML in the boxes that a notebook's page has around it."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = next((c.get("outputs", []) for c in cells if c["id"] == cell), [])
    markup = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    if not markup:
        raise ValueError(f"{notebook}.ipynb shows nothing in cell {cell}: mend the comment that asks for it")
    return f'<div class="cell_output"><div class="output text_html">{markup}</div></div>'


def show_cells(app, docname, source):
    """In place of a comment, what it names: what the cell of a notebook shows, a station of the lab, the quiz; and
    without the note to those who read the file elsewhere, where comments show nothing."""

    def cell(match):
        return f"{FENCE}{{raw}} html\n{shown_by(*match.groups())}\n{FENCE}"

    def station(match):
        links = [f'<a href="../lab/index.html#{name}">{name}</a>' for name in match[1].split(", ")]
        return f"Try it in the lab: {', or '.join(links)}."

    if docname.startswith("docs/"):
        source[0] = re.sub(r"<!-- elsewhere -->.*?<!-- here -->\n*", "", source[0], flags=re.DOTALL)
        source[0] = source[0].replace("<!-- quiz -->", f"{FENCE}{{raw}} html\n{quiz.markup()}\n{FENCE}")
        source[0] = re.sub(r"<!-- shown: (\w+) ([\w-]+) -->", cell, source[0])
        source[0] = re.sub(r"<!-- station: ([\w, ]+) -->", station, source[0])


ARGUMENT = r"(\w+(?:, \w+)*) : (.+)"
OWN_SIGNS = r"(``.*?``|`.*?`)|((?<![*\w])\*(?=[\s\w])|\*\*(?=\d)|\|)"  # literals; 2 * x, x ** 2, |x|


def make_rst(app, what, name, obj, options, lines):
    """Docstrings for the reference: each argument ("name : what it is", further lines indented) is an item of a list,
    indented lines after an empty one are code, and signs that reStructuredText would take for its own stay signs."""
    found, block = [""], None
    for line, after in zip(lines, [*lines[1:], ""]):
        begins = re.match(ARGUMENT, line)
        if begins and (not after.strip() or after.startswith("    ") or re.match(ARGUMENT, after)):
            found += [] if block == "item" else [""]
            line, block = f"- **{begins.group(1)}** : {begins.group(2)}", "item"
        elif block == "item" and line.startswith("    "):
            line = "  " + line.lstrip()
        elif line.startswith("    ") and not found[-1].strip() and block != "code":
            found, block = [*found, "::", ""], "code"
        elif line.strip() and not line.startswith("    "):
            found += [""] if block == "item" else []
            block = None
        elif block == "item":
            block = None
        found.append(line if block == "code" else re.sub(OWN_SIGNS, lambda m: m[1] or f"\\{m[2]}", line))
    lines[:] = found


class NoForeignPictures(SphinxTransform):
    """A picture on another host (a badge) gives way to its words: the site needs no network."""

    default_priority = 100

    def apply(self):
        for image in list(self.document.findall(nodes.image)):
            if image["uri"].startswith(("http:", "https:")):
                image.replace_self(nodes.inline("", image["alt"], classes=["course-badge"]))


def store_figures(app, pagename, templatename, context, doctree):
    """Figures as files that load when they come near, each a link to itself: on a phone, a tap shows it whole."""
    folder = Path(app.outdir, "_images")

    def linked(match):
        kind, content, rest = match.groups()
        content = base64.b64decode(content)
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        address = context["pathto"](f"_images/{name}", resource=True)
        return (
            f'<a class="course-zoom" href="{address}">'
            f'<img class="course-figure" src="{address}" loading="lazy"{rest}></a>'
        )

    figure = r'<img class="course-figure" src="data:image/(\w+);base64,([^"]+)"([^>]*)>'
    context["body"] = re.sub(figure, linked, context.get("body", ""))


def copy_front_page(app, error):
    """The first page also under the name that a server looks for."""
    if error is None:
        shutil.copyfile(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def write_qr_page(app, error):
    """A page for the wall, with a QR code of the address at which the site is published."""
    if error is None:
        address = re.search(r'^Documentation = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
        Path(app.outdir, "qr.html").write_text(serve.qr_page(address, project), encoding="utf-8")


def add_lab(app, error):
    """The lab, in which the reader's browser computes."""
    if error is None:
        import web_lab  # loads PyTorch

        web_lab.write(Path(app.outdir, "lab"))


def setup(app):
    app.connect("source-read", make_front_page)
    app.connect("source-read", fold_code)
    app.connect("source-read", show_cells)
    app.connect("autodoc-process-docstring", make_rst)
    app.connect("html-page-context", store_figures)
    app.connect("build-finished", copy_front_page)
    app.connect("build-finished", write_qr_page)
    app.connect("build-finished", add_lab)
    app.add_transform(NoForeignPictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
