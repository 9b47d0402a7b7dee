"""Images with footprints of buildings, and with heights, cut into tiles.

Images and masks in two folders, as Inria publishes them (Maggiori, Tarabalka, Charpiat, Alliez: "Can Semantic Labeling
Methods Generalize to Any City?", IGARSS 2017); images on the ground with polygons; or images with a raster of heights,
as in the sample of Cao and Huang ("A deep learning method for building height estimation using high-resolution
multi-view imagery over urban areas", Remote Sensing of Environment 264, 2021).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Sequence

import numpy as np
import shapely

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo import reference_systems
from eo_keras.geo.rasterize import Rasterizer
from eo_keras.legends.catalogue import FOOTPRINTS, IGNORE
from eo_keras.records.data_card import Modality
from eo_keras.records.example import NO_DATA, VALID, PixelLabels
from eo_keras.sensors.catalogue import AERIAL, HEIGHT, METERS
from tfrecords_builder.sources.archive import Archive
from tfrecords_builder.sources.footprints import rasters
from tfrecords_builder.sources.footprints.layout import Group, find_groups
from tfrecords_builder.sources.footprints.options import CITY, POLYGONS, FootprintOptions
from tfrecords_builder.sources.footprints.rasters import Header
from tfrecords_builder.sources.items import Content, Item, Patch, sorted_by_key
from tfrecords_builder.sources.source import Facts
from tfrecords_builder.splits.types import TEST, TRAIN

HEIGHTS = "height"
"""Name of the modality of heights."""

_TYPES = ("uint8", "uint16")
_SAME_SIZE = 0.02
"""Largest relative difference of pixel sizes: in a projected grid they depend on the latitude."""


@dataclasses.dataclass(frozen=True)
class TileItem(Item):
    """One tile of an image.

    Attributes:
        name: the image's name.
        row: first row in the image.
        column: first column.
        header: what the image says of itself.
    """

    name: str = ""
    row: int = 0
    column: int = 0
    header: Header | None = None


@dataclasses.dataclass(frozen=True)
class Footprints:
    """Reader of images with footprints, see `tfrecords_builder.sources.patches.PatchReader`."""

    facts = Facts(
        name="footprints",
        task="segmentation",
        legend=FOOTPRINTS,
        sensor=AERIAL.name,
        split="published",
        examples="tiles",
    )
    Options = FootprintOptions

    def complete(self, options: FootprintOptions, items: Sequence[TileItem] = ()) -> Facts:
        """Returns the facts; type of numbers, place and pixel size are those of the images."""
        facts = dataclasses.replace(
            self.facts, bands=options.bands, patch_size=options.tile_size, distance=options.distance
        )
        if not items:
            return facts
        header = items[0].header
        facts = dataclasses.replace(
            facts,
            dtype=header.dtype,
            georeferenced=header.crs is not None,
            resolution_m=_pixel_size(header, options),
        )
        if options.height_files is None:
            return facts
        heights = Modality(HEIGHTS, HEIGHT.name, HEIGHT.bands, "float32", METERS, facts.resolution_m, facts.patch_size)
        # Networks of several inputs take each by its name; `image` is that of an only one.
        return dataclasses.replace(facts, modality=AERIAL.name, others=(heights,))

    def items(self, archive: Archive, options: FootprintOptions) -> list[TileItem]:
        """Lists the tiles of an archive's images, sorted by key.

        Raises:
            OptionError: if the bands' names, the size of tiles or of pixels do not fit the images.
            SourceError: if files do not belong together by name or by their grids, or an image is of another form.
        """
        groups = find_groups(archive, options.kinds)
        headers = [rasters.read_header(archive, group.members["image_files"].path) for group in groups]
        self._check_images(archive, options, groups, headers)
        for group, header in zip(groups, headers, strict=True):
            for kind in tuple(options.kinds)[1:]:
                _check_grid(archive, group, kind, header)
        if options.footprints_from == POLYGONS:
            _check_polygons(archive, options, groups, headers)
        beside = [os.stat(path) for path in self.files_beside(options)]
        stamps = [f"{status.st_size} {status.st_mtime_ns}" for status in beside]
        items = [
            dataclasses.replace(item, stamp=" ".join([item.stamp, *stamps]))
            for group, header in zip(groups, headers, strict=True)
            for item in _tiles(group, header, options)
        ]
        return sorted_by_key(archive.path, items)

    def _check_images(
        self, archive: Archive, options: FootprintOptions, groups: Sequence[Group], headers: Sequence[Header]
    ) -> None:
        """Checks that images have the bands that are named, and one type and pixel size."""
        first, bands = headers[0], options.bands
        for group, header in zip(groups, headers, strict=True):
            where = f"{archive.path}: {group.members['image_files'].path}"
            if header.bands != len(bands):
                raise OptionError(
                    "band_order",
                    f"{where} has {header.bands} bands, and {len(bands)} are named ({','.join(bands)})",
                    "the name of each band in stored order",
                    f"say `band_order={','.join(AERIAL.bands[: header.bands])}` in the order of the files"
                    if header.bands <= len(AERIAL.bands)
                    else f"write images of {', '.join(AERIAL.bands)}",
                )
            if header.dtype not in _TYPES:
                raise SourceError(where, f"numbers of type {header.dtype}", " or ".join(_TYPES), "write the images so")
            if header.dtype != first.dtype:
                raise SourceError(
                    where,
                    f"numbers of type {header.dtype}, and others of {first.dtype}",
                    "one type",
                    "write them alike",
                )
            if (header.crs is None) != (first.crs is None):
                lacks, has = (where, groups[0].key) if header.crs is None else (groups[0].key, where)
                raise SourceError(
                    lacks,
                    f"it has no place on the ground, and {has} has one",
                    "images that all have a CRS and a transform, or none",
                    "build two records folders, or georeference it by gdal_edit.py -a_srs -a_ullr",
                )
            size, expected = _pixel_size(header, options), _pixel_size(first, options)
            if abs(size / expected - 1) > _SAME_SIZE:
                raise SourceError(
                    where,
                    f"its pixels measure {size:.3g} m on the ground, those of {groups[0].key} {expected:.3g} m",
                    "one pixel size",
                    "bring them to one by gdalwarp -tr, or build two records folders",
                )
        largest = max(max(header.height, header.width) for header in headers)
        if largest < options.tile_size:
            raise OptionError(
                "tile_size",
                f"{options.tile_size}, and no image has more than {largest} pixels",
                f"{largest} at most",
                f"say `tile_size={largest}`",
            )

    def read(self, archive: Archive, item: TileItem, options: FootprintOptions) -> Patch:
        """Reads and checks one tile; a 0 of a pixel that holds data becomes 1, since 0 in all bands means no data.

        Raises:
            SourceError: if a file is damaged, or a mask holds another number than those of the options.
        """
        place, size = (item.row, item.column, options.tile_size), (options.tile_size, options.tile_size)
        pixels, seen = rasters.read_window(archive, item.member, *place)
        pixels = np.where(seen[..., None], np.maximum(pixels, 1), 0).astype(pixels.dtype)
        others = {}
        for name, member in item.others:
            heights, valid = rasters.read_window(archive, member, *place)
            others[name] = np.where(valid[..., None] & np.isfinite(heights), heights, np.nan).astype("<f4")
            seen = seen | np.isfinite(others[name][..., 0])
        if item.mask:
            mask = _labels(archive, item, options)
        elif options.footprints_from == POLYGONS:
            grid = item.header.grid.window(item.row, item.column, *size)
            mask = _rasterizer(archive, options.polygons, grid.crs).rasterize(grid)
        else:
            heights = others[HEIGHTS][..., 0]
            mask = np.where(np.isfinite(heights), heights > 0, IGNORE).astype(np.uint8)
        mask[item.header.height - item.row :] = IGNORE
        mask[:, item.header.width - item.column :] = IGNORE
        validity = np.where(seen, VALID, NO_DATA).astype(np.uint8)
        tile = PixelLabels(mask, validity, item.site, "", item.name)
        stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
        content = Content(stored, tile, {name: heights.tobytes() for name, heights in others.items()})
        if item.header.grid is None:
            return Patch(content, pixels)
        transform = item.header.grid.window(item.row, item.column, *size).transform
        return Patch(content, pixels, item.header.crs, tuple(map(float, transform)))

    def content(self, archive: Archive, item: TileItem, options: FootprintOptions) -> Content:
        """Returns the content of a tile's record.

        Raises:
            SourceError: see `read`.
        """
        return self.read(archive, item, options).content

    def warnings(self, where: str, means: np.ndarray, count: int) -> tuple[str, ...]:
        """Returns none: the bands' means are not known."""
        return ()

    def files_beside(self, options: FootprintOptions) -> tuple[str, ...]:
        """Returns the file of polygons, where there is one."""
        return () if options.polygons is None else (options.polygons,)


