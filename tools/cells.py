"""Which cells of a notebook another cell needs: those that bind or change the names it uses, and theirs in turn.

A widget can then be shown after seconds, where running the whole notebook takes a minute. The analysis reads names
alone: a value that changes behind another name escapes it, and then the cell stops with an error or shows other noise.
"""

import ast
from dataclasses import dataclass, field

import nbformat

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass
class Names:
    """What a cell's code does with names: `binds` them, `changes` what they hold, uses them now or when `called`."""

    binds: set = field(default_factory=set)
    imports: set = field(default_factory=set)
    changes: set = field(default_factory=set)
    uses: set = field(default_factory=set)
    called: set = field(default_factory=set)


def read(path):
    """The notebook of a path."""
    return nbformat.read(path, as_version=4)


def names_of(source):
    """The :class:`Names` of a cell's source; magics and shell lines count as nothing."""
    if source.startswith("%%"):
        return Names()
    plain = ["pass" if line.startswith(("%", "!")) else line for line in source.splitlines()]
    visitor = _Visitor()
    for statement in ast.parse("\n".join(plain)).body:
        visitor.visit(statement)
        visitor.names.binds |= visitor.bound  # only now: in `x = x + 1` the x on the right comes from elsewhere
    visitor.names.changes.discard(None)
    return visitor.names


class _Visitor(ast.NodeVisitor):
    """Fills :class:`Names`; names that belong to a function or a comprehension alone stay out."""

    def __init__(self):
        self.names, self.bound, self.local, self.depth = Names(), set(), [], 0

    def visit_Name(self, node):
        if any(node.id in scope for scope in self.local):
            return
        if isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)
        elif self.depth:
            self.names.called.add(node.id)
        elif node.id not in self.names.binds:
            self.names.uses.add(node.id)

    def visit_alias(self, node):
        name = (node.asname or node.name).split(".")[0]
        self.bound.add(name)
        self.names.imports.add(name)

    def visit_AugAssign(self, node):
        self.names.uses.add(_root(node.target))
        self.generic_visit(node)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and not self.local:
            self.names.changes.add(_root(node.value.func))
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Store) and not self.local:
            self.names.changes.add(_root(node))
        self.generic_visit(node)

    visit_Subscript = visit_Attribute

    def visit_FunctionDef(self, node):
        if not self.depth:
            self.bound.add(node.name)
        for outside in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(outside)
        self._function(node.args, node.body)

    def visit_Lambda(self, node):
        for outside in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(outside)
        self._function(node.args, [node.body])

    def _function(self, arguments, body):
        parameters = {node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)}
        self.local.append(parameters.union(*map(_stored, body)))
        self.depth += 1
        for part in body:
            self.visit(part)
        self.depth -= 1
        self.local.pop()

    def visit_ListComp(self, node):
        self.local.append(set().union(*(_stored(part.target) for part in node.generators)))
        self.generic_visit(node)
        self.local.pop()

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp


def _stored(node):
    """The names that are assigned somewhere in a piece of code."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _root(node):
    """The name at the left end of `name.a[b].c`, or None."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def needed(sources, targets):
    """Numbers of the cells to run so that the cells `targets` can run, in order, these included.

    sources : the text of each cell, None for a cell that is not code. The first code cell, the set-up, always belongs.
    """
    known = {number: names_of(source) for number, source in enumerate(sources) if source and source.strip()}
    chosen, last = {min(known)}, max(targets)
    imported = set().union(*(names.imports for names in known.values()))
    waiting = []

    def choose(number):
        if number not in chosen:
            chosen.add(number)
            names = known[number]
            waiting.extend((name, number) for name in names.uses | names.called)
            waiting.extend((name, last + 1) for name in names.called)

    for target in targets:
        choose(target)
    seen = set()
    while waiting:
        name, before = waiting.pop()
        if (name, before) in seen:
            continue
        seen.add((name, before))
        binding = max((n for n, names in known.items() if n < before and name in names.binds), default=None)
        if binding is None:
            continue  # a built-in, or a parameter of a function
        choose(binding)
        if name not in imported:
            for number in (n for n, names in known.items() if binding < n < before and name in names.changes):
                choose(number)
    return sorted(chosen)


def live_cells(notebook):
    """Numbers of the cells whose stored output is a widget that wants a kernel."""
    return [
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and any(WIDGET_VIEW in output.get("data", {}) for output in cell.outputs)
    ]


def demo_cells(notebook):
    """Numbers of the cells to run before the notebook's live widgets answer, these included; the set-up alone where
    there is none."""
    sources = [cell.source if cell.cell_type == "code" else None for cell in notebook.cells]
    code = [number for number, source in enumerate(sources) if source and source.strip()]
    return needed(sources, live_cells(notebook) or code[:1])
