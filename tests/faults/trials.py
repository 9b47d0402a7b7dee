"""Trial of one damaged input, in the worker process of `mutations`, which may die or hang."""

import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import pathlib
import resource
import shutil
import struct
import sys
import zipfile
import zlib

import numpy as np

from eo_keras.errors import EOKerasError
from eo_keras.inspection import scan_records
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from tests.faults import container_mutators, mutators
from tfrecords_builder import build
from tfrecords_builder.splits.split import SplitOptions
from tfrecords_builder.synthetic import archives

INPUT_MEGABYTES = 300
"""No reader of a handful of patches may take more memory than this, beyond what its libraries hold."""

_ADDRESS_BYTES = 24 << 30  # Beyond it, memory is refused to the process, and not taken from the machine.

REFUSED, EQUAL, FAULT = "refused", "accepted and equal", "fault"


class WrongContentError(Exception):
    """Accepted content that differs from what other readers read."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Inputs of one format, and their reader.

    Attributes:
        source: what is damaged: `zip`, `folder` (an image in it), `shard` or `card`.
        datasets: the data sets that are taken in turn.
        mutators: the kinds of damage, taken in turn.
        share: how many of 200 inputs are of this family.
        tensorflow: whether it is read by TensorFlow.
    """

    source: str
    datasets: tuple[str, ...]
    mutators: dict[str, mutators.Mutator]
    share: int
    tensorflow: bool = False


_BOTH = ("eurosat_rgb", "eurosat_ms")

