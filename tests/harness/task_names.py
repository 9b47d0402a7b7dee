"""Lines that compare the name of a task where none should: `python -m tests.harness.task_names`.

What a task is, its object in `eo_keras.tasks` knows; how its labels are stored, `eo_keras.records.targets`; which
networks are for it, the model registry. Code elsewhere calls these instead of asking for the name.
"""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

from eo_keras.records.targets import TARGETS

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("eo_keras", "tfrecords_builder", "launch")
KNOWING = (
    "eo_keras/tasks/",
    "eo_keras/records/targets.py",
    "eo_keras/models/registry.py",
    "eo_keras/models/__init__.py",
)


def find(source: str) -> Iterator[int]:
    """Yields the number of each line that compares a task's name, chooses by it in a dictionary or matches it."""
    for node in ast.walk(ast.parse(source)):
        compared: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            compared = node.keys
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        compared += [one for part in compared if isinstance(part, ast.Tuple | ast.List | ast.Set) for one in part.elts]
        if any(isinstance(one, ast.Constant) and one.value in TARGETS for one in compared):
            yield node.lineno


def problems() -> list[str]:
    """Returns a line for each place in the packages."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        f"{path.relative_to(ROOT)}:{number}: it compares a task's name; ask `eo_keras.tasks` or the card's `targets`"
        for path in paths
        if not path.relative_to(ROOT).as_posix().startswith(KNOWING)
        for number in find(path.read_text(encoding="utf-8"))
    ]


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines))
    sys.exit(bool(lines))
