"""Writes docs/results.md and docs/accuracy.md from the files below docs/results: no figure there is typed by hand.

A run is a folder docs/results/NAME (of patches) or docs/results/maps/NAME (of tiles) with its flags.txt and history.csv
and the evaluation's metrics.json. Beside them may lie metrics-VARIANT.json of evaluations with other flags, before.txt
(commands that make the source), threshold.json of benchmarks.pixel_threshold, and agreement.json (predictions of an RGB
run for 13-band GeoTIFFs and for the JPEGs of the same names). published.json lists the figures of others. sweeps/NAME
holds the sweeps by which a recipe was chosen: their base flags.txt, a text.md, and the sweep.json of each.

A campaign is a folder docs/results/campaigns/NAME: several networks, each trained with several seeds. plan.json says
what is trained, evaluated and compared, flags.txt what all have in common, and results.json, of benchmarks.campaign,
holds the scores; threshold.json, curve.png and maps.png may lie beside them. Rows say what is to be reached.

leaks/*.json are reports of launch.inspect, speed.json is of benchmarks.speed, train_step.json of benchmarks.train_step,
input/*.json of benchmarks.input_pipeline, dense_step.json of benchmarks.dense_step, fusion_speed.json of
benchmarks.fusion, tile_building.json of benchmarks.tile_building, mapping.json of benchmarks.mapping. earlier.md is
what this script wrote of measurements that no script here repeats: tfrecord_writers.json, train_step_jax.json, the
profiles in train_step.json.

Example: python -m benchmarks.report
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import harness, kept_campaigns, kept_sweeps
from benchmarks.harness import Spread
from benchmarks.kept_runs import Run, details, ends_text, read, repeat, runs_of, show, table
from eo_keras.core import files
from launch import app

FLAGS = flags.FLAGS
DOCS = pathlib.Path(__file__).parents[1] / "docs"


def results_page(folder: pathlib.Path) -> str:
    """Returns the text of docs/results.md.

    Args:
        folder: docs/results.
    """
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks.report` from the JSON files in [docs/results](results); nothing here is typed "
        "by hand. Scores are those of the test split, which took no part in any choice, with 95 % intervals: of runs "
        "evaluated by early versions bootstrap intervals.",
        *_patches(folder),
        *_tiles(folder / "maps"),
        *kept_campaigns.sections(folder / "campaigns"),
        *_section(_dense_step, folder / "dense_step.json"),
        *_section(_fusion_speed, folder / "fusion_speed.json"),
        *_section(_tile_building, folder / "tile_building.json"),
        *_section(_mapping, folder / "mapping.json"),
        *_leaks(folder),
        *_section(_training_steps, folder / "train_step.json", runs_of(folder)),
        *_section(_speed, folder / "speed.json"),
        *_input(folder),
        *_section(_earlier, folder / "earlier.md"),
    ]
    return "\n".join(lines) + "\n"


def _section(write: Callable[..., list[str]], path: pathlib.Path, *more: Any) -> list[str]:
    """Returns the section on a file, or nothing where it has not been measured yet."""
    return write(path, *more) if path.is_file() else []


def _patches(folder: pathlib.Path) -> list[str]:
    rows = [
        (
            f"**{run.metrics['model']}, {','.join(run.metrics['bands'])}, {run.split()}** ([{run.name}](#{run.name}))",
            f"**{show(run.scores, 'accuracy')}**",
            ends_text(run.scores, "accuracy"),
            f"measured here. {run.metrics['initialisation']}",
        )
        for run in runs_of(folder)
    ]
    for entry in read(folder / "published.json"):
        differs = f"{entry['source']}: {entry['differs']}"
        rows.append((f"{entry['figure']} (published)", f"{entry['accuracy']:.2%}", "not published", differs))
    columns = ("what", "accuracy", "95 % interval", "differs from ours, or source")
    lines = ["", "## EuroSAT", "", *table(columns, rows, 4)]
    for run in runs_of(folder):
        lines += details(run)
    return lines


def _tiles(folder: pathlib.Path) -> list[str]:
    runs = runs_of(folder)
    if not runs:
        return []
    lines = [
        "",
        "## Segmentation",
        "",
        "Mean intersection over union (mIoU) of the classes; intervals are over tiles. The deck of Helber et al. "
        "(2018) gives 0.7657 for its human settlement layer, of about 90,000 tiles of 785 cities, which is not "
        "published.",
    ]
    for run in runs:
        lines += details(run)
    return lines


_LEAKS = {
    "exact duplicate": lambda pair: pair["exact"],
    "near-duplicate": lambda pair: pair["near"],
    "overlapping ground": lambda pair: pair["overlapping"],
    "touching": lambda pair: pair["neighbours"]["0"],
    "within 1 km": lambda pair: pair["neighbours"]["1"],
    "within 5 km": lambda pair: pair["neighbours"]["5"],
}


def _leaks(folder: pathlib.Path) -> list[str]:
    """Returns the section on leakage between the splits, of launch.inspect's JSON files."""
    reports: dict[str, dict] = {}
    for path in sorted(folder.glob("leaks/*.json")):
        found = read(path)
        for report in (found, found.get("against")):
            if report is not None:
                reports.setdefault(report["fingerprint"], report)
    if not reports:
        return []
    rows = []
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
        rows.append((name, f"{pair['patches']:,}", *shares, f"{pair['median_km']:.3g} km"))
    return [
        "",
        "## Leakage between splits",
        "",
        "How many test patches have such a patch in training, edge to edge, of all pairs; "
        "[inspect](guides/inspect.md) says how they are found. `python -m launch.inspect --records_dir=... "
        "--coordinates=data/coordinates.csv` repeats it; the reports are in `docs/results/leaks`.",
        "",
        *table(("split", "test patches", *_LEAKS, "median distance"), rows),
    ]


