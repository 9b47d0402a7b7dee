"""The sections of docs/results.md on models of maps and on the builder of tiles.

A measured model is a folder docs/results/maps/NAME with the run's flags.txt and history.csv and the evaluation's
metrics.json; metrics-VARIANT.json of evaluations with other flags may lie beside it, such as metrics-os8.json.
threshold.json, written by benchmarks.pixel_threshold, tells what the best threshold of single pixels comes to.
dense_step*.json are written by benchmarks.dense_step, tile_building.json by benchmarks.tile_building.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import measuring
from benchmarks.measured import Recorded
from eo_keras.core.number_format import number
from eo_keras.metrics.scores import Scores

_VARIANTS = {"os8": "--output_stride=8", "flip": "--flip", "os8-flip": "--output_stride=8 --flip"}


def section(folder: pathlib.Path) -> list[str]:
    """Returns the lines of both sections, as far as they were measured."""
    return [*_maps(folder / "maps"), *_steps(folder), *_tiles(folder / "tile_building.json")]


def _steps(folder: pathlib.Path) -> list[str]:
    lines: list[str] = []
    for path in sorted(folder.glob("dense_step*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not lines:
            lines += ["", "## DeepLabv3+ beside segmentation_models_pytorch", ""]
            lines.append(
                f"On one batch in memory, in float32; the ratio is taken round by round. "
                f"{measuring.machine_text(found['machine'])}."
            )
            lines += ["", "| | ours, images/s | theirs | ratio | parameters, ours and theirs |"]
            lines.append("| --- | ---: | ---: | ---: | --- |")
        for name, work in found["works"].items():
            rates = {side: measuring.Spread(**one).text(".2f") for side, one in work["images_per_second"].items()}
            versions = ", ".join(f"{one} {version}" for one, version in work["versions"].items())
            parameters = " and ".join(f"{count / 1e6:.1f} M" for count in work["parameters"].values())
            lines.append(
                f"| {'training step' if name == 'step' else 'forward pass'}, {found['model']}, {found['size']}x"
                f"{found['size']}, batch {found['batch_size']} | {rates['ours']} | {rates['peer']} ({versions}) "
                f"| {measuring.Spread(**work['ratio']).text('.2f')} | {parameters} |"
            )
    return [*lines, "", "```", "make bench-peers", "python -m benchmarks.dense_step", "```"] if lines else []


def _maps(folder: pathlib.Path) -> list[str]:
    runs = [Recorded(path.parent) for path in sorted(folder.glob("*/metrics.json"))]
    if not runs:
        return []
    lines = ["", "## Maps", ""]
    lines.append(
        "Mean intersection over union (mIoU) of the classes on the test tiles, which took no part in any choice; "
        "intervals are 95 % bootstrap intervals over tiles. The deck of Helber et al. (2018) gives 0.7657 for its "
        "human settlement layer, of about 90,000 tiles of 785 cities, which is not published."
    )
    for one in runs:
        lines += ["", *_details(one)]
    return lines


def _details(one: Recorded) -> list[str]:
    found = json.loads((one.folder / "metrics.json").read_text(encoding="utf-8"))
    scores, chosen = found["scores"], found["selection"]
    lines = [
        f"### {one.name}",
        "",
        f"* {found['model']}, {scores['images']:,} test tiles, {scores['pixels']:,} labelled pixels: mIoU "
        f"**{_told(scores['macro_iou'])}**, pixel accuracy {_told(scores['accuracy'])}, kappa "
        f"{_value(scores['kappa'])}, frequency-weighted IoU {scores['frequency_weighted_iou']['value']:.4f}"
        + (
            f", boundary F1 {scores['boundary_f1']['value']:.4f} within {scores['tolerance']:g} pixels."
            if scores["boundary_f1"]
            else "."
        ),
        f"* {len(one.history)} epochs, {one.hours:.2f} hours; kept epoch {chosen['epoch']}, "
        + (f"by mIoU ({chosen['value']:.4f}) on {chosen['split']}." if chosen["value"] else "the last one."),
    ]
    for path in sorted(one.folder.glob("metrics-*.json")):
        variant = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem.removeprefix("metrics-")
        lines.append(
            f"* With the same weights and `{_VARIANTS.get(name, name)}`: mIoU {_told(variant['scores']['macro_iou'])}."
        )
    threshold = one.folder / "threshold.json"
    if threshold.is_file():
        lines.append(_threshold(json.loads(threshold.read_text(encoding="utf-8"))))
    lines += ["", "| class | pixels | IoU | 95 % interval | precision | recall |"]
    lines.append("| --- | ---: | ---: | --- | ---: | ---: |")
    for each in scores["classes"]:
        if each["iou"] is None:
            continue
        low, high = each["iou"]["low"], each["iou"]["high"]
        lines.append(
            f"| {each['name']} | {each['support']:,} | {each['iou']['value']:.4f} | {low:.4f} to {high:.4f} "
            f"| {_value(each['precision'])} | {_value(each['recall'])} |"
        )
    if (one.folder / "maps.png").is_file():
        lines += ["", f"![Test tiles, their truth and the answers of {one.name}](results/maps/{one.name}/maps.png)"]
    lines += ["", "Repeat it:", "", "```", *_commands(one), "```"]
    return lines


def _threshold(found: Mapping[str, Any]) -> str:
    rule, scores = found["rule"], Scores.read(found).to_json()
    name, second = list(scores["by_class"].items())[1]
    numbers = rule["bands"][0]
    if len(rule["bands"]) == 2:
        numbers = "({0} - {1}) / ({0} + {1})".format(*rule["bands"])
    side = "below" if rule["below"] else "from"
    return (
        f"* A threshold for single pixels, {numbers} {side} {rule['value']:.3f}, the best on the training tiles: IoU "
        f"of {name} {_told(second['iou'])}, mIoU {_told(scores['scores']['miou'])}."
    )


def _told(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def _value(estimate: Mapping[str, Any] | None) -> str:
    return number(estimate and estimate["value"])


def _commands(one: Recorded) -> list[str]:
    before, folder = one.folder / "before.txt", f"docs/results/maps/{one.name}"
    beside = "python -m benchmarks.pixel_threshold --records_dir={} --output={}/threshold.json"
    return [
        *(before.read_text(encoding="utf-8").splitlines() if before.is_file() else []),
        f"python -m launch.train --flagfile={folder}/flags.txt --run_dir=runs/{one.name}",
        f"python -m launch.evaluate --run_dir=runs/{one.name} --split=test",
        *([beside.format(one.flags["records_dir"], folder)] if (one.folder / "threshold.json").is_file() else []),
    ]


def _tiles(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    speed = found["speed"]
    lines = ["", "## Building tiles", ""]
    lines.append(
        f"A scene of {speed['scene']}, {speed['polygons']:,} polygons, {speed['tiles']:,} tiles of "
        f"{speed['tile_size']} pixels, {speed['workers']} processes a side, from the start of a process to its end. "
        f"{measuring.machine_text(found['machine'])}."
    )
    lines += ["", "| | tiles a second |", "| --- | ---: |"]
    lines.append(f"| launch.build, records written | {measuring.Spread(**speed['tiles_per_second']).text(',.1f')} |")
    if "ratio" in speed:
        versions = ", ".join(f"{name} {version}" for name, version in speed["torchgeo_versions"].items())
        theirs = measuring.Spread(**speed["torchgeo_tiles_per_second"]).text(",.2f")
        lines.append(f"| torchgeo, raster and vector data sets intersected, tiles read ({versions}) | {theirs} |")
        lines.append(f"| ratio, round by round | {measuring.Spread(**speed['ratio']).text(',.1f')} |")
    if memory := found.get("memory"):
        lines += [
            "",
            f"Peak memory of one process that builds from a scene of {memory['scene']} "
            f"({memory['scene_bytes'] / 1e9:.1f} GB) and {memory['polygons']:,} polygons, GDAL's cache included: "
            f"{memory['peak_bytes'] / 1e9:.2f} GB; {memory['tiles_kept']:,} tiles of {memory['tile_size']} pixels were "
            f"kept, in {memory['seconds']:,.0f} s.",
        ]
    lines += ["", "```", "make bench-peers", "python -m benchmarks.tile_building", "```"]
    return lines
