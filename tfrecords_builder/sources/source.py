"""Protocol of a data set that records are built from: facts, options, and the steps that depend on it.

A build lists a source, looks at what its records will be (preflight), scans its units, gathers what the units have
found, splits and plans that, and writes shards of the source's examples. `tfrecords_builder.build` does all that is the
same for every source.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eo_keras.errors import RecordsError, SourceError
from eo_keras.legends.catalogue import Legend
from eo_keras.records import data_card as cards
from eo_keras.records import tfrecord
from eo_keras.records.targets import DistanceClasses
from eo_keras.sensors.catalogue import DIGITAL_NUMBERS, SENTINEL2
from eo_keras.sensors.radiometry import Reflectance
from tfrecords_builder.splits.types import Patches, SplitOptions

DIGEST_BYTES = 16


def digest(data: bytes) -> bytes:
    """Returns a 16-byte hash: SHA-256, for which processors have instructions, cut short."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher describes it: name, URL, size in bytes and MD5 (the checksum that Zenodo gives)."""

    name: str
    url: str
    bytes: int
    md5: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a source and its records; those that depend on options or files are empty until the preflight.

    Attributes:
        name: name of the data set, also the beginning of the shards' names.
        task: name of the task that the labels are for.
        legend: the classes.
        bands: names of the bands in stored order.
        dtype: type of the stored numbers.
        encoding: `jpeg` or `raw`, see `eo_keras.records.data_card.DataCard`.
        level: Sentinel-2 processing level.
        reflectance: relation of the stored numbers to reflectance; None where it is not known.
        nodata: the number that means "no data".
        patch_size: height and width of an image in pixels.
        resolution_m: pixel size in meters.
        georeferenced: whether every image has a CRS and a transform.
        attribution: whom to name when the data or a model trained on it is published.
        version: version of the records' content.
        published: the archive that `launch.download` fetches, or None.
        split: its default method of splitting.
        shard_mb: size of a shard in megabytes (10^6 bytes) where nothing is said.
        examples: name of its examples.
        modality: name of the first modality of its images.
        sensor: its sensor, see `eo_keras.sensors.catalogue`.
        units: the units of its numbers.
        others: the further modalities.
        distance: classes of distances that are computed from masks and stored beside them; None for none.
    """

    name: str
    task: str = ""
    legend: Legend = Legend("", ())
    bands: tuple[str, ...] = ()
    dtype: str = ""
    encoding: str = "raw"
    level: str = ""
    reflectance: Reflectance | None = None
    nodata: int = 0
    patch_size: int = 0
    resolution_m: float = 10.0
    georeferenced: bool = False
    attribution: str = ""
    version: str = "1.0.0"
    published: PublishedFile | None = None
    split: str = "random"
    shard_mb: float = 16.0
    examples: str = "patches"
    modality: str = cards.IMAGE
    sensor: str = SENTINEL2.name
    units: str = DIGITAL_NUMBERS
    others: tuple[cards.Modality, ...] = ()
    distance: DistanceClasses | None = None

    @property
    def modalities(self) -> tuple[cards.Modality, ...]:
        """All modalities, the first one first, without statistics."""
        return cards.Modality.first_of(self), *self.others

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and number of bands of an image."""
        return self.patch_size, self.patch_size, len(self.bands)


@dataclasses.dataclass(frozen=True)
class Context:
    """Values that all units of work of a build share.

    Attributes:
        source: the source.
        options: its options, checked.
        state_dir: folder of the build's state.
        opening: identifier of this build; a long-lived worker opens files once for each.
    """

    source: Source
    options: Any
    state_dir: str
    opening: str


