r"""Damaged inputs given to the builder and to the readers, each tried in a process that may die or hang.

An input is refused by an error of ours that names where the fault lies, or it is accepted, and what comes out is what
other readers find in the damaged input. All else is a fault: another exception, a dead or hanging process, much memory,
or numbers that nobody else reads there.

The table of a run, and the same as JSON:
  python -m tests.faults.mutations --inputs=200 --output=mutations.json [--data=FOLDER]
With --data, the patches are real ones of FOLDER/EuroSAT_RGB.zip and FOLDER/EuroSAT_MS_sample.zip.
"""

import argparse
import collections
import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import pathlib
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from eo_keras import cards, records
from eo_keras.errors import EOKerasError
from tests.faults import mutators
from tfrecords_builder import build, inspection
from tfrecords_builder.generated import archives
from tfrecords_builder.splits import SplitOptions

INPUT_SECONDS = 10
"""A reader that needs longer for a handful of patches hangs."""

START_SECONDS = 120
INPUT_MEGABYTES = 300
_ADDRESS_BYTES = 24 << 30  # Beyond it, memory is refused to the process, and not taken from the machine.

REFUSED, EQUAL, FAULT = "refused", "accepted and equal", "fault"


class Wrong(Exception):
    """What came out is not what other readers find."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Inputs of one form, and who reads them.

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
    "builder: zip": Family("zip", _BOTH, mutators.ZIP, 50),
    "builder: JPEG": Family("folder", _BOTH[:1], mutators.JPEG, 40, tensorflow=True),
    "builder: GeoTIFF": Family("folder", _BOTH[1:], mutators.TIFF, 50),
    "reader: TFRecord": Family("shard", _BOTH, mutators.TFRECORD | mutators.FORGED, 20),
    "reader: TFRecord by tf.data": Family("shard", _BOTH, mutators.TFRECORD, 20, tensorflow=True),
    "reader: card": Family("card", _BOTH, mutators.CARD, 20),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one input: its family and number, the damage, and `REFUSED`, `EQUAL` or `FAULT` with words."""

    family: str
    number: int
    mutator: str
    result: str
    words: str


