"""Sweeps that docs/results keeps: the section of the page on how recipes were chosen.

docs/results/sweeps/NAME/
  flags.txt   base of all sweeps in the folder
  text.md     what they are about, and what they show
  *.json      the sweep.json of each
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks.kept_runs import Run, read, repeat, table
from eo_keras.sweeps.grid import SEED, format_value

_BASE_NAME, _TEXT_NAME = "flags.txt", "text.md"


def sections(folder: pathlib.Path) -> list[str]:
    """Returns the section on all sweeps, or nothing where there are none.

    Args:
        folder: docs/results.
    """
    lines = [line for path in sorted(folder.glob(f"sweeps/*/{_BASE_NAME}")) for line in _section(path, folder)]
    return ["", "## How recipes were chosen", *lines] if lines else []


def _section(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    name, where = path.parent.name, path.relative_to(folder)
    sweeps = {one.stem: read(one) for one in sorted(path.parent.glob("*.json"))}
    base = Run(path.parent).flags
    examples = ", ".join(dict.fromkeys(sweep["validation"] for sweep in sweeps.values()))
    commands = []
    for stem, sweep in sweeps.items():
        varied = " ".join(f"--vary={flag}={values}" for flag, values in _varied(sweep).items())
        commands.append(f"python -m launch.sweep --base=docs/results/{where} --sweep_dir=runs/{name}-{stem} {varied}")
    return [
        "",
        f"### {name}: {base['model']}",
        "",
        (path.parent / _TEXT_NAME).read_text(encoding="utf-8").strip(),
        "",
        f"Validation examples: {examples}. The base is [{path.name}](results/{where}).",
        "",
        *table(("differs from the base", "runs", "validation", "its loss", "minutes"), _rows(sweeps, base)),
        *repeat(commands),
    ]


def _rows(sweeps: Mapping[str, Any], base: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns a row for each setting, the best first."""
    settings: dict[str, Mapping[str, Any]] = {}
    for one in (one for sweep in sweeps.values() for one in sweep["settings"] if one["score"] is not None):
        differs = {name: format_value(value) for name, value in one["values"].items()}
        differs = {name: text for name, text in differs.items() if text != base.get(name, "none")}
        settings.setdefault(" ".join(f"`--{name}={text}`" for name, text in differs.items()) or "as the base", one)
    return [
        (
            text,
            f"{one['finished']}",
            f"{one['score']:.2%}" + (f" ± {one['score_sd']:.2%}" if one["score_sd"] is not None else ""),
            f"{one['loss']:.4f}",
            f"{one['minutes']:.1f}",
        )
        for text, one in sorted(settings.items(), key=lambda item: (-item[1]["score"], item[1]["loss"]))
    ]


def _varied(sweep: Mapping[str, Any]) -> dict[str, str]:
    """Returns the varied flags with their values, as launch.sweep takes them."""
    values = {name: dict.fromkeys(run["settings"][name] for run in sweep["runs"]) for name in sweep["varied"]}
    ordered = sorted(values.items(), key=lambda item: item[0] == SEED)
    return {name: ",".join(map(format_value, found)) for name, found in ordered}
