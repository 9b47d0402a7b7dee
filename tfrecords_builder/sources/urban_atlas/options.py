"""What records of tiles are built from, and how."""

from __future__ import annotations

import dataclasses

from eo_keras.errors import OptionError
from eo_keras.geo.scene_numbers import Told
from eo_keras.geo.scenes import SceneOptions
from eo_keras.legends import crosswalk
from tfrecords_builder.splits import split as splits
from tfrecords_builder.storage import output

DATASET = "urban_atlas"
"""Name of the data set on the command line and in the shards' names."""

SPLITS = ("city", "spatial")

_LARGEST = 4096


@dataclasses.dataclass(frozen=True)
class TileOptions:
    """What one tile is, and which are kept.

    Attributes:
        scene: how scenes are opened; `bands` names the bands of the records.
        legend: a name of `eo_keras.legends.crosswalk.CODE_MAPS`, or a JSON file, see there.
        roads: what becomes of narrow roads (code 12220), see `eo_keras.legends.crosswalk.ROADS`.
        label_year: the year of the land use where a file holds several; None takes the only one.
        size: height and width in pixels.
        stride: pixels from one tile to the next; None for `size`.
        min_labelled: tiles with a smaller share of pixels that have a class and are clear are left out.
        min_clear: tiles are left out of whose pixels with data a smaller share is clear: no cloud, shadow of one, or
            saturation.
    """

    scene: SceneOptions = SceneOptions()
    legend: str = "hsl4"
    roads: str = "merge"
    label_year: int | None = None
    size: int = 512
    stride: int | None = None
    min_labelled: float = 0.1
    min_clear: float = 0.5

    def __post_init__(self):
        """Refuses what cannot be."""
        if not 16 <= self.size <= _LARGEST:
            raise OptionError("tile_size", f"{self.size} pixels", f"16 to {_LARGEST}")
        if self.stride is not None and not 1 <= self.stride <= self.size:
            raise OptionError("stride", f"{self.stride} pixels", f"1 to the tile's {self.size}")
        if self.roads not in crosswalk.ROADS:
            raise OptionError("roads", f"'{self.roads}'", f"one of {', '.join(crosswalk.ROADS)}")
        for flag, share in (("min_labelled", self.min_labelled), ("min_clear", self.min_clear)):
            if not 0 <= share <= 1:
                raise OptionError(flag, f"{share:g}", "a share from 0 to 1")

    def of(self, told: Told | None) -> TileOptions:
        """Returns the options of a city, whose line in the list may say what its scenes' numbers mean."""
        if told is None:
            return self
        said = {"units": told.units, "offset": told.offset, "scale": told.scale, "told_first": told.first}
        return dataclasses.replace(self, scene=dataclasses.replace(self.scene, **said))

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return self.stride or self.size


@dataclasses.dataclass(frozen=True)
class TileBuildOptions:
    """What to build.

    Attributes:
        cities: the list of cities, see `tfrecords_builder.sources.urban_atlas.sites`.
        output_dir: the records folder to make; a path or a URL.
        tiles: what a tile is.
        split: who is train, val and test: method `city`, or `spatial` with `block_km`.
        shard_mb: size of a shard in megabytes (10^6 bytes).
        num_workers: number of processes.
        engine: one of `tfrecords_builder.storage.output.ENGINES`.
        beam_options: options of Apache Beam, such as `--runner=FlinkRunner`.
        overwrite: whether to replace a build, whole or unfinished, that is already in `output_dir`.
    """

    cities: str
    output_dir: str
    tiles: TileOptions = TileOptions()
    split: splits.SplitOptions = splits.SplitOptions(method="city")
    shard_mb: float = 64.0
    num_workers: int = 1
    engine: str = "local"
    beam_options: tuple[str, ...] = ()
    overwrite: bool = False

    def check(self) -> None:
        """Checks that the options can work together.

        Raises:
            OptionError: if they cannot; the flag is named.
        """
        output.check_work(
            shard_mb=self.shard_mb,
            num_workers=self.num_workers,
            engine=self.engine,
            beam_options=self.beam_options,
            paths=(self.output_dir,),
        )
        if self.split.method not in SPLITS:
            raise OptionError(
                f"`split={self.split.method}`",
                "neighbouring tiles, and overlapping ones, would lie on both sides",
                "`split=city`, or inside one city `split=spatial` with `block_km`",
            )
        if self.split.method == "spatial" and self.split.block_km is None:
            raise OptionError("`split=spatial`", "tiles are split in blocks", "`block_km=KILOMETRES`")
        if self.split.coordinates is not None:
            raise OptionError("coordinates", "tiles carry their own place", remedy="leave the flag out")
        splits.check_options(self.split)
