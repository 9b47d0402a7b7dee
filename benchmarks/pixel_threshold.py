r"""The simplest mask of two classes: one number of a pixel, and one threshold; what a network has to beat.

The number is a band, or the normalized difference (a - b) / (a + b) of two, as in water indices (McFeeters 1996). Which
one, which side of the threshold is the second class, and the threshold itself are those with the best intersection
over union of that class over the training tiles; the test tiles are scored once. Of records of several modalities
one is taken; pixels where it has no data take no part in the choice, and are predicted as the first class.

Examples:
  python -m benchmarks.pixel_threshold --records_dir=records/ombria --output=docs/results/maps/NAME/threshold.json
  python -m benchmarks.pixel_threshold --records_dir=records/ombria_both --modality=s1 --output=threshold.json
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import flags

from benchmarks import harness
from eo_keras.core import files
from eo_keras.errors import RecordsError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.metrics.scores import Scores
from eo_keras.metrics.segmentation import SegmentationScorer
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from launch import app, path_flags

FLAGS = flags.FLAGS

_STEPS = 1024
"""Bins of the numbers' histograms: thresholds are looked for between them."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A rule for a pixel.

    Attributes:
        bands: one band, or two whose normalized difference is taken.
        below: whether smaller numbers are the second class.
        value: the threshold; numbers equal to it count as larger.
        iou: intersection over union of the second class over the training tiles.
    """

    bands: tuple[str, ...]
    below: bool
    value: float
    iou: float

    def __call__(self, image: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
        """Maps an image (height, width, band): 1 where it is the second class, else 0; uint8 (height, width)."""
        numbers = index(image, [names.index(band) for band in self.bands])
        return ((numbers < self.value) if self.below else (numbers >= self.value)).astype(np.uint8)


def index(image: np.ndarray, places: list[int]) -> np.ndarray:
    """Returns a band, or the normalized difference of two, of an image (..., band) as float64 (...)."""
    numbers = image[..., places].astype(np.float64)
    if len(places) == 1:
        return numbers[..., 0]
    total = numbers.sum(axis=-1)
    return np.divide(numbers[..., 0] - numbers[..., 1], total, out=np.zeros(total.shape), where=total > 0)


def tiles(records_dir: str, split: str, modality: str | None = None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields key, image (height, width, band) and labels uint8 (height, width) of a split's tiles.

    Args:
        records_dir: the records folder.
        split: name of the split.
        modality: name of the images' modality; None for the first one.

    Raises:
        RecordsError: if the records are no tiles of two classes, there is no such split or modality, or a shard is
            damaged.
    """
    card = cards.read_data_card(records_dir)
    modality = modality or card.modality
    if modality not in card.modalities:
        raise RecordsError(records_dir, f"there is no modality {modality}", f"one of {', '.join(card.modalities)}")
    if card.task != "segmentation" or len(card.legend) != 2 or split not in card.splits:
        raise RecordsError(records_dir, f"{card.task}, {len(card.legend)} classes", f"tiles of two, with a '{split}'")
    for shard in card.splits[split].shards:
        for example in records.read_examples(records.check_shard(records_dir, shard)):
            yield example.key, records.decode_modality(example, card, modality), example.tile.labels


def fit(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> Threshold:
    """Finds the best threshold.

    Args:
        images: numbers (N, band) of pixels.
        labels: their classes, 0 or 1, (N,).
        names: the bands' names.
    """
    best = None
    choices = [(place,) for place in range(len(names))] + list(itertools.combinations(range(len(names)), 2))
    for places in choices:
        numbers = index(images, list(places))
        edges = np.linspace(numbers.min(), numbers.max(), _STEPS + 1)
        second, first = (np.histogram(numbers[labels == label], edges)[0] for label in (1, 0))
        for below in (True, False):
            # Of every edge, how many pixels of each class lie on the side that is called the second class.
            hits, false = (np.concatenate([[0], np.cumsum(counts)]) for counts in (second, first))
            if not below:
                hits, false = hits[-1] - hits, false[-1] - false
            ious = hits / np.maximum(1, second.sum() + false)
            place = int(ious.argmax())
            if best is None or ious[place] > best.iou:
                bands = tuple(names[number] for number in places)
                best = Threshold(bands, below, float(edges[place]), float(ious[place]))
    return best


def measure(records_dir: str, modality: str | None = None) -> dict:
    """Fits a threshold on the training tiles and returns it with its scores on the test tiles, as JSON holds them.

    Args:
        records_dir: the records folder.
        modality: see `tiles`.
    """
    card = cards.read_data_card(records_dir)
    modality = modality or card.modality
    found = []
    for _, image, labels in tiles(records_dir, "train", modality):
        known = (labels != IGNORE) & records.has_data(image)
        found.append((image[known], labels[known]))
    bands = card.modalities[modality].bands
    rule = fit(*(np.concatenate(parts) for parts in zip(*found, strict=True)), bands)
    scorer = SegmentationScorer(card.legend.class_names)
    for key, image, labels in tiles(records_dir, "test", modality):
        scorer.add(key, labels, rule(image, bands) * records.has_data(image))
    return {
        "dataset": card.dataset,
        "data_fingerprint": card.fingerprint,
        **({"modality": modality} if card.others else {}),
        "rule": dataclasses.asdict(rule),
        **scorer.scores().to_json(),
        "machine": harness.machine(),
    }


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    path_flags.define_path("records_dir", None, "Records folder of tiles.", required=True, flag_values=flag_values)
    flags.DEFINE_string("modality", None, "Modality of the images. Default: the first.", flag_values=flag_values)
    path_flags.define_path("output", None, "JSON file to write.", required=True, flag_values=flag_values)


def main() -> None:
    """Runs the command."""
    found = measure(FLAGS.records_dir, FLAGS.modality)
    rule, scores = found["rule"], Scores.read(found)
    side = "below" if rule["below"] else "from"
    print(f"rule: {' and '.join(rule['bands'])} {side} {rule['value']:.4g}; IoU in training {rule['iou']:.4f}")
    for name, each in scores.by_class.items():
        iou = each["iou"] and f"{each['iou'].value:.4f} ({each['iou'].low:.4f} to {each['iou'].high:.4f})"
        print(f"{name:12} IoU {iou or '-'}")
    if not FLAGS.dry_run:
        files.make_folder(pathlib.Path(FLAGS.output).parent)
        files.write_json(FLAGS.output, found)


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
