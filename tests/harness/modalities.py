"""A records folder of several modalities, written without a source: two optical dates, radar in dB, heights at 20 m."""

import dataclasses
import hashlib
import io

import numpy as np

from eo_keras.core import files
from eo_keras.legends.catalogue import Legend, LegendClass
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.statistics import Histograms

SIZE = 64
LEGEND = Legend("three", tuple(LegendClass(name, f"#{code}0{code}0ff") for code, name in enumerate("abc", 2)))

MODALITIES = {
    one.name: one
    for one in (
        cards.Modality("s2", "sentinel2", ("B04", "B03", "B02"), "uint16", "digital numbers", 10.0, SIZE, level="L2A"),
        cards.Modality(
            "s2_before", "sentinel2", ("B04", "B03", "B02"), "uint16", "digital numbers", 10.0, SIZE, level="L2A"
        ),
        cards.Modality("s1", "sentinel1", ("VV", "VH"), "float32", "dB", 10.0, SIZE),
        cards.Modality("height", "height", ("HEIGHT",), "float32", "m", 20.0, SIZE // 2),
    )
}


def images_of(number):
    """Returns mask and images of an example: class 1 is bright after, class 2 has strong backscatter and is high."""
    random = np.random.default_rng(number)
    mask = np.kron(random.integers(0, 3, (4, 4)), np.ones((16, 16))).astype(np.uint8)
    optical = random.normal(1000, 100, (2, SIZE, SIZE, 3))
    optical[0] += 800 * (mask == 1)[..., None]
    radar = random.normal([-12, -19], 1, (SIZE, SIZE, 2)) + 6 * (mask == 2)[..., None]
    height = random.normal(0.5, 0.2, (SIZE // 2, SIZE // 2, 1)) + 9 * (mask[::2, ::2, None] == 2)
    images = {"s2": optical[0].astype(np.uint16), "s2_before": optical[1].astype(np.uint16)}
    images |= {"s1": radar.astype(np.float32), "height": height.astype(np.float32)}
    images["s2"][:4, :8] = 0
    images["s1"][-4:, :8] = np.nan
    return mask, images


def write(folder, splits, lacking=None):
    """Writes a records folder.

    Args:
        folder: to be made.
        splits: number of examples by split.
        lacking: names of missing modalities, by the example's number.
    """
    lacking, number = lacking or {}, 0
    files.make_folder(folder)
    histograms = {name: Histograms(len(one.bands), one.dtype) for name, one in MODALITIES.items()}
    found, missing = {}, {name: {} for name in MODALITIES}
    for split, count in splits.items():
        shard, classes = io.BytesIO(), np.zeros(len(LEGEND), np.int64)
        for _ in range(count):
            mask, images = images_of(number)
            for name in lacking.get(number, ()):
                missing[name][split] = missing[name].get(split, 0) + 1
                del images[name]
            if split == "train":
                for name, image in images.items():
                    histograms[name].add(image)
            stored = {name: image.tobytes() for name, image in images.items()}
            tile = records.PixelLabels(mask, np.ones_like(mask), "", "", "")
            classes += tile.class_pixels(len(LEGEND))
            first = stored.pop("s2", b"")
            example = records.Example(first, None, f"{split}-{number}", None, None, tile, stored)
            tfrecord.write_record(shard, records.encode(example))
            number += 1
        name, data = f"modal-{split}.tfrecord-00000-of-00001", shard.getvalue()
        files.write_bytes(files.join(folder, name), data)
        entry = cards.Shard(name, count, len(data), hashlib.sha256(data).hexdigest())
        found[split] = cards.Split(count, dict(zip(LEGEND.class_names, classes.tolist(), strict=True)), (entry,))
    first, *others = (
        dataclasses.replace(one, statistics=histograms[name].statistics(one.bands), missing=missing[name])
        for name, one in MODALITIES.items()
    )
    card = cards.DataCard(
        dataset="modal",
        version="1.0.0",
        task="segmentation",
        bands=first.bands,
        dtype=first.dtype,
        encoding=first.encoding,
        level=first.level,
        harmonised=True,
        reflectance=None,
        nodata=0,
        resolution_m=first.resolution_m,
        patch_size=SIZE,
        georeferenced=False,
        legend=LEGEND,
        splits=found,
        split_method={},
        statistics=first.statistics,
        sources=(),
        products=(),
        attribution="",
        modality=first.name,
        missing=first.missing,
        others=tuple(others),
    ).with_fingerprint()
    cards.write_card(card, folder)
    return card