def _dense_step(path: pathlib.Path) -> list[str]:
    found = read(path)
    sides = found["works"]["step"]["sides"]
    ours, theirs = (f"{sides[name]['runs'][0]['parameters'] / 1e6:.1f} M" for name in (harness.OURS, harness.PEER))
    text = (
        f"One batch of {found['batch_size']} images of {found['size']}x{found['size']} pixels; the networks have "
        f"{ours} and {theirs} parameters."
    )
    return [
        "",
        "## DeepLabv3+ beside segmentation_models_pytorch",
        *_side_by_side(path.name, found, text),
        *repeat(["make bench-peers", "python -m benchmarks.dense_step"]),
    ]


def _fusion_speed(path: pathlib.Path) -> list[str]:
    found = read(path)
    works, versions = found["works"], found["machine"]["versions"]
    step, forward = works["step"]["sides"], works["forward"]["sides"]
    single = step[harness.PEER]["runs"][0]["multiply_adds"]
    rows = []
    for name, side in step.items():
        first, cells = side["runs"][0], []
        for one in (side, forward[name]):
            ratio = f"; {one['ratio']['median']:.2f}" if "ratio" in one else ""
            cells.append(f"{one['median']:.1f} ({one['low']:.1f} to {one['high']:.1f}){ratio}")
        rows.append((side["title"], f"{first['parameters']:,}", f"{first['multiply_adds'] / single:.2f}", *cells))
    return [
        "",
        "## Networks of several sensors beside that of one",
        "",
        f"{found['model']} on batches of {found['batch_size']} images of {found['size']}x{found['size']} pixels in "
        "memory, of two dates of Sentinel-2; those of several sensors take two dates of Sentinel-1 too. Images a "
        f"second: medians of {found['runs']} runs, in brackets the lowest and the highest, then the ratio to the "
        f"network of one sensor, round by round. {harness.machine_text(found['machine'])}; eo-keras "
        f"{versions['eo-keras']}, tensorflow {versions['tensorflow']}. Commands and every run are in "
        f"[{path.name}](results/{path.name}).",
        "",
        *table(("network", "weights", "multiply-adds, times one sensor's", "training step", "forward pass"), rows),
        *repeat(
            [
                f"python -m benchmarks.fusion --model={found['model']} --size={found['size']} "
                f"--batch_size={found['batch_size']} --runs={found['runs']}"
            ]
        ),
    ]


def _tile_building(path: pathlib.Path) -> list[str]:
    found = read(path)
    text = f"A scene of {found['scene']}, and {found['polygons']:,} polygons."
    lines = ["", "## Building tiles", *_side_by_side(path.name, found, text)]
    if memory := found.get("memory"):
        lines += [
            "",
            f"Peak memory of one process that builds from a scene of {memory['scene']} "
            f"({memory['scene_bytes'] / 1e9:.1f} GB) and {memory['polygons']:,} polygons, GDAL's cache included: "
            f"{memory['peak_bytes'] / 1e9:.2f} GB; {memory['tiles_kept']:,} tiles of {memory['tile_size']} pixels were "
            f"kept, in {memory['seconds']:,.0f} s.",
        ]
    return lines + repeat(["make bench-peers", "python -m benchmarks.tile_building"])