def _pixel_size(header: Header, options: FootprintOptions) -> float:
    """Returns the size of a pixel on the ground in meters."""
    if header.grid is not None:
        width, height = reference_systems.pixel_on_ground(header.grid)
        # To a millimeter: more is known of no grid.
        return round(math.sqrt(width * height), 3)
    if options.pixel_size_m is None:
        raise OptionError(
            "pixel_size_m",
            "it is missing, and the images have no place on the ground",
            "the size of a pixel in meters",
            "say `pixel_size_m=0.3` for Inria's aerial images",
        )
    return options.pixel_size_m


def _check_grid(archive: Archive, group: Group, kind: str, image: Header) -> None:
    """Checks that a mask or a raster of heights has one band and lies on its image's grid."""
    member = group.members[kind].path
    header, where = rasters.read_header(archive, member), f"{archive.path}: {member}"
    if not header.lies_on(image):
        raise SourceError(
            where,
            f"its grid, {header}, is not that of {group.members['image_files'].path}, {image}",
            "the image's grid",
            "bring it there by gdalwarp -t_srs -te -ts",
        )
    if kind == "height_files" and header.bands != 1:
        raise SourceError(where, f"{header.bands} bands", "one, the height in meters", "write it so")


def _check_polygons(
    archive: Archive, options: FootprintOptions, groups: Sequence[Group], headers: Sequence[Header]
) -> None:
    """Checks that images have a place on the ground, and that the polygons lie on some of them."""
    if headers[0].grid is None:
        raise SourceError(
            f"{archive.path}: {groups[0].members['image_files'].path}",
            "it has no place on the ground (no CRS or no transform)",
            "georeferenced images, where footprints are polygons",
            "georeference it by gdal_edit.py -a_srs -a_ullr, or burn the polygons into masks",
        )
    for crs in sorted({header.crs for header in headers}):
        extent = shapely.box(*_rasterizer(archive, options.polygons, crs).bounds)
        if any(extent.intersects(shapely.box(*header.grid.bounds)) for header in headers if header.crs == crs):
            return
    raise SourceError(
        options.polygons,
        f"its polygons lie on none of the {len(headers):,} images",
        f"footprints of the buildings in {groups[0].key} and the others",
        "check its coordinate reference system, and that of the images",
    )


