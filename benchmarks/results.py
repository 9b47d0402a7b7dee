"""Writes docs/results.md and docs/accuracy.md from the files below docs/results: no figure there is typed by hand.

A measured result is a folder docs/results/NAME with the run's flags.txt and history.csv and the evaluation's
metrics.json; metrics-d4.json of the evaluation with --tta=d4 and agreement.json of benchmarks.radiometry_agreement may
lie beside them. leaks/*.json are reports of launch.inspect, input/*.json of benchmarks.input_pipeline, speed.json of
benchmarks.speed, tfrecord_writers.json of benchmarks.tfrecord_writers, train_step.json and train_step_jax.json of
benchmarks.train_step; speed_notes.json holds, by work, a sentence on what a profile said. maps/ and tile_building.json
are told of by benchmarks.results_maps.

Example: python -m benchmarks.results
"""

import json
import pathlib

from absl import flags

from benchmarks import accuracy, comparison, measuring, results_maps, results_training
from benchmarks.comparison import OURS
from benchmarks.measured import Measured, interval, measured
from eo_keras.core import files
from eo_keras.core.number_format import number, percent
from launch import app

FLAGS = flags.FLAGS
DOCS = pathlib.Path(__file__).parents[1] / "docs"

_INTRODUCTION = """# Results

Made by `python -m benchmarks.results` from the JSON files in [docs/results](results); nothing here is typed by hand.
Accuracies are overall accuracies on the test split, which took no part in any choice, with the 95 % bootstrap interval.
"""


def page(folder: pathlib.Path) -> str:
    """Returns the page's text."""
    lines = [_INTRODUCTION, "## EuroSAT", "", "| what | accuracy | 95 % interval | differs from ours, or source |"]
    lines.append("| --- | --- | --- | --- |")
    results = measured(folder)
    for one in results:
        lines.append(
            f"| **{one.title()}** ([{one.name}](#{one.name})) | **{one.scores['accuracy']:.2%}** "
            f"| {interval(one.scores)} | measured here. {one.result['initialisation']} |"
        )
    for entry in json.loads((folder / "published.json").read_text()):
        differs = f"{entry['source']}: {entry['differs']}"
        lines.append(f"| {entry['figure']} (published) | {entry['accuracy']:.2%} | not published | {differs} |")
    for one in results:
        lines += ["", *_details(one)]
    lines += results_maps.section(folder)
    lines += _leaks(folder)
    lines += results_training.section(folder, _runs_and_machine)
    lines += _speed(folder)
    lines += _input(folder)
    return "\n".join(lines) + "\n"


def _details(one: Measured) -> list[str]:
    result, scores, chosen = one.result, one.scores, one.result["selection"]
    chooser = f"by {chosen['metric']} ({chosen['value']:.2%}) on {chosen['split']}" if chosen["metric"] else "the last"
    lines = [
        f"### {one.name}",
        "",
        f"* {scores['count']:,} test patches: accuracy {scores['accuracy']:.2%}, macro F1 {scores['macro_f1']:.2%}, "
        f"kappa {number(scores['kappa'])}, expected calibration error {scores['expected_calibration_error']:.2%}.",
        f"* {len(one.history)} epochs, {one.hours:.2f} hours; kept epoch {chosen['epoch']}: {chooser}.",
        f"* TensorFlow {result['versions']['tensorflow']}, Keras {result['versions']['keras']}; records "
        f"`{result['data_fingerprint'][:12]}`, model SHA-256 `{result['model_sha256'][:12]}`.",
    ]
    lines += _trust(result)
    if one.averaged is not None:
        lines.append(
            "* Averaged over the symmetries of the square (`--tta=d4`), reported apart: "
            f"{one.averaged['accuracy']:.2%} (95 % interval {interval(one.averaged)})."
        )
    agreement = one.folder / "agreement.json"
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
    for each in scores["classes"]:
        row = " | ".join(percent(each[name]) for name in ("precision", "recall", "f1"))
        lines.append(f"| {each['name']} | {row} | {each['support']:,} |")
    lines += ["", "Repeat it:", "", "```", *one.commands(), "```"]
    return lines


