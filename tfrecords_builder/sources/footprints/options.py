"""Options of footprints: which files belong together, the tiles, the labels and their distances."""

from __future__ import annotations

import dataclasses

from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError
from eo_keras.geo import scene_options
from eo_keras.legends.catalogue import FOOTPRINTS
from eo_keras.records.targets import DistanceClasses
from eo_keras.sensors.catalogue import AERIAL
from tfrecords_builder.sources import options
from tfrecords_builder.sources.footprints import layout

MASKS, POLYGONS, HEIGHTS = "masks", "polygons", "heights"
CITY, IMAGE = "city", "image"

BUILDING = FOOTPRINTS.class_names[1]
"""The class whose outlines distances are measured from."""


@documented
@dataclasses.dataclass(frozen=True)
class FootprintOptions:
    """Options of images with footprints of buildings."""

    source: str | None = options.archive()
    footprints_from: str = option(
        MASKS,
        choices=(MASKS, POLYGONS, HEIGHTS),
        help="Where the footprints come from. masks: files of `mask_files`. polygons: those of `polygons`. heights: "
        "where the files of `height_files` are above 0.",
    )
    image_files: str = option(
        "images/*",
        help="Names of the images (GeoTIFF or PNG, uint8 or uint16): a folder at any depth and a name. * is the part "
        "of the name by which an image and its other files belong together.",
    )
    mask_files: str = option("gt/*", help="Names of the masks, likewise: one band, 0 where there is no building.")
    height_files: str | None = option(
        None, help="Names of rasters of the height above ground in meters, likewise, which become a second modality."
    )
    polygons: str | None = option(
        None,
        path=True,
        help="Footprints as GeoJSON, GeoPackage or other vectors, for images with a place on the ground.",
    )
    building_value: int = option(255, minimum=1, maximum=255, help="Number of buildings in masks.")
    unknown_value: int | None = option(
        None, minimum=1, maximum=255, help="Number of pixels in masks of which it is not known. Default: none."
    )
    band_order: str | None = scene_options.band_order()
    pixel_size_m: float | None = option(
        None, above=0, help="Pixel size in meters of images without a place on the ground."
    )
    tile_size: int = options.tile_size()
    stride: int | None = options.stride()
    sites: str = option(
        CITY,
        choices=(CITY, IMAGE),
        help="What `split=city` keeps together. city: images whose names are alike up to the first digit, as austin1 "
        "and austin2. image: the tiles of each image.",
    )
    first_for_test: int = option(
        0,
        minimum=0,
        help="With `split=published`, images whose names hold a number up to this one are for testing; 5 is what is "
        "published for Inria's. 0: splits are those of the folders.",
    )
    distance_truncation: float = option(
        20.0, above=0, help="Distance in pixels from the outlines from which on all is one class."
    )
    distance_classes: int = option(
        11, minimum=0, help="Number of classes of the distance from the outlines, odd; 0 for none."
    )

    def __post_init__(self):
        """Checks the values, alone and together."""
        check(self)
        options.check_stride(self.stride, self.tile_size)
        _ = self.distance, self.bands, [layout.pattern(kind, text) for kind, text in self.kinds.items()]
        for name, kind in (("polygons", POLYGONS), ("height_files", HEIGHTS)):
            if self.footprints_from == kind and getattr(self, name) is None:
                raise OptionError(name, "it is missing", f"what `footprints_from={kind}` needs")
        if self.polygons is not None and self.footprints_from != POLYGONS:
            raise OptionError(
                "polygons",
                f"they do not apply to `footprints_from={self.footprints_from}`",
                "`footprints_from=polygons`",
            )
        if self.unknown_value == self.building_value:
            raise OptionError("unknown_value", f"{self.unknown_value}", "another number than `building_value`")

    @property
    def kinds(self) -> dict[str, str]:
        """Patterns of the files by the options' names, the images first."""
        kinds = {"image_files": self.image_files}
        if self.footprints_from == MASKS:
            kinds["mask_files"] = self.mask_files
        if self.height_files is not None:
            kinds["height_files"] = self.height_files
        return kinds

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands in stored order."""
        return AERIAL.parse_bands(self.band_order or "RGB")

    @property
    def distance(self) -> DistanceClasses | None:
        """Classes of distances; None for none."""
        if not self.distance_classes:
            return None
        return DistanceClasses(self.distance_truncation, self.distance_classes, BUILDING)

    @property
    def step(self) -> int:
        """Distance of neighboring tiles in pixels."""
        return self.stride or self.tile_size
