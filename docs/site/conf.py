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
    """Code that is folded in JupyterLab is folded here: the set-up, claims, and cards that ask for a prediction."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["metadata"].get("jupyter", {}).get("source_hidden"):
                cell["metadata"].setdefault("tags", []).append("hide-input")
        source[0] = json.dumps(notebook)


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
                image.replace_self(nodes.Text(image["alt"]))


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


def add_lab(app, error):
    """The lab, in which the reader's browser computes."""
    sys.path.insert(0, str(Path(app.srcdir, "tools")))
    import web_lab

    if error is None:
        web_lab.write(Path(app.outdir, "lab"))


def setup(app):
    app.connect("source-read", make_front_page)
    app.connect("source-read", fold_code)
    app.connect("autodoc-process-docstring", make_rst)
    app.connect("html-page-context", store_figures)
    app.connect("build-finished", copy_front_page)
    app.connect("build-finished", add_lab)
    app.add_transform(NoForeignPictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