def _trust(result: dict) -> list[str]:
    """Returns what is said of confidences, by evaluations that look at them."""
    lines, found = [], result.get("calibration")
    if found and found["temperature"] is not None:
        before, after = (found["split"][when]["expected_calibration_error"] for when in ("before", "after"))
        lines.append(
            f"* A temperature of {found['temperature']:.3f}, fitted on {found['examples']:,} validation examples, "
            f"takes the expected calibration error from {before:.2%} to {after:.2%}."
        )
    if "selective" in result:
        parts = [
            f"{one['accuracy']:.2%} of the surest {one['coverage']:.0%}"
            for one in result["selective"]["accuracy_at_coverage"][1:]
        ]
        lines.append(f"* Answers by confidence: {', '.join(parts)} are right.")
        for one in result["selective"].get("by_validation", ()):
            lines.append(
                f"* Answering from confidence {one['threshold']:.3f} on, which gave {one['aim']:.1%} on validation: "
                f"{one['coverage']:.1%} of the test patches are answered, {one['accuracy']:.2%} of these rightly."
            )
    return lines


_LEAKS = {
    "exact copy": lambda pair: pair["exact"],
    "near copy": lambda pair: pair["near"],
    "overlapping ground": lambda pair: pair["overlapping"],
    "touching": lambda pair: pair["neighbours"]["0"],
    "within 1 km": lambda pair: pair["neighbours"]["1"],
    "within 5 km": lambda pair: pair["neighbours"]["5"],
}


def _leaks(folder: pathlib.Path) -> list[str]:
    """Returns the section on what the parts of a split give away of each other, made of launch.inspect's JSON files."""
    reports: dict[str, dict] = {}
    for path in sorted(folder.glob("leaks/*.json")):
        found = json.loads(path.read_text())
        for report in (found, found.get("against")):
            if report is not None:
                reports.setdefault(report["fingerprint"], report)
    if not reports:
        return []
    lines = [
        "",
        "## What a split gives away",
        "",
        "How many test patches have such a patch in training, edge to edge, of all pairs; "
        "[inspect](guides/inspect.md) says how they are found. `python -m launch.inspect --records_dir=... "
        "--coordinates=data/coordinates.csv` repeats it; the reports are in `docs/results/leaks`.",
        "",
        f"| split | test patches | {' | '.join(_LEAKS)} | median distance |",
        f"| --- |{' ---: |' * (len(_LEAKS) + 2)}",
    ]
    for report in sorted(reports.values(), key=lambda report: report["split_method"]["method"]):
        split = report["split_method"]
        name = split["method"]
        if split.get("layout") == "longitude":
            name += ", by longitude"
        elif split.get("layout") == "blocks":
            name += f", blocks of {split['block_km']:g} km, buffer {split['buffer_km']:g} km"
        (pair,) = (pair for pair in report["leaks"]["pairs"] if (pair["part"], pair["other"]) == ("test", "train"))
        counts = [count(pair) for count in _LEAKS.values()]
        shares = [f"{number:,} ({number / pair['patches']:.1%})" if number else "0" for number in counts]
        lines.append(f"| {name} | {pair['patches']:,} | {' | '.join(shares)} | {pair['median_km']:.3g} km |")
    return lines


def _speed(folder: pathlib.Path) -> list[str]:
    """Returns the sections on speed, as far as it was measured."""
    lines, repeat = [], []
    if (path := folder / "speed.json").is_file():
        found = json.loads(path.read_text())
        lines += [
            "",
            "## Speed",
            "",
            f"Side by side on the same files, page cache {found['cache']}. {_sources(found)} "
            f"{_runs_and_machine(found)} The commands and every run are in [speed.json](results/speed.json).",
            "",
            *comparison.table(found["works"]),
        ]
        notes = folder / "speed_notes.json"
        for name, note in (json.loads(notes.read_text()) if notes.is_file() else {}).items():
            lines += ["", f"* {found['works'][name]['title']}: {note}"]
        repeat.append(f"python -m benchmarks.speed {_flags_of_sources(found)}")
    if (path := folder / "tfrecord_writers.json").is_file():
        found = json.loads(path.read_text())
        lines += [
            "",
            "### Writers of TFRecords",
            "",
            "The same examples written by one process; every file was read back with all checksums and holds "
            f"{_what_the_files_hold(found)}. The import that every worker process pays for: {_imports(found)}. "
            f"{_runs_and_machine(found)} The commands and every run are in "
            "[tfrecord_writers.json](results/tfrecord_writers.json).",
            "",
            *comparison.table(found["works"], "TensorFlow"),
        ]
        repeat.append(f"python -m benchmarks.tfrecord_writers {_flags_of_sources(found)}")
    if repeat:
        lines += ["", "Repeat it:", "", "```", "make bench-peers", *repeat, "```"]
    return lines