FAMILIES = {
    "builder: zip": Family("zip", _BOTH, container_mutators.ZIP, 50),
    "builder: JPEG": Family("folder", _BOTH[:1], mutators.JPEG, 40, tensorflow=True),
    "builder: GeoTIFF": Family("folder", _BOTH[1:], mutators.TIFF, 50),
    "reader: TFRecord": Family("shard", _BOTH, container_mutators.TFRECORD | container_mutators.FORGED, 20),
    "reader: TFRecord by tf.data": Family("shard", _BOTH, container_mutators.TFRECORD, 20, tensorflow=True),
    "reader: card": Family("card", _BOTH, container_mutators.CARD, 20),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of one input: its family and number, the damage, and `REFUSED`, `EQUAL` or `FAULT` with a message."""

    family: str
    number: int
    mutator: str
    result: str
    words: str


def make_base(folder: pathlib.Path, data: pathlib.Path | None) -> None:
    """Writes the undamaged inputs: for both data sets a zip, a folder and records of six patches."""
    for dataset, kind, real in (
        ("eurosat_rgb", "rgb", "EuroSAT_RGB.zip"),
        ("eurosat_ms", "ms", "EuroSAT_MS_sample.zip"),
    ):
        source = data / real if data else folder / f"{kind}.zip"
        if data is None:
            archives.write_eurosat_archive(source, kind=kind, patches_per_class=3)
        here = folder / dataset
        with zipfile.ZipFile(source) as archive:
            chosen = [name for name in sorted(archive.namelist()) if "Crop/" in name and not name.endswith("/")]
            chosen = [[name for name in chosen if f"/{part}Crop/" in name][:3] for part in ("Annual", "Permanent")]
            for name in sum(chosen, []):
                (here / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
                (here / "folder" / name).write_bytes(archive.read(name))
        # As in the published archives, the GeoTIFFs are compressed and the JPEGs are not.
        method = zipfile.ZIP_DEFLATED if kind == "ms" else zipfile.ZIP_STORED
        with zipfile.ZipFile(here / "source.zip", "w", method) as archive:
            for path in sorted((here / "folder").rglob("*.*")):
                archive.write(path, path.relative_to(here / "folder"))
        _build(dataset, here / "folder", here / "records")


def _build(dataset: str, source: pathlib.Path, output: pathlib.Path) -> cards.DataCard:
    options = build.BuildOptions(dataset, str(source), str(output), SplitOptions(test_fraction=0.5))
    return build.build(options).card


def _stored(card: cards.DataCard, folder: pathlib.Path) -> dict[str, tuple]:
    """Returns (class, image's bytes, CRS, transform) of every record by key."""
    stored = {}
    for split in card.splits.values():
        for shard in split.shards:
            for example in records.read_examples(folder / shard.name):
                if example.key in stored:
                    raise WrongContentError(f"two records have the key {example.key}")
                name = card.legend.class_names[example.label]
                stored[example.key] = (name, example.image, example.crs, example.transform)
    return stored


def _check_equal(stored: dict[str, tuple], expected: dict[str, tuple]) -> None:
    if missing := sorted(expected.keys() - stored.keys()):
        raise WrongContentError(f"accepted without {', '.join(missing)}")
    if invented := sorted(stored.keys() - expected.keys()):
        raise WrongContentError(f"accepted with {', '.join(invented)}, which other readers do not read")
    for key, value in expected.items():
        if stored[key] != value:
            fields = [place for place, (one, two) in enumerate(zip(stored[key], value, strict=True)) if one != two]
            raise WrongContentError(f"{key} differs in field {fields} of (class, image, CRS, transform)")


def _zip_contents(data: bytes) -> dict[str, tuple[str, bytes]]:
    """Reads a zip without contradictions by its local headers: (class, file) by key."""
    contents = {}
    for entry in container_mutators.zip_entries(data):
        flags, method, _, _, crc, size, _, name_length, extra = struct.unpack_from("<4H3I2H", data, entry.local + 6)
        start = entry.local + 30 + name_length + extra
        content = data[start : start + size]
        content = zlib.decompress(content, -15) if method == 8 else content
        assert data[entry.local + 30 : entry.local + 30 + name_length] == entry.name and zlib.crc32(content) == crc
        # The zip format: UTF-8 where a flag is set, else code page 437.
        path = entry.name.decode("utf-8" if flags & 0x800 else "cp437").split("/")
        if path[-1].startswith("."):
            continue  # Files that operating systems leave; the builder skips them too.
        contents[path[-1].rpartition(".")[0]] = (path[-2], content)
    return contents


class Worker:
    """Tries inputs one by one in this process.

    Args:
        base: a folder as `make_base` writes it.
        scratch: an empty folder to work in.
    """

    def __init__(self, base: pathlib.Path, scratch: pathlib.Path):
        self._base, self._scratch = base, scratch
        self._originals = {
            dataset: (cards.read_data_card(base / dataset / "records"), base / dataset / "records") for dataset in _BOTH
        }
        self._stored = {dataset: _stored(card, folder) for dataset, (card, folder) in self._originals.items()}

    def try_input(self, name: str, number: int) -> Outcome:
        """Damages an input and gives it to its reader."""
        family = FAMILIES[name]
        kinds = list(family.mutators)
        kind = kinds[number % len(kinds)]
        rng = np.random.default_rng([list(FAMILIES).index(name), number])
        # Not in step with the kinds, or some of them would be tried on one data set only.
        dataset = family.datasets[int(rng.integers(len(family.datasets)))]
        target = self._scratch / str(number)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        memory = _peak_megabytes()
        try:
            words = self._read(family, kind, dataset, rng, target)
            result = EQUAL
        except EOKerasError as error:
            named = str(target) in str(error)
            result, words = (REFUSED if named else FAULT), str(error).replace(str(target), "")
        except Exception as error:
            result, words = FAULT, f"{type(error).__name__}: {error}"[:500]
        if _peak_megabytes() - memory > INPUT_MEGABYTES:
            result, words = FAULT, f"{_peak_megabytes() - memory:,.0f} MB of memory; {words}"
        if result == REFUSED and (target / "output" / cards.DATA_CARD_NAME).exists():
            result, words = FAULT, f"a card was left; {words}"
        shutil.rmtree(target)
        return Outcome(name, number, f"{kind} ({dataset})", result, words)

    def _read(self, family, kind, dataset, rng, target) -> str:
        def damage(path: pathlib.Path) -> bytes:
            data = path.read_bytes()
            # Several draws, since some change nothing, such as a block of zeros set to zero.
            for _ in range(20):
                if (damaged := family.mutators[kind](rng, data)) != data:
                    break
            path.write_bytes(damaged)
            return damaged

        here = self._base / dataset
        if family.source == "zip":
            shutil.copy(here / "source.zip", target / "source.zip")
            data = damage(target / "source.zip")
            card = _build(dataset, target / "source.zip", target / "output")
            stored, expected = _stored(card, target / "output"), self._stored[dataset]
            if kind in container_mutators.WHOLE_ZIPS:
                contents = _zip_contents(data)
                expected = {
                    key: (name, *(_geotiff(content) if dataset == "eurosat_ms" else (content, None, None)))
                    for key, (name, content) in contents.items()
                }
            _check_equal(stored, expected)
        elif family.source == "folder":
            shutil.copytree(here / "folder", target / "source")
            paths = sorted(path for path in (target / "source").rglob("*.*"))
            path = paths[int(rng.integers(len(paths)))]
            data = damage(path)
            card = _build(dataset, target / "source", target / "output")
            stored, expected = _stored(card, target / "output"), dict(self._stored[dataset])
            expected[path.stem] = (
                path.parent.name,
                *(_geotiff(data) if dataset == "eurosat_ms" else (data, None, None)),
            )
            _check_equal(stored, expected)
            if dataset == "eurosat_rgb":
                _same_jpeg(data, card)
        else:
            shutil.copytree(here / "records", target / "records")
            pattern = cards.DATA_CARD_NAME if family.source == "card" else "*.tfrecord-*"
            paths = sorted((target / "records").glob(pattern))
            damage(paths[int(rng.integers(len(paths)))])
            if family.tensorflow:
                self._read_by_tensorflow(dataset, target / "records")
            else:
                self._read_verified(dataset, target / "records")
        return ""

    def _read_verified(self, dataset: str, folder: pathlib.Path) -> None:
        card = cards.read_data_card(folder)
        scan_records.verify(card, folder)
        _check_equal(_stored(card, folder), self._stored[dataset])
        if cards.to_json(card) != (original := cards.to_json(self._originals[dataset][0])):
            changed = [name for name, value in cards.to_json(card).items() if value != original[name]]
            raise WrongContentError(f"accepted with a changed card: {', '.join(changed)}")

    def _read_by_tensorflow(self, dataset: str, folder: pathlib.Path) -> None:
        from eo_keras.data import pipeline as pipelines

        opened = pipelines.RecordDataset(folder)
        card, original = opened.card, self._originals[dataset]
        options = pipelines.PipelineOptions(batch_size=2)
        for split in card.splits:
            training = pipelines.TrainingDataset(opened, options, split)
            batches = pipelines.evaluation(opened, options, split, with_keys=True)
            # The rows of the batches without padding.
            rows = [
                row
                for batch in pipelines.reading(opened, batches)
                for row in zip(*(part.numpy() for part in batch), strict=True)
                if row[2]
            ]
            expected = [
                (example.key, example.label, records.decode_image(example, card))
                for shard in original[0].splits[split].shards
                for example in records.read_examples(original[1] / shard.name)
            ]
            if training.examples != len(expected) or [row[3].decode() for row in rows] != [row[0] for row in expected]:
                raise WrongContentError(f"split {split} has other examples")
            for (image, label, _, key), (_, other_label, pixels) in zip(rows, expected, strict=True):
                if label != other_label or not np.array_equal(image, pixels):
                    raise WrongContentError(f"{key.decode()} has another label or other pixels")


def _geotiff(data: bytes) -> tuple[bytes, str | None, tuple[float, ...]]:
    """Reads a GeoTIFF by GDAL, and by tifffile where it can, and checks that both read the same numbers."""
    import rasterio
    import tifffile

    try:
        with rasterio.io.MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            pixels, transform = dataset.read().transpose(1, 2, 0), tuple(dataset.transform)[:6]
            code = dataset.crs.to_epsg() if dataset.crs else None
            crs = f"EPSG:{code}" if code else dataset.crs.to_wkt() if dataset.crs else None
    except Exception as error:
        raise WrongContentError(f"accepted, but GDAL cannot read it ({error.__cause__ or error})") from None
    with contextlib.suppress(Exception):
        other = tifffile.imread(io.BytesIO(data))
        if other.shape == pixels.shape and not np.array_equal(other, pixels):
            raise WrongContentError("GDAL and tifffile read different numbers")
    return pixels.astype("<u2").tobytes(), crs, transform


def _same_jpeg(data: bytes, card: cards.DataCard) -> None:
    """Checks that Pillow, TensorFlow and the builder's decoder read the same pixels."""
    import tensorflow as tf

    from eo_keras.data.parse import parse_batch
    from tfrecords_builder.sources import image_decoding

    example = records.Example(data, 0, "a")
    pixels = {"the builder": image_decoding.decode_jpeg(data, "a", card.patch_size)}
    for name, read in (
        ("Pillow", lambda: records.decode_image(example, card)),
        ("TensorFlow", lambda: parse_batch(tf.constant([records.encode(example)]), card)["image"][0].numpy()),
    ):
        try:
            pixels[name] = read()
        except Exception as error:
            raise WrongContentError(
                f"accepted, but {name} cannot read it ({type(error).__name__}: {str(error)[:200]})"
            ) from None
    for name, read in pixels.items():
        if not np.array_equal(read, pixels["the builder"]):
            raise WrongContentError(f"{name} and the builder read different pixels")


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(base: pathlib.Path, scratch: pathlib.Path, *, tensorflow: bool) -> None:
    """Writes an outcome as JSON for every line (family, number) of the standard input."""
    # Libraries print warnings, which must not get mixed up with the outcomes.
    outcomes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if tensorflow:
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        from eo_keras.data import pipeline as pipelines  # noqa: F401
    worker = Worker(base, scratch)
    for name in FAMILIES:
        if FAMILIES[name].tensorflow <= tensorflow:
            worker.try_input(name, 0)  # Libraries are imported and take their memory now.
    print(json.dumps("ready"), file=outcomes, flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(worker.try_input(*json.loads(line)))), file=outcomes, flush=True)
