"""Runs that docs/results keeps: their files, and what the pages show of each."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eo_keras.core.options import with_present_names
from eo_keras.metrics.metric import METRICS, metric_of
from eo_keras.metrics.scores import Scores
from eo_keras.training.options import TrainingOptions
from tfrecords_builder.downloads import PUBLISHED

THRESHOLD_NAME = "threshold.json"

_VARIANTS = {
    "d4": "--tta=d4",
    "os8": "--output_stride=8",
    "flip": "--flip",
    "os8-flip": "--output_stride=8 --flip",
}
"""Flags of the evaluations whose files are metrics-VARIANT.json."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run of which docs/results keeps flags, history and, if it was evaluated, metrics.

    Attributes:
        folder: its folder.
    """

    folder: pathlib.Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name

    @functools.cached_property
    def flags(self) -> dict[str, str]:
        """The flags that repeat the run, by their present names."""
        lines = (self.folder / "flags.txt").read_text(encoding="utf-8").splitlines()
        given = dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
        return with_present_names(TrainingOptions, given)

    @functools.cached_property
    def history(self) -> list[dict[str, str]]:
        """One row an epoch."""
        with open(self.folder / "history.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def hours(self) -> float:
        """Duration of all epochs."""
        return sum(float(row["seconds"]) for row in self.history) / 3600

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The evaluation's metrics.json."""
        return read(self.folder / "metrics.json")

    @functools.cached_property
    def scores(self) -> Scores:
        """The scores on the test split."""
        return Scores.read(self.metrics, str(self.folder))

    @functools.cached_property
    def variants(self) -> dict[str, Scores]:
        """The scores of evaluations with other flags, by variant."""
        paths = sorted(self.folder.glob("metrics-*.json"))
        return {path.stem.removeprefix("metrics-"): Scores.read(read(path), str(path)) for path in paths}

    def sizes(self) -> str:
        """Returns how many epochs used which size of image, such as `32 at 32 px, 13 at 48 px, 15 whole`."""
        sizes = [size for size in self.flags.get("progressive_sizes", "").split(",") if size]
        lengths = [int(length) for length in self.flags.get("progressive_epochs", "").split(",") if length]
        parts = [f"{length} at {size} px" for size, length in zip(sizes, lengths, strict=True)]
        return ", ".join([*parts, f"{len(self.history) - sum(lengths)} whole"])

    def differences(self, other: Run) -> list[str]:
        """Returns the flags, as given, that differ from another run's; folders are left out."""
        return [f"--{name}={v}" for name, v in self.flags.items() if other.flags.get(name) != v and name[-4:] != "_dir"]

    def split(self) -> str:
        """Returns the split in words."""
        found = self.metrics["split_method"]
        if found["method"] == "lists":
            return f"lists {found['lists']}, test {self.scores.count:,}"
        return f"{found['method']} split, test {found['test_fraction']:.0%}, seed {found['seed']}"

    def commands(self) -> list[str]:
        """Returns the commands that repeat the run."""
        where = f"docs/results/{self.folder.relative_to(self.folder.parents[_depth(self.folder)])}"
        commands = [
            *self._building(),
            f"python -m launch.train --flagfile={where}/flags.txt --run_dir=runs/{self.name}",
            f"python -m launch.evaluate --run_dir=runs/{self.name} --split={self.metrics['split']}",
        ]
        return commands + threshold_command(self.folder, self.flags["records_dir"], where)

    def _building(self) -> list[str]:
        before, found = self.folder / "before.txt", self.metrics["split_method"]
        if before.is_file():
            return before.read_text(encoding="utf-8").splitlines()
        if found["method"] == "lists":
            split = f"--split=lists --lists=data/{found['lists']}"
        else:
            split = f"--split={found['method']} --test_fraction={found['test_fraction']:g} --seed={found['seed']}"
        dataset = self.metrics["dataset"]
        return [
            f"python -m launch.build --dataset={dataset} --source=data/{PUBLISHED[dataset].name} "
            f"--output_dir={self.flags['records_dir']} {split}"
        ]


