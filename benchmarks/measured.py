"""Reads what docs/results keeps of runs: flags, history and, where the run was evaluated, its scores."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import pathlib
from typing import Any

from tfrecords_builder.downloads import PUBLISHED


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A run's flags.txt and history.csv."""

    folder: pathlib.Path

    @property
    def name(self) -> str:
        """Name of the folder, which is the run's."""
        return self.folder.name

    @functools.cached_property
    def flags(self) -> dict[str, str]:
        """The flags that repeat the run, by name."""
        lines = (self.folder / "flags.txt").read_text(encoding="utf-8").splitlines()
        return dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))

    @functools.cached_property
    def history(self) -> list[dict[str, str]]:
        """One row an epoch."""
        with open(self.folder / "history.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def hours(self) -> float:
        """What all epochs took."""
        return sum(float(row["seconds"]) for row in self.history) / 3600

    def sizes(self) -> str:
        """Returns how many epochs saw which size of image, such as `32 at 32 px, 13 at 48 px, 15 whole`."""
        sizes = [size for size in self.flags.get("progressive_sizes", "").split(",") if size]
        lengths = [int(length) for length in self.flags.get("progressive_epochs", "").split(",") if length]
        parts = [f"{length} at {size} px" for size, length in zip(sizes, lengths, strict=True)]
        return ", ".join([*parts, f"{len(self.history) - sum(lengths)} whole"])

    def differences(self, other: Recorded) -> list[str]:
        """Returns the flags, as given, that this run has otherwise than another; where its records lie aside."""
        mine, theirs = self.flags, other.flags
        return [
            f"--{name}={value}" for name, value in mine.items() if theirs.get(name) != value and name[-4:] != "_dir"
        ]


@dataclasses.dataclass(frozen=True)
class Measured(Recorded):
    """A run that was evaluated on its test split, too."""

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """The evaluation's metrics.json."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @property
    def scores(self) -> dict[str, Any]:
        """The scores on the test split."""
        return self.result["scores"]

    @functools.cached_property
    def averaged(self) -> dict[str, Any] | None:
        """The scores with --tta=d4, where they were taken."""
        path = self.folder / "metrics-d4.json"
        return json.loads(path.read_text(encoding="utf-8"))["scores"] if path.is_file() else None

    def split(self) -> str:
        """Returns the split in words."""
        found = self.result["split_method"]
        if found["method"] == "lists":
            return f"lists {found['lists']}, test {self.scores['count']:,}"
        return f"{found['method']} split, test {found['test_fraction']:.0%}, seed {found['seed']}"

    def title(self) -> str:
        """Returns what was measured."""
        return f"{self.result['model']}, {','.join(self.result['bands'])}, {self.split()}"

    def commands(self) -> list[str]:
        """Returns the commands that repeat the run."""
        found, name = self.result["split_method"], self.folder.name
        if found["method"] == "lists":
            split = f"--split=lists --lists=data/{found['lists']}"
        else:
            split = f"--split={found['method']} --test_fraction={found['test_fraction']:g} --seed={found['seed']}"
        return [
            f"python -m launch.build --dataset={self.result['dataset']} "
            f"--source=data/{PUBLISHED[self.result['dataset']].name} --output_dir={self.flags['records_dir']} {split}",
            f"python -m launch.train --flagfile=docs/results/{name}/flags.txt --run_dir=runs/{name}",
            f"python -m launch.evaluate --run_dir=runs/{name} --split={self.result['split']}",
        ]


def measured(folder: pathlib.Path) -> list[Measured]:
    """Returns the measured runs below a folder, by name."""
    return [Measured(path.parent) for path in sorted(folder.glob("*/metrics.json"))]


def interval(scores: dict[str, Any]) -> str:
    """Returns the 95 % interval of an accuracy."""
    return f"{scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%}"