class Unit(Protocol):
    """Unit of the scan; its length is the expected number of its examples.

    Attributes:
        inputs: its input files, by the names of `Listing.stamps`.
    """

    inputs: tuple[str, ...]

    def __len__(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Listing:
    """Listing of a source's files by names, sizes and times, before any is read.

    Attributes:
        description: the options and other values that change the records' bytes, without the inputs' content.
        stamps: for each input, a value that changes with it, such as its size and time.
        entries: the source's own list of its content.
        made_from: for an input, prefixes of the names of the state's files that are made from it.
    """

    description: Mapping[str, Any]
    stamps: Mapping[str, Any]
    entries: Sequence[Any]
    made_from: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Preflight:
    """Result of the preflight, before the scan.

    Attributes:
        facts: the source's facts, complete.
        units: the units to scan.
        candidates: the possible examples, by which a split is checked before the scan; None where they are known
            only after the scan.
        products: Sentinel-2 product identifiers, where known.
        warnings: lines for the user.
        details: whatever else the source needs later.
    """

    facts: Facts
    units: Sequence[Unit]
    candidates: Patches | None = None
    products: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Any = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """The N examples of a scan; parallel sequences.

    Attributes:
        patches: the input of the split.
        places: place of each for `Source.examples`; small, since they are pickled.
        bytes: int64 (N,), size of each one's stored image, in bytes.
        digests: uint8 (N, 16), hashes to detect a changed source.
        class_pixels: int64 (N, classes), clear pixels of each class; None where an example has one class.
        method: the card's entries on their choice, beside the split.
        warnings: lines for the user.
        missing: bool (N,) by modality, which examples lack it; modalities that none lacks may be left out.
    """

    patches: Patches
    places: Sequence[Any]
    bytes: np.ndarray
    digests: np.ndarray
    class_pixels: np.ndarray | None = None
    method: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    missing: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def counts(self, positions: Sequence[int], legend: Legend) -> dict[str, int]:
        """Counts examples, or their clear pixels, by class."""
        names = legend.class_names
        if self.class_pixels is None:
            classes = [self.patches.classes[position] for position in positions]
            return {name: classes.count(name) for name in names}
        return dict(zip(names, self.class_pixels[list(positions)].sum(axis=0).tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class PlannedExample:
    """An example to write: its key, its place in the source, and the hash of its content at the scan."""

    key: str
    place: Any
    digest: bytes


@dataclasses.dataclass(frozen=True)
class RecordPlace:
    """Place of a record: name of its file, offset and length in bytes, framing included."""

    file: str
    offset: int
    length: int


def read_planned(path: str, planned: PlannedExample) -> bytes | None:
    """Reads the record of a planned example from its file; None where its hash has changed since the scan."""
    with contextlib.suppress(RecordsError, FileNotFoundError):
        record = tfrecord.read_record_at(path, planned.place.offset, planned.place.length)
        if digest(record) == planned.digest:
            return record
    return None


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An encoded example.

    Attributes:
        record: the serialized `tf.train.Example`.
        pixels: returns its numbers of the first modality (height, width, bands), and its validity (height, width) or
            None; called where they are counted for the statistics.
        others: returns the numbers of the further modalities by name, those that it lacks left out; called likewise.
    """

    record: bytes
    pixels: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    others: Callable[[], Mapping[str, np.ndarray]] = dict


class RunUnits(Protocol):
    """Function that runs units of work on the build's engine."""

    def __call__(self, function: Callable[[Context, Any], None], units: Sequence[Any], stage: str) -> None:
        """Does all units.

        Args:
            function: does one unit's work, at the top level of a module.
            units: the units.
            stage: its name for progress.
        """


class Source(Protocol):
    """Protocol of a data set that records are built from. Must be picklable.

    Attributes:
        facts: facts that are known without its files.
        Options: frozen dataclass of its options, see `eo_keras.core.options`; the first one is its path.
        scanning: name of its scan for progress.
        cuts: whether the scan writes the records themselves into the build's state. Then a dry run ends before the
            scan, and what has been scanned is kept when a file is refused.
    """

    facts: Facts
    Options: type
    scanning: str
    cuts: bool

    def checked(self, options: Any, split: SplitOptions) -> Any:
        """Returns its options with absolute paths.

        Raises:
            OptionError: if the options cannot work together.
        """

    def prepare(self, options: Any, opening: str) -> None:
        """Opens files in a worker process, before its first unit."""

    def list(self, context: Context, split: SplitOptions) -> Listing:
        """Lists its files; quick, reads no image.

        Raises:
            SourceError: if it cannot be used.
        """

    def preflight(self, context: Context, listing: Listing, run: RunUnits) -> Preflight:
        """Determines the properties of the records, before the scan.

        Raises:
            SourceError: if it cannot be used.
        """

    def scan(self, context: Context, unit: Unit) -> None:
        """Reads and checks a unit and stores the result in the build's state, unless it is there.

        Raises:
            SourceError: if a part of it is damaged or not of the data set's form.
        """

    def is_scanned(self, context: Context, unit: Unit) -> bool:
        """Tells whether the state holds the result of a unit's scan."""

    def gather(self, context: Context, listing: Listing, preflight: Preflight) -> Rows:
        """Returns the examples that were scanned, checked.

        Raises:
            SourceError: if a result is lost, or all of them do not fit together.
        """

    def examples(self, context: Context, facts: Facts, planned: Sequence[PlannedExample]) -> Iterator[Encoded]:
        """Yields examples in the order of the plan.

        Raises:
            SourceError: if one has changed since the scan.
        """

    def files(self, context: Context, preflight: Preflight, rows: Rows) -> Sequence[cards.SourceFile]:
        """Returns the files that the records are made from, for the card.

        Raises:
            SourceError: if one has changed since it was listed.
        """

    def expected_size(self, options: Any) -> ExpectedSize | None:
        """Estimates the size of a build; None if it is known only after the scan."""


@dataclasses.dataclass(frozen=True)
class ExpectedSize:
    """Disk space that a build needs.

    Attributes:
        patches: number of records.
        shard_bytes: size of all shards together.
        bytes: largest size of the output folder at any time.
    """

    patches: int
    shard_bytes: int
    bytes: int


def lost(path: str, found: str) -> SourceError:
    """Returns the error for a missing file of the state."""
    remedy = "keep other programs out of the output folder, and run the same command again"
    return SourceError(path, found, remedy=remedy)
