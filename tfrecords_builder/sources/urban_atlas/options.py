"""Options of tiles that are cut from scenes, with land use as their labels."""

from __future__ import annotations

import dataclasses

from eo_keras.core.options import check, documented, option
from eo_keras.geo.scene_numbers import UserScaling
from eo_keras.geo.scene_options import SceneReadingOptions
from eo_keras.geo.scenes import SceneOptions
from eo_keras.legends import crosswalk
from eo_keras.sensors import sentinel2
from tfrecords_builder.sources import options


@documented
@dataclasses.dataclass(frozen=True)
class UrbanAtlasOptions(SceneReadingOptions):
    """Options of Urban Atlas: the cities, the tiles, and which tiles are kept."""

    cities: str | None = option(
        None, path=True, help="CSV file of the cities, with the header name,scenes,vectors,split,area."
    )
    legend: str = option(
        "hsl4",
        path=True,
        help=f"What the codes of land use become: {', '.join(crosswalk.CODE_MAPS)}, or a JSON file of classes and "
        "their codes.",
    )
    roads: str = option(
        "merge",
        choices=crosswalk.ROADS,
        help="Label of narrow roads (12220), about a pixel wide. merge: they take the class of what lies beside them. "
        "ignore: no class. keep: the class that the legend gives them.",
    )
    label_year: int | None = option(None, help="Year of the land use, where a file holds several.")
    bands: str = option("all", help="Bands of the records: RGB, CI, SWIR, all, or names such as B04,B8A.")
    tile_size: int = options.tile_size()
    stride: int | None = options.stride()
    min_labeled_fraction: float = option(
        0.1,
        minimum=0,
        maximum=1,
        aliases=("min_labelled",),
        help="Tiles with a smaller fraction of pixels that have a class and are clear are left out.",
    )
    min_valid_fraction: float = option(
        0.5,
        minimum=0,
        maximum=1,
        aliases=("min_clear",),
        help="Tiles are left out of whose pixels with data a smaller fraction is clear: no cloud, shadow of one, or "
        "saturation.",
    )

    def __post_init__(self):
        """Checks the values, alone and together."""
        check(self)
        options.check_stride(self.stride, self.tile_size)
        _ = self.scene

    @property
    def scene(self) -> SceneOptions:
        """Options of opening scenes."""
        return self.scene_options(None if self.bands.strip().lower() == "all" else sentinel2.parse_bands(self.bands))

    def scene_of(self, scaling: UserScaling | None) -> SceneOptions:
        """Returns the options of opening a city's scenes, with the scaling of its line in the list."""
        if scaling is None:
            return self.scene
        return dataclasses.replace(
            self.scene, units=scaling.units, offset=scaling.offset, scale=scaling.scale, override_metadata=scaling.first
        )

    @property
    def step(self) -> int:
        """Distance of neighboring tiles in pixels."""
        return self.stride or self.tile_size