@functools.lru_cache(maxsize=4)
def _rasterizer(archive: Archive, path: str, crs: str) -> Rasterizer:
    """Reads polygons and brings them to a CRS; once for each process and build, as archives are opened."""
    found = vectors.reprojected(vectors.read_polygons(path, None), crs)
    return Rasterizer(found.geometries, np.ones(len(found), np.uint8), fill=0)


def _starts(length: int, options: FootprintOptions) -> list[int]:
    """Returns where tiles start along an axis.

    They reach from edge to edge, at even distances of at most the stride: where the length is no multiple of the
    tile's, they overlap a little, rather than that the last one shows a strip of the image beside nothing. Of a shorter
    axis, one tile reaches beyond the edge.
    """
    spare = length - options.tile_size
    if spare <= 0:
        return [0]
    gaps = math.ceil(spare / options.step)
    return [round(number * spare / gaps) for number in range(gaps + 1)]


def _tiles(group: Group, header: Header, options: FootprintOptions) -> list[TileItem]:
    """Returns the tiles of an image, see `_starts`."""
    rows, columns = (_starts(length, options) for length in (header.height, header.width))
    members = group.members
    mask, heights = (members[kind].path if kind in members else "" for kind in ("mask_files", "height_files"))
    site = group.name
    if options.sites == CITY:
        site = re.match(r"\D*", group.name)[0].strip("_- .") or group.name
    split = group.split
    if options.first_for_test:
        number = re.search(r"\d+", group.name)
        split = TEST if number and int(number[0]) <= options.first_for_test else TRAIN
    return [
        TileItem(
            key=group.key if len(rows) == len(columns) == 1 else f"{group.key}-{row:05d}-{column:05d}",
            class_name="",
            member=members["image_files"].path,
            bytes=sum(member.bytes for member in members.values()),
            stamp=" ".join(member.stamp for member in members.values()),
            mask=mask,
            split=split,
            others=((HEIGHTS, heights),) if heights else (),
            site=site,
            name=group.name,
            row=row,
            column=column,
            header=header,
        )
        for row in rows
        for column in columns
    ]


def _labels(archive: Archive, item: TileItem, options: FootprintOptions) -> np.ndarray:
    """Reads the labels of a tile, uint8 (height, width).

    Raises:
        SourceError: if the mask holds another number than those of the options, or its bands differ.
    """
    numbers, _ = rasters.read_window(archive, item.mask, item.row, item.column, options.tile_size)
    where = f"{archive.path}: {item.mask}"
    if (numbers != numbers[..., :1]).any():
        raise SourceError(
            where, f"its {numbers.shape[-1]} bands differ", "one band, or equal ones", "write the mask with one band"
        )
    numbers = numbers[..., 0]
    label_of = {0: 0, options.building_value: 1}
    if options.unknown_value is not None:
        label_of[options.unknown_value] = IGNORE
    if strange := sorted(set(np.unique(numbers).tolist()) - set(label_of)):
        raise SourceError(
            where,
            f"the number {strange[0]:g}",
            f"0 (background) and {options.building_value} (building)"
            + (f", {options.unknown_value} where it is not known" if options.unknown_value is not None else ""),
            f"say `building_value={strange[0]:g}` or `unknown_value={strange[0]:g}` if it means that, or write the "
            "mask again",
        )
    labels = np.zeros(numbers.shape, np.uint8)
    for number, label in label_of.items():
        labels[numbers == number] = label
    return labels
