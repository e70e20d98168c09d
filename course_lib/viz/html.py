"""HTML for a notebook, always with a plain-text twin for terminals, tests and screen readers."""

import base64
import html
import inspect
import re
import uuid

__all__ = ["Page", "data_uri", "image_tag", "inline", "prose", "rich", "unique_id"]


class Page:
    """A piece of HTML that displays itself as the last line of a cell, or by `display(page)`.

    `text` is what a terminal, a test or a text-only reader gets instead; it must say the same in words. `metadata`:
    what the stored output says about itself, {name: value}.
    """

    def __init__(self, markup, text, metadata=None):
        if not text or not text.strip():
            raise ValueError("a page needs a plain-text twin that says the same in words")
        self.markup, self.text, self.metadata = markup, text, metadata or {}

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.markup, "text/plain": self.text}
        return (bundle, self.metadata) if self.metadata else bundle

    def __repr__(self):
        return self.text


def unique_id(prefix):
    """An id that no other output of the page has: several copies of a widget live side by side."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def data_uri(content, mime):
    """bytes -> `data:` address that a browser opens without a server."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def image_tag(content, mime, alt, width, height, css_class="course-figure"):
    """bytes -> `<img>` that carries its alt text, at `width` x `height` CSS pixels and never wider than the page."""
    return (
        f'<img class="{css_class}" src="{data_uri(content, mime)}" alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto">'
    )


def prose(text):
    """Text as a module has it -> text as it is shown: the lines of a paragraph are joined, blank lines and ``` stay."""
    parts = re.split(r"(```.*?```)", inspect.cleandoc(text), flags=re.DOTALL)
    return "".join(part if part.startswith("```") else re.sub(r"(?<!\n)\n(?!\n)", " ", part) for part in parts)


def rich(text):
    """Plain text -> HTML: escaped, `code` between backticks, **bold**, *italic*, blocks between lines of ```, blank
    lines as paragraphs.

    $math$ is left to MathJax.
    """
    parts = re.split(r"```\w*\n(.*?)\n?```", text.strip(), flags=re.DOTALL)  # prose, code, prose, ...
    return "".join(_block(part) if index % 2 else _paragraphs(part) for index, part in enumerate(parts))


def inline(text):
    """`rich` for a single line: no paragraph around it."""
    return re.sub(r"^<p[^>]*>|</p>$", "", rich(text))


def _block(code):
    return f'<pre style="margin:6px 0;padding:6px 10px;white-space:pre-wrap">{html.escape(code, quote=False)}</pre>'


def _paragraphs(text):
    escaped = html.escape(text, quote=False)
    marked = re.sub(r"`([^`]+)`|\*\*(\w[^*`]*)\*\*|(?<![\w*^])\*(\w[^*`$]*)\*(?![\w*])", _mark, escaped)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", marked)]
    return "".join(f'<p style="margin:0.3em 0">{part}</p>' for part in paragraphs if part)


def _mark(match):
    code, bold, italic = match.groups()
    return f"<code>{code}</code>" if code else f"<b>{bold}</b>" if bold else f"<i>{italic}</i>"
