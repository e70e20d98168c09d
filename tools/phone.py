"""The phone pack: the part of the web site that an hour on phones needs, and a server for it on a laptop or a stick.

    python3 start.py phone                   serve it on this machine alone, to try it
    python3 start.py phone 192.168.1.20      serve it to a room: the address that this laptop has in the room's network
    python3 start.py phone --stick FOLDER    write it there; any Python from 3.7 on serves it: python3 serve.py ADDRESS

It holds the lab if the site has one, notebook 00, the clinician's hour with the notebooks that it leads to, and the
quiz. It is made anew from build/site each time, into build/phone: build the site first (python3 start.py site).
"""

import argparse
import gzip
import html
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import segno
import serve

ROOT = Path(__file__).resolve().parent.parent
SITE, PHONE = ROOT / "build" / "site", ROOT / "build" / "phone"
LIMIT = 40_000_000  # bytes

HOUR = "docs/clinicians.html"
#: (page, what the first page says of it), those that the site has
PAGES = (
    (HOUR, "A clinician's hour: sixty minutes without code"),
    ("lab/index.html", "The lab: draw, guide, fill and heal, computed on this phone"),
    ("notebooks/00_start_here.html", "Start here: a chest X-ray out of noise"),
    ("docs/quiz.html", "The quiz: what did you take home?"),
)
MARK = "course-phone-pack"  # a file in the pack's folder: what lacks it was made by others
#: What pages load, below the site's folder: styles, scripts, the lab; but for what no page asks for.
ASSETS = ("_static/**/*", "lab/**/*", "searchindex.js", "search.html")
UNUSED = r"\.map$|^_static/(locales/|mathjax/(?!tex-chtml\.js$|output/chtml/fonts/woff-v2/))"
COMPRESSED = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".wasm", ".txt"}

FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Diffusion models for medical imaging</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
body {{ font: 1.2rem/1.5 sans-serif; margin: 1rem auto; max-width: 34rem; padding: 0 1rem; }}
a {{ display: block; margin: 1rem 0; padding: 1rem; border: 2px solid #0072b2; border-radius: 0.5rem; color: #005a8e; }}
</style></head><body><main><h1>Diffusion models for medical imaging</h1>
{links}
<p>Not for clinical use.</p></main></body></html>
"""


def pages(site):
    """The pages of the pack that a site has: [(page, what to say of it)], and after them, with "", the notebooks that
    the clinician's hour leads to. Raises ServeError where the site was not built."""
    if not (site / HOUR).is_file():
        raise serve.ServeError(f"{site} has no {HOUR}: build the site first, python3 start.py site.")
    named = [(page, says) for page, says in PAGES if (site / page).is_file()]
    led_to = sorted(set(re.findall(r'href="\.\./(notebooks/\w+\.html)', article(site / HOUR))))
    return named + [(page, "") for page in led_to if page not in dict(named)]


def article(path):
    """The text of a page, without the bars around it."""
    return re.search(r"<article.*</article>", path.read_text(encoding="utf-8"), re.DOTALL).group(0)


def files(site):
    """Paths below the site that the pack holds."""
    chosen = [page for page, _ in pages(site)]
    pictures = {name for page in chosen for name in re.findall(r"_images/[\w.-]+", (site / page).read_text("utf-8"))}
    assets = {path.relative_to(site).as_posix() for glob in ASSETS for path in site.glob(glob) if path.is_file()}
    assets = {path for path in assets if not re.search(UNUSED, path)}
    return sorted({*chosen, *pictures, *assets})


def pack(site, folder):
    """Write the pack into a folder of its own, text compressed; returns its size in bytes.

    Raises ServeError where the site was not built, or the folder is not the pack's own.
    """
    chosen = files(site)
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise serve.ServeError(f"{folder} holds something else: name another folder, or move what is there.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    links = [f'<a href="{page}">{html.escape(says)}</a>' for page, says in pages(site) if says]
    (folder / "index.html").write_text(FIRST_PAGE.format(links="\n".join(links)), encoding="utf-8")
    for name in chosen:
        source, target = site / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in COMPRESSED:
            target.with_name(target.name + ".gz").write_bytes(gzip.compress(source.read_bytes(), mtime=0))
        else:
            shutil.copyfile(source, target)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_stick(site, folder):
    """The pack and what serves it, into a folder; returns the size of the pack in bytes."""
    size = pack(site, folder / "pack")
    shutil.copyfile(serve.__file__, folder / "serve.py")
    library, compiled = folder / "segno", shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(segno.__file__).parent, library, ignore=compiled, dirs_exist_ok=True)
    licence = next(path for path in metadata.files("segno") if path.name == "LICENSE")
    shutil.copyfile(licence.locate(), library / "LICENSE")
    return size


def main(arguments, site=SITE, folder=PHONE):
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Serve the phone pack to a room.")
    serve.add_arguments(parser)
    parser.add_argument("--stick", type=Path, metavar="FOLDER", help="write it there, with its server, and end")
    options = parser.parse_args(arguments)
    try:
        size = write_stick(site, options.stick) if options.stick else pack(site, folder)
        print(f"The phone pack: {size / 1e6:.1f} MB.")
        if size > LIMIT:
            print(f"That is more than {LIMIT / 1e6:.0f} MB: a weak Wi-Fi will be slow.", file=sys.stderr)
        if options.stick:
            print(f"On the stick: python3 serve.py ADDRESS, in {options.stick}")
        else:
            serve.serve(folder, options.address, options.port)
    except (serve.ServeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