def inputs(total: int) -> list[tuple[str, int]]:
    """Divides a number of inputs over the families by their shares; (family, number) each."""
    whole = sum(family.share for family in FAMILIES.values())
    counts = {name: total * family.share // whole for name, family in FAMILIES.items()}
    counts[next(iter(counts))] += total - sum(counts.values())
    return [(name, number) for name, count in counts.items() for number in range(count)]


# What both the worker and the parent know ends here; the worker's side follows.


def make_base(folder: pathlib.Path, data: pathlib.Path | None) -> None:
    """Writes what is damaged later: for both data sets a zip, a folder and records of six patches."""
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
    found = {}
    for split in card.splits.values():
        for shard in split.shards:
            for example in records.read_examples(folder / shard.name):
                if example.key in found:
                    raise Wrong(f"two records have the key {example.key}")
                name = card.legend.class_names[example.label]
                found[example.key] = (name, example.image, example.crs, example.transform)
    return found


def _must_be(found: dict[str, tuple], expected: dict[str, tuple]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise Wrong(f"accepted without {', '.join(missing)}")
    if invented := sorted(found.keys() - expected.keys()):
        raise Wrong(f"accepted with {', '.join(invented)}, which other readers do not find")
    for key, value in expected.items():
        if found[key] != value:
            parts = [place for place, (one, two) in enumerate(zip(found[key], value, strict=True)) if one != two]
            raise Wrong(f"{key} differs in part {parts} of (class, image, CRS, transform)")


def _zip_contents(data: bytes) -> dict[str, tuple[str, bytes]]:
    """Reads a zip without contradictions by its local headers: (class, file) by key."""
    found = {}
    for entry in mutators.zip_entries(data):
        method, _, _, crc, size, _, name_length, extra = struct.unpack_from("<H2H3I2H", data, entry.local + 8)
        start = entry.local + 30 + name_length + extra
        content = data[start : start + size]
        content = zlib.decompress(content, -15) if method == 8 else content
        assert data[entry.local + 30 : entry.local + 30 + name_length] == entry.name and zlib.crc32(content) == crc
        path = entry.name.decode().split("/")
        found[path[-1].rpartition(".")[0]] = (path[-2], content)
    return found


class Worker:
    """Tries inputs one by one in this process.

    Args:
        base: a folder as `make_base` writes it.
        scratch: an empty folder to work in.
    """

    def __init__(self, base: pathlib.Path, scratch: pathlib.Path):
        self._base, self._scratch = base, scratch
        self._originals = {
            dataset: (cards.read_data_card(base / dataset / "records"), base / dataset / "records")
            for dataset in _BOTH
        }
        self._stored = {dataset: _stored(card, folder) for dataset, (card, folder) in self._originals.items()}

    def try_input(self, name: str, number: int) -> Outcome:
        """Damages an input and gives it to its reader."""
        family = FAMILIES[name]
        kinds = list(family.mutators)
        kind = kinds[number % len(kinds)]
        rng = np.random.default_rng([list(FAMILIES).index(name), number])
        # Not in step with the kinds, or some of them would meet one data set alone.
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
            result, words = FAULT, f"a card was left behind; {words}"
        shutil.rmtree(target)
        return Outcome(name, number, f"{kind} ({dataset})", result, words)

    def _read(self, family, kind, dataset, rng, target) -> str:
        def damage(path: pathlib.Path) -> bytes:
            data = path.read_bytes()
            # A number of draws, for some change nothing: a zeroed block of zeros, a digit for itself.
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
            found, expected = _stored(card, target / "output"), self._stored[dataset]
            if kind in mutators.WHOLE_ZIPS:
                contents = _zip_contents(data)
                expected = {
                    key: (name, *(_geotiff(content) if dataset == "eurosat_ms" else (content, None, None)))
                    for key, (name, content) in contents.items()
                }
            _must_be(found, expected)
        elif family.source == "folder":
            shutil.copytree(here / "folder", target / "source")
            paths = sorted(path for path in (target / "source").rglob("*.*"))
            path = paths[int(rng.integers(len(paths)))]
            data = damage(path)
            card = _build(dataset, target / "source", target / "output")
            found, expected = _stored(card, target / "output"), dict(self._stored[dataset])
            expected[path.stem] = (
                path.parent.name,
                *(_geotiff(data) if dataset == "eurosat_ms" else (data, None, None)),
            )
            _must_be(found, expected)
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
        inspection.verify(card, folder)
        _must_be(_stored(card, folder), self._stored[dataset])
        if cards.to_json(card) != (original := cards.to_json(self._originals[dataset][0])):
            changed = [name for name, value in cards.to_json(card).items() if value != original[name]]
            raise Wrong(f"accepted with a changed card: {', '.join(changed)}")

    def _read_by_tensorflow(self, dataset: str, folder: pathlib.Path) -> None:
        from eo_keras import pipelines

        opened = pipelines.Records(folder)
        card, original = opened.card, self._originals[dataset]
        options = pipelines.PipelineOptions(batch_size=2)
        for split in card.splits:
            training = pipelines.TrainingPipeline(opened, options, split)
            batches = pipelines.evaluation(opened, options, split, with_keys=True)
            # A batch's rows, without those that fill it up.
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
                raise Wrong(f"split {split} has other examples")
            for (image, label, _, key), (_, other_label, pixels) in zip(rows, expected, strict=True):
                if label != other_label or not np.array_equal(image, pixels):
                    raise Wrong(f"{key.decode()} has another label or other pixels")


def _geotiff(data: bytes) -> tuple[bytes, str | None, tuple[float, ...]]:
    """Reads a GeoTIFF by GDAL, and by tifffile where that can, and demands that both find the same numbers."""
    import rasterio
    import tifffile

    try:
        with rasterio.io.MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            pixels, transform = dataset.read().transpose(1, 2, 0), tuple(dataset.transform)[:6]
            code = dataset.crs.to_epsg() if dataset.crs else None
            crs = f"EPSG:{code}" if code else dataset.crs.to_wkt()
    except Exception as error:
        raise Wrong(f"accepted, but GDAL cannot read it ({error.__cause__ or error})") from None
    with contextlib.suppress(Exception):
        other = tifffile.imread(io.BytesIO(data))
        if other.shape == pixels.shape and not np.array_equal(other, pixels):
            raise Wrong("GDAL and tifffile read different numbers")
    return pixels.astype("<u2").tobytes(), crs, transform


def _same_jpeg(data: bytes, card: cards.DataCard) -> None:
    """Demands that Pillow, TensorFlow and the builder's decoder read the same pixels."""
    import tensorflow as tf

    from tfrecords_builder.sources import decoding

    example = records.Example(data, 0, "a")
    pixels = {"the builder": decoding.decode_jpeg(data, "a", card.patch_size)}
    for name, read in (
        ("Pillow", lambda: records.decode_image(example, card)),
        ("TensorFlow", lambda: records.parse_batch(tf.constant([records.encode(example)]), card)["image"][0].numpy()),
    ):
        try:
            pixels[name] = read()
        except Exception as error:
            raise Wrong(f"accepted, but {name} cannot read it ({type(error).__name__}: {str(error)[:200]})") from None
    for name, found in pixels.items():
        if not np.array_equal(found, pixels["the builder"]):
            raise Wrong(f"{name} and the builder read different pixels")


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(base: pathlib.Path, scratch: pathlib.Path, *, tensorflow: bool) -> None:
    """Answers every line (family, number) of the standard input with the outcome, as JSON."""
    # Libraries print what they find strange; the answers must not get mixed up with that.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if tensorflow:
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        from eo_keras import pipelines  # noqa: F401
    worker = Worker(base, scratch)
    for name in FAMILIES:
        if FAMILIES[name].tensorflow <= tensorflow:
            worker.try_input(name, 0)  # Libraries are imported and take their memory now.
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(worker.try_input(*json.loads(line)))), file=answers, flush=True)