def _input(folder: pathlib.Path) -> list[str]:
    """Returns the section on the stages of the input, of benchmarks.input_pipeline's JSON files."""
    lines = []
    for path in sorted(folder.glob("input/*.json")):
        found = json.loads(path.read_text())
        if not lines:
            lines += ["", "## The stages of the input", ""]
            lines.append(
                "Each stage holds those before it; medians, in brackets the lowest and the highest. "
                f"{measuring.machine_text(found['machine'])}."
            )
        rates = {name: stage["examples_per_second"] for name, stage in found["stages"].items()}
        if found["training_step"]:
            rates[f"training step of {found['model']}"] = found["training_step"]
        lines += [
            "",
            f"{found['dataset']}, {len(found['bands'])} bands, batches of {found['batch_size']}. {found['verdict']}",
            "",
            "| stage | examples/s |",
            "| --- | ---: |",
        ]
        lines += [f"| {name} | {measuring.Spread(**one).text()} |" for name, one in rates.items()]
        command = f"python -m benchmarks.input_pipeline --records_dir=records/{path.stem} --model={found['model']}"
        lines += ["", "```", command, "```"]
    return lines


def _sources(found: dict) -> str:
    rgb, ms = found["sources"]["rgb"], found["sources"]["ms"]
    repeated = f", repeated {ms['copies']} times under other numbers" if ms["copies"] > 1 else ""
    return (
        f"The sources are `{rgb['name']}` ({rgb['files']:,} JPEGs) and `{ms['name']}` ({ms['files']:,} GeoTIFFs"
        f"{repeated})."
    )


def _flags_of_sources(found: dict) -> str:
    names = {key: source["name"] for key, source in found["sources"].items()}
    return f"--rgb_source=data/{names['rgb']} --ms_source=data/{names['ms']} --work_dir=data/bench"


def _imports(found: dict) -> str:
    sides = next(iter(found["works"].values()))["sides"]
    seconds = {}
    for side in sides.values():
        if measured := [run["import_seconds"] for run in side["runs"] if "import_seconds" in run]:
            seconds[side["title"].partition(":")[0]] = measuring.spread(measured).median
    return ", ".join(f"{title} {value:.2f} s" for title, value in seconds.items())


def _runs_and_machine(found: dict) -> str:
    versions = dict(found["machine"]["versions"])
    sides = (side for work in found["works"].values() for side in work["sides"].values())
    for run in (run for side in sides for run in side["runs"]):
        versions |= run.get("versions", {})
    names = ("eo-keras", "tensorflow", "tensorflow-datasets", "torchgeo", "torchvision", "torch", "tfrecord")
    return (
        f"Medians of {found['runs']} runs, in brackets the lowest and the highest; the ratio is taken round by round. "
        f"{measuring.machine_text(found['machine'])}; "
        + ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
        + "."
    )


def _what_the_files_hold(found: dict) -> str:
    works = found["works"].values()
    sides = [side for work in works for name, side in work["sides"].items() if name != OURS and "same_bytes" in side]
    same, count = sum(side["same_examples"] for side in sides), len(sides)
    return (
        f"{'the' if same == count else f'in {same} of {count} cases the'} same examples as ours, "
        f"in {sum(side['same_bytes'] for side in sides)} of {count} cases in the same bytes"
    )


def main() -> None:
    """Writes the pages."""
    pages = {"results.md": page(DOCS / "results"), "accuracy.md": accuracy.page(DOCS / "results")}
    if FLAGS.dry_run:
        print("\n".join(pages.values()))
        return
    for name, text in pages.items():
        files.write_text(DOCS / name, text)
    print(f"{DOCS}: {', '.join(pages)}, {len(measured(DOCS / 'results'))} measured runs")


if __name__ == "__main__":
    app.run(main)
