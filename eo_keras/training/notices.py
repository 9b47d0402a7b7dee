"""Lines that a run reports before its first step: data, model, devices and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eo_keras import models
from eo_keras.records.data_card import IMAGE
from eo_keras.sensors.catalogue import DIGITAL_NUMBERS

if TYPE_CHECKING:
    from eo_keras.training.setup import TrainingData
    from eo_keras.training.trainer import Trainer


def warnings(run: Trainer) -> list[str]:
    """Returns warnings."""
    options, found = run.options, []
    crop = run.task.crop(options)
    if crop is not None and crop < run.data.card.patch_size and models.MODELS[options.model].output_strides:
        found.append(
            f"crops of {crop} pixels from tiles of {run.data.card.patch_size}: atrous convolutions and the mean "
            "over the image see less ground than in a tile; crops of the tiles' size do better"
        )
    found += filter(None, [run.network.warning])
    return [f"warning: {line}" for line in (*found, *run.data.card.missing_classes())]


def lines(run: Trainer) -> list[str]:
    """Returns lines on data, model, devices and epochs, and warnings."""
    options, data, network = run.options, run.data, run.network
    by_epoch = [run.task.image_size(options, epoch) for epoch in range(options.epochs)]
    sizes = ", ".join(
        f"{by_epoch.count(size)} at {size}x{size} pixels" for size in dict.fromkeys(by_epoch) if size is not None
    )
    chooses = (
        f"{run.data.validation_count:,} examples ({run.data.validation_name})"
        if run.data.validation
        else "the last one"
    )
    head, whole = options.head_epochs, options.epochs - options.head_epochs
    first = f": {head} of the head alone, then {whole} of the whole network" if head else ""
    first = ", all of the head alone" if options.head_only else first
    devices = f"{run.strategy.num_replicas_in_sync} x {options.dtype_policy}"
    if run.worker.count > 1:
        devices += f" on {run.worker.count} workers, of which this is number {run.worker.number + 1}"
    memory = "kept in memory" if data.train.in_memory else "streamed from the files"
    warmup = options.optimizer.warmup(whole)
    short = f"; a warm-up of {warmup:g} epochs, as the run is short" if options.warmup_shrinks else ""
    return [
        f"data:   {data.card.dataset}, {data.train.examples:,} training examples, {memory}",
        *_inputs(data),
        f"model:  {options.model}, {network.model.count_params():,} weights. {network.initialization.summary()}",
        *([f"backbone: {network.start.checked}"] if network.start.checked else []),
        f"device: {devices}, batch of {options.batch_size}",
        f"run:    {options.epochs} epochs of {run.steps} steps{first}{sizes and f'; image size: {sizes}'}{short}",
        f"chosen: the epoch by {chooses}",
        *warnings(run),
    ]


def _inputs(data: TrainingData) -> list[str]:
    """Returns a line for each input and predicted image: bands, units, size, and how many examples lack it."""
    found = []
    for one in (*data.inputs, *data.predicted):
        modality = data.card.modalities[one.modality]
        what = "predicts: " if one in data.predicted else "bands:  "
        named = what if modality.name == IMAGE else f"{what}{one.name}: "
        units = "" if modality.units == DIGITAL_NUMBERS else f" in {modality.units}"
        size, missing = modality.patch_size, modality.missing.get("train", 0)
        lacking = f"; {missing:,} training examples lack it" if missing else ""
        found.append(f"{named}{','.join(one.bands)}, {modality.dtype}{units}, {size}x{size} pixels{lacking}")
    return found
