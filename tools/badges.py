"""Derive every badge and link to the repository from pyproject.toml, the one place that holds its address.

python tools/badges.py            rewrite README.md, CONTRIBUTING.md, CITATION.cff and the notebooks
python tools/badges.py NAME       print the badges of notebooks/NAME.ipynb, to paste into its first cell
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLUG = r"[\w.-]+/[\w-]+"  # owner/name
LINKS = [
    rf"(?<=colab\.research\.google\.com/github/){SLUG}",
    rf"(?<=mybinder\.org/v2/gh/){SLUG}",
    rf"(?<=git\+https://github\.com/){SLUG}",
    rf"(?<=git clone https://github\.com/){SLUG}",
    rf'(?<=repository-code: "https://github\.com/){SLUG}',
]


def slug(pyproject):
    """The repository's owner/name, read from the text of pyproject.toml."""
    return re.search(rf'^Repository = "https://github\.com/({SLUG})"', pyproject, re.MULTILINE).group(1)


def badges(name, slug):
    """Markdown of the Colab and Binder badges of notebooks/NAME.ipynb."""
    path = f"notebooks/{name}.ipynb"
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/{path}"
    binder = f"https://mybinder.org/v2/gh/{slug}/main?urlpath=lab/tree/{path}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def rewritten(text, slug):
    """The text with every link to the repository pointing to owner/name `slug`."""
    for link in LINKS:
        text = re.sub(link, slug, text)
    return text


def files():
    """The files that hold such links."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")),
        *sorted((ROOT / "notebooks").glob("*.ipynb")),
    ]


def main(names):
    """Print the badges of the notebooks named, or rewrite all files."""
    here = slug((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in names:
        print(badges(name, here))
    if names:
        return
    for path in files():
        before = path.read_bytes().decode()
        after = rewritten(before, here)
        if after != before:
            path.write_bytes(after.encode())
            print(f"{path.relative_to(ROOT)}: rewritten")


if __name__ == "__main__":
    main(sys.argv[1:])
