"""Measure the house: what imports what in course_lib and data_fetch, and how many lines stand in each room.

python tools/house.py [FOLDER]      FOLDER: the course to measure, by default this one

How it counts:

- A module is a file ``*.py``. An import counts wherever it stands, also in a function (then it is deferred), and once
  a pair of modules.
- A room is a module or package directly in ``course_lib``; ``data_fetch`` is one room.
- A circle is a set of modules, each of which imports all others, directly or through others. It is deferred where the
  imports at the top of the modules close none.
- Layers are the modules, or the rooms, of the longest chain in which each imports the next; a circle is one layer.
- Lines are those of the file, blank lines and docstrings included; in notebooks those of the code cells.
"""

import ast
import json
import sys
from collections import Counter, namedtuple
from pathlib import Path

PACKAGES = ("course_lib", "data_fetch")
BUDGETS = """
course_lib/ 9000  notebooks 7000
schedules 200  predictions 80  samplers 175  denoisers 165  guidance 120  likelihood 185  operators 330  inverse 215
scans 50  networks 370  losses 195  training 195  pretrained 95  generate 70  images 40  datasets 150  hippocampus 60
nifti 115  files 60  runtime 80  environment 150  profiling 74  train 80  sample 90
applications 495  generative 470  recipes 750  experiments 2300  metrics 440  viz 1200  exercises 4500
"""  # lines of each room; course_lib/ is the library without its exercises

Import = namedtuple("Import", "importer imported path line deferred")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def modules(root):
    """{dotted name: path} of every module of the packages below root."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(root):
    """All imports of the modules below root, a list of :class:`Import`; what is from elsewhere has its full name."""
    known, found = modules(root), []
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        deferred = {id(node) for scope in ast.walk(tree) if isinstance(scope, FUNCTIONS) for node in ast.walk(scope)}
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(tree):
            for target in _targets(node, package):
                while target.partition(".")[0] in PACKAGES and target not in known:
                    target = target.rpartition(".")[0]  # a function's or a class's module
                if target != name:
                    found.append(Import(name, target, path.relative_to(root), node.lineno, id(node) in deferred))
    return found


def _targets(node, package):
    """The dotted names that a node of the syntax tree imports; none where it is no import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        return [".".join([*above, *([node.module] if node.module else []), alias.name]) for alias in node.names]
    return []


def edges(found, deferred=True):
    """The pairs (importer, imported) within the packages, with or without the deferred ones."""
    return {(i.importer, i.imported) for i in found if room(i.imported) and (deferred or not i.deferred)}


def reached(pairs, start):
    """All that one module imports, directly or through others."""
    seen, ahead = set(), [start]
    while ahead:
        here = ahead.pop()
        new = {imported for importer, imported in pairs if importer == here} - seen
        seen |= new
        ahead += new
    return seen


def circles(pairs):
    """The circles among the pairs, each a sorted tuple of modules."""
    below = {name: reached(pairs, name) for name in {importer for importer, _ in pairs}}
    return sorted({tuple(sorted(m for m in found if name in below.get(m, ()))) for name, found in below.items()} - {()})


def longest_chain(pairs):
    """The longest chain of imports from the importer down, each link a tuple: one module, or those of a circle."""
    home = {name: circle for circle in circles(pairs) for name in circle}
    below = {}
    for importer, imported in pairs:
        here, there = home.get(importer, (importer,)), home.get(imported, (imported,))
        below.setdefault(here, set()).update({there} - {here})
    chains = {}

    def chain(here):
        if here not in chains:
            chains[here] = [here, *max(map(chain, sorted(below.get(here, ()))), key=len, default=[])]
        return chains[here]

    return max(map(chain, sorted(below)), key=len, default=[])


def room(name):
    """The room of a module: ``viz`` of ``course_lib.viz.figures``; None for a module from elsewhere."""
    package, *rest = name.split(".")
    if package not in PACKAGES:
        return None
    return rest[0] if rest and package == "course_lib" else package


def lines(root):
    """{room: lines}, with ``course_lib/``, the library without exercises, and ``notebooks``, the code in them."""
    counted = Counter()
    for name, path in modules(root).items():
        n = len(path.read_text(encoding="utf-8").splitlines())
        counted[room(name)] += n
        counted["course_lib/"] += n * (room(name) not in ("data_fetch", "exercises"))
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in (root / "notebooks").glob("*.ipynb")]
    cells = [cell for notebook in notebooks for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counted["notebooks"] = sum(len("".join(cell["source"]).splitlines()) for cell in cells)
    return counted


def main(root):
    """Print the measures of the course in the folder root."""
    found, counted = imports(root), lines(root)
    pairs, top = edges(found), circles(edges(found, deferred=False))
    rooms = {(room(a), room(b)) for a, b in pairs if room(a) != room(b)}
    whole = circles(pairs)
    deferred = sum(not any(set(part) <= set(circle) for part in top) for circle in whole)
    for what, between in {"modules": pairs, "rooms": rooms}.items():
        chain = longest_chain(between)
        said = " > ".join(" = ".join(names) for names in chain).replace("course_lib.", "")
        print(f"layers   {len(chain)} of {what}: {said}")
    print(f"edges    {len(pairs)} between {len(modules(root))} modules, {len(rooms)} between rooms")
    print(f"circles  {len(whole)}, {deferred} of them deferred")
    for names in whole:
        print("         " + " = ".join(names))
    print(f"\n{'lines of':20}{'now':>8}{'budget':>8}{'over':>8}")
    words = BUDGETS.split()
    budgets = dict(zip(words[::2], map(int, words[1::2])))
    for name in [*budgets, *sorted(counted.keys() - budgets)]:
        n, budget = counted[name], budgets.get(name, 0)
        print(f"{name:20}{n:8}{budget or '':8}{n - budget if 0 < budget < n else '':8}".rstrip())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve())
