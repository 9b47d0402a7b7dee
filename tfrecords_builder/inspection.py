"""Looks into a records folder: checks that it is whole, and draws samples of every class. Imports no TensorFlow."""

from __future__ import annotations

import collections
import pathlib

import numpy as np

from eo_keras import cards, files, records, reports
from eo_keras.errors import RecordsError


def check_shards(card: cards.DataCard, records_dir: str | pathlib.Path, *, checksums: bool = False) -> int:
    """Checks that every shard of a card is there and whole.

    Args:
        card: the folder's card.
        records_dir: the folder.
        checksums: whether to compare the SHA-256 too, beside the length.

    Returns:
        The number of shards.

    Raises:
        RecordsError: if a shard is missing, cut or changed.
    """
    count = 0
    for split in card.splits.values():
        for shard in split.shards:
            path, count = records.check_shard(records_dir, shard), count + 1
            if checksums and files.sha256_of_file(path) != shard.sha256:
                raise RecordsError(
                    path, "the shard's bytes have changed", f"SHA-256 {shard.sha256}", "build the records again"
                )
    return count


def sample_images(
    card: cards.DataCard, records_dir: str | pathlib.Path, split: str, samples: int = 10
) -> dict[str, list[np.ndarray]]:
    """Takes the first examples of every class from a split, drawn for people to look at.

    Args:
        card: the folder's card.
        records_dir: the folder.
        split: name of the split.
        samples: how many of each class.

    Returns:
        Images (height, width, 3) uint8 by class name, in the legend's order.

    Raises:
        RecordsError: if a shard is damaged.
    """
    found: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    wanted = {name: min(samples, card.splits[split].classes[name]) for name in card.legend.class_names}
    for shard in card.splits[split].shards:
        for example in records.read_examples(pathlib.Path(records_dir) / shard.name):
            name = card.legend.class_names[example.label]
            if len(found[name]) < wanted[name]:
                image = records.decode_image(example, card)
                found[name].append(reports.to_display(image, card.bands, card.dtype))
        if all(len(found[name]) == wanted[name] for name in wanted):
            break
    return {name: found[name] for name in card.legend.class_names}


def describe(card: cards.DataCard) -> str:
    """Describes a card in lines of text: what it holds, counts by class and split, and statistics by band."""
    scale = f"{card.reflectance.scale:.6g} * number {card.reflectance.offset:+.6g}"
    lines = [
        f"data set     {card.dataset} {card.version}, {card.task}, Sentinel-2 {card.level}",
        f"images       {card.patch_size}x{card.patch_size} pixels of {card.resolution_m:g} m, {card.dtype}, "
        f"stored as {card.encoding}{', georeferenced' if card.georeferenced else ''}",
        f"bands        {','.join(card.bands)}",
        f"reflectance  {scale}; no data is {card.nodata}",
        f"sources      {', '.join(f'{source.name} ({source.bytes:,} bytes)' for source in card.sources)}",
        f"split        {', '.join(f'{key}={value}' for key, value in card.split_method.items())}",
        f"fingerprint  {card.fingerprint}",
        "",
        "examples".ljust(24) + "".join(name.rjust(10) for name in card.splits),
    ]
    for class_name in card.legend.class_names:
        lines.append(class_name.ljust(24) + "".join(f"{s.classes[class_name]:>10,}" for s in card.splits.values()))
    lines.append("all".ljust(24) + "".join(f"{s.examples:>10,}" for s in card.splits.values()))
    lines.append("shards".ljust(24) + "".join(f"{len(s.shards):>10,}" for s in card.splits.values()))
    lines += ["", "band (training)" + "".join(name.rjust(12) for name in ("mean", "std", "min", "max", "no data"))]
    for band in card.statistics:
        lines.append(
            band.band.ljust(15)
            + f"{band.mean:>12.3f}{band.std:>12.3f}{band.minimum:>12}{band.maximum:>12}{band.nodata:>12,}"
        )
    return "\n".join(lines)
