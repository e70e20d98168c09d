"""Ten pictures for an hour in which nothing runs: from the stored notebooks into a folder, with a page that shows one a
screen, and that needs no kernel, no network and no JupyterLab.

    python tools/fallback.py            into build/fallback (the evening before)
    python tools/fallback.py FOLDER     elsewhere, such as a stick

The pictures are files of their own, for whoever has slides already.
"""

import base64
import html
import re
import sys
from pathlib import Path

import nbformat
from slides import markup_of

ROOT = Path(__file__).resolve().parent.parent
FIGURE = r'<img class="course-figure" src="data:image/(\w+);base64,([^"]+)" alt="([^"]*)"'

#: (part, notebook, cell with the figure, what to say). One figure a cell.
PICTURES = (
    (1, "00_start_here", "c10-52756b", "From noise to images in fifteen looks: outlines first, texture last."),
    (1, "03_ddpm", "c41-e02024", "A network learns: noise, grey noise, dim heads, heads."),
    (2, "04_fast_sampling", "c51-a41383", "Fifteen evaluations of 2M are no worse than a thousand of DDPM."),
    (2, "05_guidance", "c46-ae2a11", "More guidance is not more of the right: variety goes first."),
    (2, "06_conditioning", "c27-400243", "A hole, filled: which of these columns is true? Ask before you point."),
    (
        2,
        "07_latent_and_3d",
        "c22-edd5fe",
        "Drawn, real, and what the decoder makes of the real ones: where is the error?",
    ),
    (
        3,
        "09_reconstruction",
        "c55-14b47f",
        "The same lesion, measured eight times faster: what arrives of it, and in which picture?",
    ),
    (3, "10_segmentation", "c78-lidc-b", "Four real readers: what would the right answer be?"),
    (3, "11_anomaly_detection", "c29-35fed6", "Noise and denoise: what goes first, the lesion or the person?"),
    (4, "14_open_challenges", "c19-71f0ab", "Sensitivity counts only beside false findings."),
)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Ten pictures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
html {{ scroll-snap-type: y mandatory; font: 24px sans-serif; }}
section {{ height: 100vh; scroll-snap-align: start; display: flex; flex-direction: column; }}
section {{ box-sizing: border-box; padding: 1rem; }}
img {{ flex: 1; min-height: 0; object-fit: contain; }}
p {{ margin: 0.5rem 0; text-align: center; }}
</style></head><body>
{sections}
</body></html>
"""


def figure(notebook, cell):
    """Kind, bytes and alt text of the figure that a cell of a stored notebook shows. Raises ValueError without one."""
    found = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    for output in next((c.get("outputs", []) for c in found.cells if c.id == cell), ()):
        if match := re.search(FIGURE, markup_of(output)):
            return match[1], base64.b64decode(match[2]), html.unescape(match[3])
    raise ValueError(f"{notebook}.ipynb has no figure in cell {cell}: mend PICTURES in tools/fallback.py")


def write(folder):
    """Write the pictures and index.html into a folder; returns the paths of the pictures."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, sections = [], []
    for number, (part, notebook, cell, say) in enumerate(PICTURES, 1):
        kind, content, alt = figure(notebook, cell)
        path = folder / f"{number:02}_part{part}_{notebook[:2]}.{kind}"
        path.write_bytes(content)
        paths.append(path)
        picture = f'<img src="{path.name}" alt="{html.escape(alt, quote=True)}">'
        sections.append(
            f"<section>{picture}<p>{number}. {html.escape(say)} (Part {part}, notebook {notebook[:2]})</p></section>"
        )
    (folder / "index.html").write_text(PAGE.format(sections="\n".join(sections)), encoding="utf-8")
    return paths


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "fallback"
    print(f"{len(write(target))} pictures in {target}; open index.html; space turns the page")
