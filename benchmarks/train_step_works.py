"""What benchmarks.train_step measures: the sides of a work, their ratios to each peer, and which targets are reached.

All sides run in the same rounds. A work is then written once a peer, so that its table is like all the others.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import comparison, measuring, works
from benchmarks.comparison import OURS, PEER, Side, Work
from eo_keras.core import files
from eo_keras.records import data_card as cards

TORCH = "torch"
TARGETS = {"keras": 0.97, "torch": 1.0}
"""What share of a peer's rate the whole run should at least reach."""

POLICIES = ("float32", "mixed_bfloat16")
PATCH_SIZE = 64
"""Of EuroSAT and of the generated world."""

WARM_STEPS = 3
"""Steps that the bare loops take before they are timed; our run takes a whole epoch."""

_IN_TORCH = ("resnet50", "resnet101")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained, and on which sides.

    Attributes:
        model: a name of `eo_keras.models.MODELS`.
        dtype_policy: one of `POLICIES`.
        batch_size: examples in a step.
        steps: steps that are timed on each side.
        records_dir: the records folder that our run reads.
        virtual_devices: numbers of devices to split the processor into, a side of ours each; the first is compared
            with the targets. 0 leaves the processor whole.
        peers_python: the peers' interpreter; None leaves PyTorch out.
    """

    model: str
    dtype_policy: str
    batch_size: int
    steps: int
    records_dir: str
    virtual_devices: tuple[int, ...] = (0, 2)
    peers_python: str | None = None

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.model} in {self.dtype_policy}, {PATCH_SIZE}x{PATCH_SIZE} pixels, batches of {self.batch_size}"


def make_records(work_dir: pathlib.Path, patches_per_class: int) -> pathlib.Path:
    """Returns a records folder of the generated world's RGB patches, made unless it is there already."""
    from tfrecords_builder.synthetic import archives

    folder, source = work_dir / f"records-{patches_per_class}", work_dir / f"eurosat_rgb-{patches_per_class}.zip"
    if not (folder / cards.DATA_CARD_NAME).is_file():
        print(f"generating {10 * patches_per_class:,} patches", flush=True)
        archives.write_eurosat_archive(source, kind="rgb", patches_per_class=patches_per_class)
        measuring.run_command(works.module("launch.build", dataset="eurosat_rgb", source=source, output_dir=folder))
    return folder


def describe_records(records_dir: str) -> dict[str, Any]:
    """Returns what is kept of a records folder with the figures.

    Raises:
        RecordsError: if it has no card.
        MeasurementError: if its patches are not what the peers train on.
    """
    card = cards.read_data_card(records_dir)
    found = (card.patch_size, len(card.bands), len(card.legend))
    if found != (PATCH_SIZE, 3, 10):
        raise measuring.MeasurementError(
            "--records_dir",
            "patches of {0}x{0} pixels, {1} bands and {2} classes".format(*found),
            f"what the peers train on: {PATCH_SIZE}x{PATCH_SIZE} pixels, 3 bands and 10 classes",
            "build them with launch.build --dataset=eurosat_rgb, or leave --records_dir out",
        )
    return {
        "dataset": card.dataset,
        "data_fingerprint": card.fingerprint,
        "train_examples": card.splits["train"].examples,
        "bands": list(card.bands),
    }


def side_command(side: str, settings: Settings, **more: Any) -> tuple[str, ...]:
    """Returns the command that measures one side of ours, or the bare loop of Keras."""
    return works.module(
        "benchmarks.train_step_side", side=side, **_shared(settings), records_dir=settings.records_dir, **more
    )


def make_work(settings: Settings) -> Work:
    """Returns a work of all sides; its peer is Keras's bare loop."""
    sides = {}
    for place, devices in enumerate(settings.virtual_devices):
        split = f", processor split into {devices} devices" if devices else ""
        sides[f"devices_{devices}" if place else OURS] = Side(
            f"launch.train: records, augmentation, metrics, progress{split}",
            side_command("run", settings, virtual_devices=devices),
        )
    sides[PEER] = Side("Keras: compile, then train_on_batch on one array", side_command("keras", settings))
    if settings.peers_python and settings.model in _IN_TORCH:
        sides[TORCH] = Side(
            "PyTorch: torchvision's network, channels_last, on one array",
            works.peer(settings.peers_python, "train_step.py", **_shared(settings), warm_steps=WARM_STEPS),
        )
    timed = "steps after the first ones, without validation and checkpoints"
    return Work(settings.title, "images/s", timed, sides, {})


