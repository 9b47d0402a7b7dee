"""Writes docs/results.md from the JSON files below docs/results: nothing on that page is typed by hand.

A measured result is a folder docs/results/NAME with the run's flags.txt and history.csv and the evaluation's
metrics.json; agreement.json of benchmarks.radiometry_agreement may lie beside them.

Example: python -m benchmarks.results
"""

import csv
import json
import pathlib

from absl import flags

from eo_keras import files
from launch import common
from tfrecords_builder.downloads import PUBLISHED

FLAGS = flags.FLAGS
DOCS = pathlib.Path(__file__).parents[1] / "docs"

_INTRODUCTION = """# Results

Made by `python -m benchmarks.results` from the JSON files in [docs/results](results); nothing here is typed by hand.
Accuracies are overall accuracies on the test split, which took no part in any choice, with the 95 % bootstrap interval.
"""


def measured(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of measured results, by name."""
    return sorted(path.parent for path in folder.glob("*/metrics.json"))


def page(folder: pathlib.Path) -> str:
    """Returns the page's text."""
    lines = [_INTRODUCTION, "## EuroSAT", "", "| what | accuracy | 95 % interval | differs from ours, or source |"]
    lines.append("| --- | --- | --- | --- |")
    results = {path.name: json.loads((path / "metrics.json").read_text()) for path in measured(folder)}
    for name, result in results.items():
        scores, split = result["scores"], result["split_method"]
        shares = f"{split['method']} split, test {split['test_fraction']:.0%}, seed {split['seed']}"
        lines.append(
            f"| **{result['model']}, {','.join(result['bands'])}, {shares}** ([{name}](#{name})) "
            f"| **{scores['accuracy']:.2%}** | {scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%} "
            f"| measured here. {result['initialisation']} |"
        )
    for entry in json.loads((folder / "published.json").read_text()):
        differs = f"{entry['source']}: {entry['differs']}"
        lines.append(f"| {entry['figure']} (published) | {entry['accuracy']:.2%} | not published | {differs} |")
    for name, result in results.items():
        lines += ["", *_details(folder / name, result)]
    return "\n".join(lines) + "\n"


def _details(folder: pathlib.Path, result: dict) -> list[str]:
    scores, chosen = result["scores"], result["selection"]
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    flags_given = dict(line[2:].split("=", 1) for line in (folder / "flags.txt").read_text().split("\n") if line)
    hours = sum(float(row["seconds"]) for row in history) / 3600
    chooser = f"by {chosen['metric']} ({chosen['value']:.2%}) on {chosen['split']}" if chosen["metric"] else "the last"
    lines = [
        f"### {folder.name}",
        "",
        f"* {scores['count']:,} test patches: accuracy {scores['accuracy']:.2%}, macro F1 {scores['macro_f1']:.2%}, "
        f"kappa {scores['kappa']:.4f}, expected calibration error {scores['expected_calibration_error']:.2%}.",
        f"* {len(history)} epochs, {hours:.2f} hours; kept epoch {chosen['epoch']}: {chooser}.",
        f"* TensorFlow {result['versions']['tensorflow']}, Keras {result['versions']['keras']}; records "
        f"`{result['data_fingerprint'][:12]}`, model SHA-256 `{result['model_sha256'][:12]}`.",
    ]
    agreement = folder / "agreement.json"
    if agreement.exists():
        found = json.loads(agreement.read_text())
        lines.append(
            f"* Asked about the 13-band GeoTIFFs of {found['patches']} test patches (B04, B03, B02, scaled as the "
            f"JPEGs were made) it gives the same class as about their JPEGs for {found['agreement']:.1%}; "
            f"{found['accuracy_on_geotiffs']:.1%} of the GeoTIFFs and {found['accuracy_on_jpegs']:.1%} of the JPEGs "
            "are classified correctly. With the scaled pixels compressed as the authors did, it gives the same class "
            f"for {found['agreement_after_compression']:.1%}."
        )
    lines += ["", "| class | precision | recall | F1 | patches |", "| --- | --- | --- | --- | --- |"]
    for one in scores["classes"]:
        lines.append(
            f"| {one['name']} | {one['precision']:.2%} | {one['recall']:.2%} | {one['f1']:.2%} | {one['support']:,} |"
        )
    split = result["split_method"]
    lines += [
        "",
        "Repeat it:",
        "",
        "```",
        f"python -m launch.build --dataset={result['dataset']} --source=data/{PUBLISHED[result['dataset']].name} "
        f"--output_dir={flags_given['records_dir']} --split={split['method']} "
        f"--test_fraction={split['test_fraction']:g} --seed={split['seed']}",
        f"python -m launch.train --flagfile=docs/results/{folder.name}/flags.txt --run_dir=runs/{folder.name}",
        f"python -m launch.evaluate --run_dir=runs/{folder.name} --split={result['split']}",
        "```",
    ]
    return lines


def main() -> None:
    """Writes the page."""
    text = page(DOCS / "results")
    if FLAGS.dry_run:
        print(text)
        return
    files.write_text(DOCS / "results.md", text)
    print(f"{DOCS / 'results.md'}: {len(measured(DOCS / 'results'))} measured results")


if __name__ == "__main__":
    common.run(main)