# The parent's side.


class _Process:
    """A worker process that is started anew when it has died or was ended for hanging."""

    def __init__(self, base: pathlib.Path, tensorflow: bool):
        self._command = [sys.executable, "-m", __spec__.name if __name__ == "__main__" else __name__]
        self._command += [f"--work={base}", *(["--tensorflow"] if tensorflow else [])]
        self._process: subprocess.Popen | None = None

    def ask(self, name: str, number: int) -> Outcome:
        mutator = list(FAMILIES[name].mutators)[number % len(FAMILIES[name].mutators)]
        if self._process is None:
            self._errors = tempfile.TemporaryFile("w+")
            environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
            )
            if self._answer(START_SECONDS) != "ready":
                raise RuntimeError(f"no worker could be started: {self._last_words()}")
        self._process.stdin.write(json.dumps([name, number]).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(INPUT_SECONDS)
        if answer is not None:
            return Outcome(**answer)
        hangs = self._process.poll() is None and not self._closed
        words = self._last_words()
        status = self.end()
        words = f"it hangs ({INPUT_SECONDS} s)" if hangs else f"the process died with status {status}: {words}"
        return Outcome(name, number, mutator, FAULT, words)

    def _answer(self, seconds: float):
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        self._closed = bool(ready) and not line
        return json.loads(line) if line else None

    def _last_words(self) -> str:
        self._errors.seek(0)
        return " ".join(self._errors.read()[-600:].split())

    def end(self) -> int | None:
        if self._process is None:
            return None
        process, self._process = self._process, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._closed:
                process.wait(5)
        process.kill()
        process.stdin.close()
        process.stdout.close()
        self._errors.close()
        return process.wait()


def run(total: int, data: pathlib.Path | None = None, report: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Tries so many inputs in two processes, one of which has TensorFlow.

    Args:
        total: number of inputs; more of them begin with the same ones.
        data: folder of real archives, or None for generated patches.
        report: called with every outcome.
    """
    outcomes: dict[tuple[str, int], Outcome] = {}

    def take(base: pathlib.Path, tensorflow: bool) -> None:
        process = _Process(base, tensorflow)
        try:
            for name, number in inputs(total):
                if FAMILIES[name].tensorflow == tensorflow:
                    outcomes[name, number] = outcome = process.ask(name, number)
                    if report:
                        report(outcome)
        finally:
            process.end()

    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        make_base(base, data)
        threads = [threading.Thread(target=take, args=(base, tensorflow)) for tensorflow in (False, True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [outcomes[key] for key in inputs(total) if key in outcomes]


def table(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Counts inputs by family, and in all: tried, refused, accepted and equal, faults."""
    counts = {name: collections.Counter() for name in (*FAMILIES, "all")}
    for outcome in outcomes:
        for name in (outcome.family, "all"):
            counts[name][outcome.result] += 1
    return {
        name: {"tried": found.total(), REFUSED: found[REFUSED], EQUAL: found[EQUAL], "faults": found[FAULT]}
        for name, found in counts.items()
    }


def lines(outcomes: list[Outcome]) -> Iterator[str]:
    """Yields the table's lines, and a line for every fault."""
    columns = ("tried", REFUSED, EQUAL, "faults")
    yield "input".ljust(30) + "".join(name.rjust(20) for name in columns)
    for name, counts in table(outcomes).items():
        yield name.ljust(30) + "".join(f"{counts[column]:>20,}" for column in columns)
    for outcome in outcomes:
        if outcome.result == FAULT:
            yield f"fault: {outcome.family}, number {outcome.number}, {outcome.mutator}: {outcome.words}"


def main() -> None:
    """Runs the command, or a worker of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations")
    parser.add_argument("--inputs", type=int, default=200, help="number of inputs")
    parser.add_argument("--data", type=pathlib.Path, help="folder of the real archives; default: generated patches")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write the table to")
    parser.add_argument("--verbose", action="store_true", help="show every input")
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--tensorflow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        with tempfile.TemporaryDirectory(dir=options.work) as scratch:
            work(options.work, pathlib.Path(scratch), tensorflow=options.tensorflow)
        return
    started = time.monotonic()
    show = (lambda outcome: print(*dataclasses.astuple(outcome), sep=" | ")) if options.verbose else None
    outcomes = run(options.inputs, options.data, show)
    print("\n".join(lines(outcomes)), f"\n{time.monotonic() - started:.1f} s")
    if options.output:
        patches = "real" if options.data else "generated"
        options.output.write_text(json.dumps({"patches": patches, "table": table(outcomes)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