def threshold_command(folder: pathlib.Path, records_dir: str, where: str) -> list[str]:
    """Returns the command that repeats a folder's threshold.json, or nothing where there is none.

    Args:
        folder: the folder.
        records_dir: the records folder.
        where: the folder as the command names it.
    """
    if not (folder / THRESHOLD_NAME).is_file():
        return []
    chosen = read(folder / THRESHOLD_NAME).get("modality")
    modality = f"--modality={chosen} " if chosen else ""
    command = "python -m benchmarks.pixel_threshold"
    return [f"{command} --records_dir={records_dir} {modality}--output={where}/{THRESHOLD_NAME}"]


def _depth(folder: pathlib.Path) -> int:
    return 1 if folder.parent.name == "maps" else 0


def runs_of(folder: pathlib.Path) -> list[Run]:
    """Returns the evaluated runs in a folder, by name."""
    return [Run(path.parent) for path in sorted(folder.glob("*/metrics.json"))]


def read(path: pathlib.Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Returns a Markdown table; columns after the first `text_columns` are aligned to the right."""
    aligned = ["---" if place < text_columns else "---:" for place in range(len(columns))]
    return [f"| {' | '.join(row)} |" for row in (columns, aligned, *rows)]


def repeat(commands: Sequence[str]) -> list[str]:
    """Returns commands as a block of code, headed as what repeats a result."""
    return ["", "Repeat it:", "", "```", *commands, "```"] if commands else []


def show(scores: Scores, name: str) -> str:
    """Returns a score as its metric is shown."""
    return metric_of(name).show(scores.value(name))


def ends_text(scores: Scores, name: str) -> str:
    """Returns the interval of a score as its metric is shown."""
    return metric_of(name).show_interval(scores[name].ends)


def _scored(scores: Scores, name: str) -> str:
    ends = f" ({ends_text(scores, name)})" if scores[name] and scores[name].ends else ""
    return f"{metric_of(name).title} {show(scores, name)}{ends}"


def details(run: Run) -> list[str]:
    """Returns a run's section: scores, versions, confidences, variants, classes, and the commands that repeat it."""
    metrics, scores, chosen = run.metrics, run.scores, run.metrics["selection"]
    images = scores.details.get("images")
    what = f"{scores.count:,} test patches" if images is None else f"{images:,} test tiles, {scores.count:,} pixels"
    hidden = (scores.primary, "negative_log_likelihood", "brier_score")
    others = sorted((name for name in scores.overall if name not in hidden), key=lambda name: name == "boundary_f1")
    others = ", ".join(_scored(scores, name) for name in others)
    if "boundary_tolerance" in scores.details:
        others += f" within {scores.details['boundary_tolerance']:g} pixels"
    chooser = "the last one"
    if chosen["metric"]:
        metric = METRICS[chosen["metric"]]
        chooser = f"by {metric.title} ({metric.show(chosen['value'])}) on {chosen['split']}"
    lines = [
        "",
        f"### {run.name}",
        "",
        f"* {metrics['model']}, {what}: {METRICS[scores.primary].title} **{show(scores, scores.primary)}** "
        f"({ends_text(scores, scores.primary)}), {others}.",
        f"* {len(run.history)} epochs, {run.hours:.2f} hours; kept epoch {chosen['epoch']}: {chooser}.",
        f"* TensorFlow {metrics['versions']['tensorflow']}, Keras {metrics['versions']['keras']}; records "
        f"`{metrics['data_fingerprint'][:12]}`, model SHA-256 `{metrics['model_sha256'][:12]}`.",
        *_confidences(scores),
    ]
    for name, variant in run.variants.items():
        lines.append(
            f"* With the same weights and `{_VARIANTS.get(name, name)}`, reported apart: "
            f"{_scored(variant, scores.primary)}."
        )
    lines += _beside(run.folder)
    lines += ["", *_classes(scores, "patches" if images is None else "pixels")]
    if (run.folder / "maps.png").is_file():
        lines += ["", f"![Test tiles, true masks and predictions of {run.name}](results/maps/{run.name}/maps.png)"]
    return lines + repeat(run.commands())


def _classes(scores: Scores, unit: str) -> list[str]:
    names = [name for name in ("iou", "precision", "recall", "f1") if name in next(iter(scores.by_class.values()))]
    with_ends = any(values[names[0]] and values[names[0]].ends for values in scores.by_class.values())
    rows = []
    for name, values in scores.by_class.items():
        cells = [METRICS[score].show(scores.value(score, name)) for score in names]
        first = values[names[0]]
        ends = [METRICS[names[0]].show_interval(first and first.ends)] if with_ends else []
        rows.append((name, f"{values['support']:,}", cells[0], *ends, *cells[1:]))
    titles = [METRICS[score].title for score in names]
    titles[1:1] = ["95 % interval"] if with_ends else []
    return table(("class", unit, *titles), rows)


def _confidences(scores: Scores) -> list[str]:
    """Returns what is known of confidences, by evaluations that scored them."""
    lines, found = [], scores.sections.get("calibration")
    if found and found["temperature"] is not None:
        before, after = (found["split"][when]["expected_calibration_error"] for when in ("before", "after"))
        lines.append(
            f"* A temperature of {found['temperature']:.3f}, fitted on {found['examples']:,} validation examples, "
            f"takes the expected calibration error from {before:.2%} to {after:.2%}."
        )
    if selective := scores.sections.get("selective"):
        parts = [f"{one['accuracy']:.2%} of the most confident {one['coverage']:.0%}" for one in _partial(selective)]
        lines.append(f"* Correct predictions by confidence: {', '.join(parts)}.")
        for one in selective.get("by_validation", ()):
            lines.append(
                f"* From confidence {one['threshold']:.3f} on, which gave {one['aim']:.1%} on validation: "
                f"{one['coverage']:.1%} of the test patches, {one['accuracy']:.2%} of these correct."
            )
    return lines


def _partial(selective: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in selective["accuracy_at_coverage"] if one["coverage"] < 1]


def _beside(folder: pathlib.Path) -> list[str]:
    """Returns the results of other files beside a run's metrics."""
    lines = []
    if (path := folder / "agreement.json").is_file():
        found = read(path)
        lines.append(
            f"* For the 13-band GeoTIFFs of {found['patches']} test patches (B04, B03, B02, scaled as the JPEGs were "
            f"made) it predicts the same class as for their JPEGs in {found['agreement']:.1%}; "
            f"{found['accuracy_on_geotiffs']:.1%} of the GeoTIFFs and {found['accuracy_on_jpegs']:.1%} of the JPEGs "
            "are classified correctly. With the scaled pixels compressed as the authors did, it predicts the same "
            f"class in {found['agreement_after_compression']:.1%}."
        )
    return lines + threshold(folder)


def threshold(folder: pathlib.Path) -> list[str]:
    """Returns a line on the rule for single pixels in a folder's threshold.json, or nothing where there is none."""
    path = folder / THRESHOLD_NAME
    if not path.is_file():
        return []
    found = read(path)
    rule, scores = found["rule"], Scores.read(found, str(path))
    numbers, name = rule["bands"][0], scores.class_names[1]
    if len(rule["bands"]) == 2:
        numbers = "({0} - {1}) / ({0} + {1})".format(*rule["bands"])
    if "modality" in found:
        numbers += f" of {found['modality']}"
    iou = scores.by_class[name]["iou"]
    return [
        f"* A threshold for single pixels, {numbers} {'below' if rule['below'] else 'from'} {rule['value']:.3f}, "
        f"the best on the training tiles: IoU of {name} {iou.value:.4f} ({METRICS['iou'].show_interval(iou.ends)}),"
        f" {_scored(scores, 'miou')}."
    ]
