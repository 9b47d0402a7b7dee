"""Every `module.name` and `from module import name` of the project's own modules exists.

ruff finds a name that is missing in its own file, and import-linter an import that points up; neither looks into
another module. A function of a late import, or one that only a GPU reaches, would fail at its first use.
"""

import ast
import dataclasses
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("eo_keras", "tfrecords_builder", "launch", "benchmarks", "tests")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the project: what it binds at the top, each name with the module it stands for or None."""

    name: str
    path: pathlib.Path
    tree: ast.Module
    names: dict


class Project:
    """All modules of a tree, looked up by name without importing them."""

    def __init__(self, root: pathlib.Path, packages=PACKAGES):
        self.root, self.modules = root, {}
        for package in packages:
            for path in sorted((root / package).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                is_package = parts[-1] == "__init__"
                name = ".".join(parts[:-1] if is_package else parts)
                tree = ast.parse(path.read_text(), str(path))
                self.modules[name] = Module(name, path, tree, {})
        self.packages = {name.rpartition(".")[0] for name in self.modules} | set(packages)
        for module in self.modules.values():
            module.names.update(self._bound(module.tree))

    def holds(self, module: str, name: str) -> bool:
        """Whether a module has an attribute; one with its own `__getattr__` is imported and lists them itself."""
        inner = f"{module}.{name}"
        if inner in self.modules or inner in self.packages or name in ("__name__", "__doc__", "__file__", "__path__"):
            return True
        if module not in self.modules:
            return False
        names = self.modules[module].names
        return name in names or ("__getattr__" in names and name in dir(importlib.import_module(module)))

    def module_of(self, module: str, name: str) -> str | None:
        """Returns the module that an attribute of a module is, or None."""
        inner = f"{module}.{name}"
        if module in self.modules and name in self.modules[module].names:
            return self.modules[module].names[name]
        return inner if inner in self.modules or inner in self.packages else None

    def _bound(self, scope: ast.AST) -> dict:
        """Returns the names that a scope binds: the module for those that are only imported modules, else None."""
        bound = {}

        def bind(name, module=None):
            bound[name] = module if bound.get(name, module) == module else None

        def visit(node):
            if isinstance(node, ast.Import):
                for item in node.names:
                    top = item.name.partition(".")[0]
                    target = item.name if item.asname else top
                    bind(item.asname or top, target if top in PACKAGES else None)
            elif isinstance(node, ast.ImportFrom):
                for item in node.names:
                    inner = f"{node.module}.{item.name}"
                    is_module = inner in self.modules or inner in self.packages
                    bind(item.asname or item.name, inner if is_module else None)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bind(node.id)
            elif isinstance(node, ast.arg):
                bind(node.arg)
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
                bind(node.name)
            elif isinstance(node, (*_FUNCTIONS[:2], ast.ClassDef)) and node is not scope:
                bind(node.name)
            if node is scope or not isinstance(node, _SCOPES):
                for child in ast.iter_child_nodes(node):
                    visit(child)

        visit(scope)
        return bound

    def stale(self, module: Module) -> list[str]:
        """Returns where a module uses a name that another module of the project does not have."""
        problems = []

        def report(node, text):
            problems.append(f"{module.path.relative_to(self.root)}:{node.lineno}: {text}")

        def resolve(node, scopes) -> str | None:
            """Returns the module that an expression stands for; reports an attribute that a module lacks."""
            if isinstance(node, ast.Name):
                return next((scope[node.id] for scope in reversed(scopes) if node.id in scope), None)
            if isinstance(node, ast.Attribute):
                owner = resolve(node.value, scopes)
                if owner is None:
                    return None
                if not self.holds(owner, node.attr):
                    report(node, f"{owner} has no {node.attr}")
                    return None
                return self.module_of(owner, node.attr)
            visit(node, scopes)
            return None

        def visit(node, scopes):
            if isinstance(node, ast.Attribute):
                resolve(node, scopes)
                return
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.partition(".")[0] in PACKAGES:
                for item in node.names:
                    if not self.holds(node.module, item.name):
                        report(node, f"{node.module} has no {item.name}")
            elif isinstance(node, ast.Import):
                for item in node.names:
                    known = item.name in self.modules or item.name in self.packages
                    if item.name.partition(".")[0] in PACKAGES and not known:
                        report(node, f"there is no module {item.name}")
            elif isinstance(node, _SCOPES):
                scopes = [*scopes, self._bound(node)]
            elif isinstance(node, ast.With) and any("AttributeError" in ast.unparse(item) for item in node.items):
                return  # A test that there is no such name.
            for child in ast.iter_child_nodes(node):
                visit(child, scopes)

        visit(module.tree, [self._bound(module.tree)])
        return problems


def test_names_of_other_modules_exist():
    project = Project(ROOT)
    problems = [problem for module in project.modules.values() for problem in project.stale(module)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("line", "stale"),
    [
        ("folder.OPENED", []),
        ("folder.CLOSED", ["eo_keras.runs has no CLOSED"]),
        ("folder.inner.DEPTH + folder.inner.WIDTH", ["eo_keras.inner has no WIDTH"]),
        ("folder.OPENED.anything", []),
        ("def f(folder):\n    return folder.CLOSED", []),
        ("def f():\n    return [folder.CLOSED for other in ()]", ["eo_keras.runs has no CLOSED"]),
        ("[folder.CLOSED for folder in ()]", []),
        ("def f():\n    from eo_keras.inner import WIDTH", ["eo_keras.inner has no WIDTH"]),
        ("import eo_keras.inner\neo_keras.inner.WIDTH", ["eo_keras.inner has no WIDTH"]),
        ("import eo_keras.outer", ["there is no module eo_keras.outer"]),
        ("folder.open(folder.CLOSED).more", ["eo_keras.runs has no CLOSED"]),
    ],
)
def test_what_counts_as_a_stale_name(line, stale, tmp_path):
    for name, text in (
        ("__init__", ""),
        ("inner", "DEPTH = 1\n"),
        ("runs", "from eo_keras import inner\nOPENED = True\n\n\ndef open(path):\n    return path\n"),
        ("user", f"from eo_keras import runs as folder\n{line}\n"),
    ):
        (tmp_path / "eo_keras").mkdir(exist_ok=True)
        (tmp_path / "eo_keras" / f"{name}.py").write_text(text)
    project = Project(tmp_path, ("eo_keras",))
    found = [problem for module in project.modules.values() for problem in project.stale(module)]
    assert [problem.split(": ", 1)[1] for problem in found] == stale