def _shared(settings: Settings) -> dict[str, Any]:
    return {
        "model": settings.model,
        "batch_size": settings.batch_size,
        "steps": settings.steps,
        "dtype_policy": settings.dtype_policy,
    }


def by_peer(measured: Mapping[str, Any], key: str, *, torch_target: bool = True) -> dict[str, Any]:
    """Writes a measured work once a peer: our sides with their ratio to it, and the peer.

    Args:
        measured: what `comparison.measure` returned for `make_work`.
        key: what the works' names begin with.
        torch_target: whether the rate of PyTorch is to be reached.
    """
    sides, found = measured["sides"], {}
    ours = [name for name in sides if name not in (PEER, TORCH)]
    for title, peer in (("keras", PEER), ("torch", TORCH)):
        if peer not in sides:
            continue
        chosen = {}
        for name in ours:
            ratio = measuring.ratio(sides[name]["rates"], sides[peer]["rates"])
            chosen[name] = sides[name] | {"ratio": dataclasses.asdict(ratio)}
        if title == "keras" or torch_target:
            chosen[OURS]["target"] = TARGETS[title]
        bare = {name: value for name, value in sides[peer].items() if name != "ratio"}
        found[f"{key}_{title}"] = measured | {"sides": chosen | {PEER: bare}}
    return found


def verdicts(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the targets of measured works: what is compared, the median ratio, the target, and whether it is met."""
    found = []
    for work in measured.values():
        for side in work["sides"].values():
            if "target" in side:
                found.append(
                    {
                        "what": f"{work['title']}: {side['title'].partition(':')[0]} beside "
                        f"{work['sides'][PEER]['title'].partition(':')[0]}",
                        "ratio": side["ratio"]["median"],
                        "target": side["target"],
                        "reached": side["ratio"]["median"] >= side["target"],
                    }
                )
    return found


def measure(settings: Settings, runs: int, names: Mapping[str, str]) -> dict[str, Any]:
    """Measures all sides in rounds.

    Args:
        settings: what to measure.
        runs: rounds.
        names: what paths are called in the commands that are kept.

    Returns:
        The works by name, ready for JSON.
    """
    measured = comparison.measure(make_work(settings), runs, dict(names))
    key = f"{settings.model}_{settings.dtype_policy}"
    return by_peer(measured, key, torch_target=settings.dtype_policy == "float32")


_SAME = ("runs", "batch_size", "patch_size", "records", "machine")


def write(path: str, result: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the figures, beside those of the same machine, records and settings that the file already holds.

    Args:
        path: the JSON file.
        result: all but the works.
        measured: the works measured now.

    Returns:
        What was written.
    """
    earlier = json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).is_file() else {}
    if any(earlier.get(name) != result[name] for name in _SAME):
        earlier = {}
    kept = {"profiles": earlier["profiles"]} if "profiles" in earlier else {}
    every = earlier.get("works", {}) | dict(measured)
    written = kept | dict(result) | {"works": every, "targets": verdicts(every)}
    files.write_json(path, written)
    return written


def verdict_line(verdict: Mapping[str, Any]) -> str:
    """Tells in one line whether a target is reached."""
    outcome = "reached" if verdict["reached"] else "MISSED"
    return f"{verdict['what']}: {verdict['ratio']:.3f} times, target {verdict['target']:g} {outcome}"


def profile_lines(profile: Mapping[str, Any]) -> list[str]:
    """Tells what a step spends its time on."""
    parts = ", ".join(f"{name} {share:.1%}" for name, share in profile["shares"].items())
    kernels = ", ".join(f"{name} {share:.1%}" for name, share in profile["kernels"].items())
    return [
        f"a step of {profile['model']} in {profile['dtype_policy']} takes {profile['step_seconds']:.3f} s: {parts}",
        f"of all kernels' time, {profile['kernel_seconds']:.2f} s on all threads: {kernels}",
    ]
