"""The page docs/accuracy.md: what was to be reached, what was, how it was trained and what else was tried.

campaign.json lists the figures to reach and the runs that answer for them; a figure none of whose runs is there yet is
open. tried/NAME holds flags.txt and history.csv of runs that were only validated, on examples cut from training.
cross_validation.json is written by benchmarks.cross_validation.
"""

from __future__ import annotations

import json
import pathlib
import statistics

from benchmarks.measured import Measured, Recorded, interval, measured

_INTRODUCTION = """# Accuracy

Made by `python -m benchmarks.results` from the files in [docs/results](results); no figure here is typed by hand.
[results.md](results.md) tells each run's classes, calibration and commands.

Every choice (recipe, rates, length, the epoch to keep) was made on examples cut from the training part by a hash of
their keys. The test part was asked once a run, after that. Intervals are 95 % bootstrap intervals over the test
patches: they tell what another sample of patches would change, not another seed; where there are several seeds, each
has its own split, order and initial weights. D4 is the mean answer over the eight symmetries of the square.
"""


def page(folder: pathlib.Path) -> str:
    """Returns the page's text.

    Args:
        folder: the folder of the results.
    """
    runs = {one.name: one for one in measured(folder)}
    lines = [_INTRODUCTION, *_campaign(folder, runs), *_trained(runs), *_tried(folder), *_cross_validation(folder)]
    return "\n".join(lines) + "\n"


def _campaign(folder: pathlib.Path, runs: dict[str, Measured]) -> list[str]:
    lines = ["## What was to be reached", "", "| figure | best known | to reach | here | |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in json.loads((folder / "campaign.json").read_text(encoding="utf-8")):
        found = [runs[name] for name in row["runs"] if name in runs]
        reach = "" if row["reach"] is None else f"{row['reach']:.2%}"
        if row.get("goal"):
            reach += f", the goal {row['goal']:.2%}"
        lines.append(f"| {row['figure']} | {row['best_known']} | {reach} | {_here(found)} | {_state(row, found)} |")
    return lines


def _here(found: list[Measured]) -> str:
    if not found:
        return ""
    if len(found) == 1:
        return f"**{found[0].scores['accuracy']:.2%}** ({interval(found[0].scores)})"
    each = [one.scores["accuracy"] for one in found]
    listed = ", ".join(f"{value:.2%}" for value in each)
    return f"**{statistics.mean(each):.2%}**, mean of {len(each)} seeds ({listed})"


def _state(row: dict, found: list[Measured]) -> str:
    if not found:
        return "open"
    mean = statistics.mean(one.scores["accuracy"] for one in found)
    state = "measured"
    if row["reach"] is not None:
        # As printed: two decimals of a per cent.
        state = "reached" if round(mean, 4) >= row["reach"] else "missed"
        if row.get("goal") and round(mean, 4) >= row["goal"]:
            state = "goal reached"
    missing = len(row["runs"]) - len(found)
    return state + (f"; {missing} of {len(row['runs'])} seeds open" if missing else "")


def _trained(runs: dict[str, Measured]) -> list[str]:
    if not runs:
        return []
    lines = ["", "## How they were trained", "", "On two processor cores, in float32, unless the flags say otherwise."]
    lines += ["", "| run | epochs | hours | optimizer | validation | test | with D4 |"]
    lines.append("| --- | --- | ---: | --- | ---: | --- | --- |")
    for one in runs.values():
        chosen = one.result["selection"]
        value = "none" if chosen["metric"] is None else f"{chosen['value']:.2%}, epoch {chosen['epoch']}"
        averaged = "" if one.averaged is None else f"{one.averaged['accuracy']:.2%} ({interval(one.averaged)})"
        lines.append(
            f"| [{one.name}](results.md#{one.name}) | {one.sizes()} | {one.hours:.1f} | {_optimizer(one)} | {value} "
            f"| {one.scores['accuracy']:.2%} ({interval(one.scores)}) | {averaged} |"
        )
    return lines


def _optimizer(one: Recorded) -> str:
    return f"{one.flags['optimizer']} {one.flags['learning_rate']}, batch {one.flags['batch_size']}"


def _tried(folder: pathlib.Path) -> list[str]:
    found = [Recorded(path.parent) for path in sorted(folder.glob("tried/*/history.csv"))]
    if not found:
        return []
    base = found[0]
    lines = ["", "## What was tried", ""]
    lines.append(
        f"Shorter runs, validated only, on examples cut from training. The first, [{base.name}](results/tried/"
        f"{base.name}/flags.txt), is what the others differ from; each is repeated by its `flags.txt`."
    )
    lines += ["", "| run | what is otherwise | epochs | hours | last validation | its loss |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |")
    for one in found:
        last, other = one.history[-1], ", ".join(f"`{flag}`" for flag in one.differences(base))
        lines.append(
            f"| {one.name} | {other} | {one.sizes()} | {one.hours:.1f} | {float(last['val_accuracy']):.2%} "
            f"| {float(last['val_loss']):.4f} |"
        )
    return lines


def _cross_validation(folder: pathlib.Path) -> list[str]:
    path = folder / "cross_validation.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    first = next(iter(found["bands"].values()))
    seen = first["patches"] * (found["folds"] - 1) // found["folds"]
    lines = ["", "## Other bands, on few patches", ""]
    lines.append(
        f"The {first['patches']:,} patches of `{found['source']}`, from random weights, {found['folds']} folds of "
        f"blocks of {found['block_km']:g} km, training patches within {found['buffer_km']:g} km left out. Each patch "
        f"was answered once, by the network of the fold that tests it; the intervals draw whole blocks, "
        f"{first['blocks']:,} of them. These networks saw about {seen:,} patches and are no match for those above; "
        "what is to be read is what further bands add."
    )
    lines += ["", "| bands | accuracy | 95 % interval | macro F1 | beside the first | 95 % interval |"]
    lines.append("| --- | ---: | --- | ---: | ---: | --- |")
    for bands, one in found["bands"].items():
        gain = f"{one['gain']:+.1%} | {one['gain_low']:+.1%} to {one['gain_high']:+.1%}" if "gain" in one else " | "
        low, high = one["accuracy_low"], one["accuracy_high"]
        lines.append(f"| {bands} | {one['accuracy']:.1%} | {low:.1%} to {high:.1%} | {one['macro_f1']:.1%} | {gain} |")
    command = f"python -m benchmarks.cross_validation --source=data/{found['source']}"
    lines += ["", "```", f"{command} --training_flags={found['training_flags']}", "```"]
    return lines
