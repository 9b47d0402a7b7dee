"""What a run says before its first step: what is going to be done, and what may go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eo_keras.training.train import _Training


def warnings(run: _Training) -> list[str]:
    """Says in lines of text what may go wrong."""
    options, found = run.options, []
    crop = run.task.crop(options)
    if crop is not None and crop < run.card.patch_size:
        found.append(
            f"crops of {crop} pixels from tiles of {run.card.patch_size}: atrous convolutions and the mean "
            "over the image see less ground than in a tile; crops of the tiles' size do better"
        )
    found += filter(None, [run.few_values])
    return [f"warning: {line}" for line in (*found, *run.card.missing_classes())]


def lines(run: _Training) -> list[str]:
    """Says in lines of text what is going to be done."""
    options = run.options
    phases = zip(options.progressive_sizes, options.progressive_epochs, strict=True)
    sizes = ", ".join(f"{count} at {size}x{size} pixels" for size, count in phases)
    chooses = f"{run.validation_count:,} examples ({run.validation_name})" if run.validation else "the last one"
    head, whole = options.head_epochs, options.epochs - options.head_epochs
    first = f": {head} of the head alone, then {whole} of the whole network" if head else ""
    devices = f"{run.strategy.num_replicas_in_sync} x {options.dtype_policy}"
    if run.worker.count > 1:
        devices += f" on {run.worker.count} workers, of which this is number {run.worker.number + 1}"
    memory = "kept in memory" if run.pipeline.in_memory else "streamed from the files"
    warmup = options.optimizer.warmup(whole)
    short = f"; a warm-up of {warmup:g} epochs, as the run is short" if options.warmup_shrinks else ""
    return [
        f"data:   {run.card.dataset}, {run.pipeline.examples:,} training examples, {memory}",
        f"bands:  {','.join(run.bands)}, {run.card.dtype}, {run.card.patch_size}x{run.card.patch_size} pixels",
        f"model:  {options.model}, {run.model.count_params():,} weights. {run.initialisation.summary()}",
        *([f"backbone: {run.start.checked}"] if run.start.checked else []),
        f"device: {devices}, batch of {options.batch_size}",
        f"run:    {options.epochs} epochs of {run.steps} steps{first}{sizes and f'; image size: {sizes}'}{short}",
        f"chosen: the epoch by {chooses}",
        *warnings(run),
    ]
