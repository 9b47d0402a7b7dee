"""Words that this project does not use, looked for in its sources: `python -m tests.harness.wording`.

Looked at are Python, Markdown and flag files under version control. What docs/results holds is made by programs.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]

INSTEAD = {
    r"ask(?:s|ed|ing)? about": "predict, evaluate or classify",
    r"(?:come|came|coming|comes) to": "result in, amount to, or the quantity itself",
    r"anew": "again",
    r"brakes?": "bottleneck",
    r"behind (?:step|epoch|every so many steps)": "after",
    r"rooms": "packages or folders",
    r"the house": "the project",
    r"twins?": "inference model, or copy",
    r"mend(?:s|ed|ing)?": "fix or repair",
    r"(?:say|says|said) nothing (?:to|about)": "does not apply to",
    r"models? of (?:maps|patches)": "segmentation model, classification model",
    r"see the class": "no docstring, for the class explains its arguments",
}
"""Expressions, each with what is said in its place."""

# Words may be parts of identifiers, and a line may end between them.
_PATTERN = re.compile(rf"(?<![a-z])(?:{'|'.join(INSTEAD)})(?![a-z])".replace(" ", r"\s+"), re.IGNORECASE)
_EXCLUDED = ("docs/results/", "tests/harness/wording.py", "tests/test_wording.py")


def find(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields the line number, the words found and what to say instead, for each place of a text."""
    for match in _PATTERN.finditer(text):
        words = " ".join(match[0].split())
        instead = next(value for key, value in INSTEAD.items() if re.fullmatch(key, words, re.IGNORECASE))
        yield text.count("\n", 0, match.start()) + 1, words, instead


def problems() -> list[str]:
    """Returns a line for each place in the project."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.flags"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [path for path in listed.stdout.splitlines() if not path.startswith(_EXCLUDED)]
    return [
        f"{path}:{number}: '{words}'; say {instead}"
        for path in paths
        if (ROOT / path).is_file()
        for number, words, instead in find((ROOT / path).read_text(encoding="utf-8"))
    ]


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines))
    sys.exit(bool(lines))