def _mapping(path: pathlib.Path) -> list[str]:
    found = read(path)
    text = (
        f"Windows of {found['window']} pixels that overlap by a quarter, {found['classes']} classes. The time of a map "
        "starts where the model is loaded and ends with the Cloud-Optimized GeoTIFF."
    )
    lines = ["", "## Maps of whole scenes", *_side_by_side(path.name, found, text)]
    if peer := found["works"].get("peer"):
        ours, theirs = (
            statistics.median(run["peak_bytes"] for run in peer["sides"][name]["runs"])
            for name in (harness.OURS, harness.PEER)
        )
        outcome = "reached" if ours <= theirs / 5 else "missed"
        lines += [
            "",
            f"Beside terratorch, peak memory beyond the loaded model: {ours / 1e9:.2f} GB of {theirs / 1e9:.2f} GB, "
            f"{ours / theirs:.1%}; at most 20 % {outcome}.",
        ]
    if memory := found.get("memory"):
        peaks = [one["peak_bytes"] for one in memory]
        spread = max(peaks) / min(peaks) - 1
        outcome = "reached" if max(peaks) < 1.5e9 and spread <= 0.1 else "missed"
        rows = [
            (f"{one['rows']:,} x {one['width']:,}", f"{one['peak_bytes'] / 1e9:.2f} GB", f"{one['seconds']:,.0f} s")
            for one in memory
        ]
        lines += [
            "",
            "Memory by the rows of the scene, beyond the loaded model. Below 1.5 GB and equal within 10 % "
            f"{outcome}: they differ by {spread:.1%}.",
            "",
            *table(("scene", "peak memory", "time"), rows),
        ]
    return lines + repeat(["make bench-peers", "python -m benchmarks.mapping"])


def _side_by_side(name: str, found: Mapping[str, Any], text: str) -> list[str]:
    """Returns a text, machine, versions and the table of the measurements of a file."""
    versions = {one: found["machine"]["versions"][one] for one in ("eo-keras", "tensorflow")}
    sides = [side for work in found["works"].values() for side in work["sides"].values()]
    for run in (run for side in sides for run in side["runs"]):
        versions |= run.get("versions", {})
    listed = ", ".join(f"{one} {version}" for one, version in versions.items())
    # The first measurements kept medians and ends alone.
    kept = "commands and every run" if all("rates" in side for side in sides) else "figures"
    return [
        "",
        f"{text} Medians of {found['runs']} runs, in brackets the lowest and the highest; the ratio is taken round by "
        f"round. {harness.machine_text(found['machine'])}; {listed}. The {kept} are in [{name}](results/{name}).",
        "",
        *harness.table(found["works"]),
    ]


def _training_steps(path: pathlib.Path, runs: Sequence[Run]) -> list[str]:
    found = read(path)
    text = (
        f"Patches of {found['patch_size']}x{found['patch_size']} pixels, batches of {found['batch_size']}. Ours is "
        "`launch.train` itself, with records, augmentation, metrics and progress, without validation and checkpoints; "
        "the peers take steps on one batch in memory."
    )
    command = f"python -m benchmarks.train_step --runs={found['runs']} --steps={found['steps']}"
    # Records that a run here was trained on have a name; others are those that the command generates.
    known = {run.metrics["data_fingerprint"]: run.flags["records_dir"] for run in runs}
    if (name := known.get(found["records"]["data_fingerprint"])) is not None:
        command += f" --records_dir={name}"
    return [
        "",
        "## Training steps",
        *_side_by_side(path.name, found, text),
        "",
        *_targets(found["works"]),
        *repeat(["make bench-peers", command]),
    ]


def _targets(works: Mapping[str, Any]) -> list[str]:
    """Returns a line for each ratio to reach."""
    lines = []
    for work in works.values():
        peer = work["sides"][harness.PEER]["title"].partition(":")[0]
        for side in (side for side in work["sides"].values() if "target" in side):
            ratio, target = side["ratio"]["median"], side["target"]
            outcome = "reached" if ratio >= target else "missed"
            what = f"{work['title']}: {side['title'].partition(':')[0]} beside {peer}"
            lines.append(f"* {what}: {ratio:.3f} times, target {target:g} {outcome}.")
    return lines


def _speed(path: pathlib.Path) -> list[str]:
    found = read(path)
    rgb, ms = found["sources"]["rgb"], found["sources"]["ms"]
    repeated = f", repeated {ms['copies']} times under other numbers" if ms["copies"] > 1 else ""
    text = (
        f"Side by side on the same files, page cache {found['cache']}. The sources are `{rgb['name']}` "
        f"({rgb['files']:,} JPEGs) and `{ms['name']}` ({ms['files']:,} GeoTIFFs{repeated})."
    )
    command = f"python -m benchmarks.speed --rgb_source=data/{rgb['name']} --ms_source=data/{ms['name']}"
    return [
        "",
        "## Speed",
        *_side_by_side(path.name, found, text),
        *repeat(["make bench-peers", f"{command} --work_dir=data/bench"]),
    ]


def _input(folder: pathlib.Path) -> list[str]:
    """Returns the section on the stages of the input pipeline."""
    lines = []
    for path in sorted(folder.glob("input/*.json")):
        found = read(path)
        if not lines:
            text = "Each stage holds those before it; medians, in brackets the lowest and the highest."
            lines += ["", "## Stages of the input", "", f"{text} {harness.machine_text(found['machine'])}."]
        rates = {name: stage["examples_per_second"] for name, stage in found["stages"].items()}
        if found["training_step"]:
            rates[f"training step of {found['model']}"] = found["training_step"]
        lines += [
            "",
            f"{found['dataset']}, {len(found['bands'])} bands, batches of {found['batch_size']}. {found['verdict']}",
            "",
            *table(("stage", "examples/s"), [(name, Spread(**one).text()) for name, one in rates.items()]),
        ]
        command = f"python -m benchmarks.input_pipeline --records_dir=records/{path.stem} --model={found['model']}"
        lines += repeat([command])
    return lines


def _earlier(path: pathlib.Path) -> list[str]:
    return ["", *path.read_text(encoding="utf-8").rstrip().splitlines()]


def accuracy_page(folder: pathlib.Path) -> str:
    """Returns the text of docs/accuracy.md: figures to reach, those reached, recipes, and what else was tried.

    Args:
        folder: docs/results.
    """
    runs = {run.name: run for run in runs_of(folder)}
    lines = [
        "# Accuracy",
        "",
        "Made by `python -m benchmarks.report` from the files in [docs/results](results); no figure here is typed by "
        "hand. [results.md](results.md) holds each run's classes, calibration and commands.",
        "",
        "Every choice (recipe, rates, length, the epoch to keep) was made on examples cut from the training split by a "
        "hash of their keys. The test split was evaluated once a run, after that. 95 % intervals are over the test "
        "patches: they show what another sample of patches would change, not another seed; where there are several "
        "seeds, each has its own split, order and initial weights. D4 is the mean of the predictions of the eight "
        "symmetries of the square.",
        "",
        *_figures(folder, runs),
        *_trained(runs),
        *kept_sweeps.sections(folder),
    ]
    return "\n".join(lines) + "\n"


def _figures(folder: pathlib.Path, runs: Mapping[str, Run]) -> list[str]:
    rows = kept_campaigns.figures(folder, runs)
    return (
        ["## Figures to reach", "", *table(("figure", "best known", "to reach", "here", ""), rows, 5)] if rows else []
    )


def _trained(runs: Mapping[str, Run]) -> list[str]:
    if not runs:
        return []
    rows = []
    for run in runs.values():
        chosen, averaged = run.metrics["selection"], run.variants.get("d4")
        both = [
            f"{show(one, 'accuracy')} ({ends_text(one, 'accuracy')})" if one else "" for one in (run.scores, averaged)
        ]
        rows.append(
            (
                f"[{run.name}](results.md#{run.name})",
                run.sizes(),
                f"{run.hours:.1f}",
                f"{run.flags['optimizer']} {run.flags['learning_rate']}, batch {run.flags['batch_size']}",
                "none" if chosen["metric"] is None else f"{chosen['value']:.2%}, epoch {chosen['epoch']}",
                *both,
            )
        )
    text = "On two processor cores, in float32, unless the flags say otherwise."
    columns = ("run", "epochs", "hours", "optimizer", "validation", "test", "with D4")
    return ["", "## How they were trained", "", text, "", *table(columns, rows, 7)]


def main() -> None:
    """Writes the pages."""
    folder = DOCS / "results"
    pages = {"results.md": results_page(folder), "accuracy.md": accuracy_page(folder)}
    if FLAGS.dry_run:
        print("\n".join(pages.values()))
        return
    for name, text in pages.items():
        files.write_text(DOCS / name, text)
    print(f"{DOCS}: {', '.join(pages)}, {len(runs_of(folder)) + len(runs_of(folder / 'maps'))} evaluated runs")


if __name__ == "__main__":
    app.run(main)
