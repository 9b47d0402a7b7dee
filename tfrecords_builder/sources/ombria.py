"""Sentinel-2 images of OMBRIA: 256x256 pixels before and after floods, with masks of flooded pixels.

Drakonakis, Tsagkatakis, Fotiadou, Tsakalides: "OmbriaNet: Supervised Flood Mapping via Convolutional Neural Networks
Using Multitemporal Sentinel-1 and Sentinel-2 Data Fusion", IEEE JSTARS 15, 2022. The masks come from the Copernicus
Emergency Management Service. The archive holds PNGs of three 8-bit numbers a pixel and says neither which bands they
are nor how they relate to reflectance; the options name the bands, and the card keeps reflectance unknown.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import NamedTuple

import numpy as np

from eo_keras.core.options import check, documented
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scene_options, scenes
from eo_keras.legends.catalogue import FLOOD
from eo_keras.records import example as records
from eo_keras.records.example import NO_DATA, VALID
from eo_keras.sensors import sentinel2
from tfrecords_builder.sources import image_decoding, options
from tfrecords_builder.sources.archive import Archive, Member
from tfrecords_builder.sources.items import Item, Patch, members_of, nothing_found, sorted_by_key
from tfrecords_builder.sources.source import Facts

_SIZE = 256
_CHANNELS = 3
_IMAGES, _MASKS = "AFTER", "MASK"
_KINDS = rf"(?P<kind>{_IMAGES}|{_MASKS})/(?P<name>[^/]+)"
_LAYOUTS = (
    re.compile(rf"(?P<root>(?:.*/)?)(?P<split>train|val|test)(?P<event>)/{_KINDS}"),
    re.compile(rf"(?P<root>(?:.*/)?)(?P<split>)(?P<event>[^/]+)/Sentinel2/{_KINDS}"),
    re.compile(rf"(?P<root>)(?P<split>)(?P<event>)Sentinel2/{_KINDS}"),
)
"""The published splits; the floods of 2021, by event; one of these events' folders."""

_NAME_OF = {
    _IMAGES: re.compile(r"(?:S2_after|imafter)_(?P<rest>[^/]+)\.png", re.IGNORECASE),
    _MASKS: re.compile(r"(?:S2_mask|gt)_(?P<rest>[^/]+)\.png", re.IGNORECASE),
}
"""Patterns of the names of images and masks; `rest` is equal for an image and its mask."""

_OTHER_SENSOR = "OmbriaS1/"
_CLASS_OF = {0: 0, 255: 1}
"""Label of each number in a mask."""

_LAYOUT = (
    f"OmbriaS2/<train or test>/{_IMAGES}/S2_after_<n>.png and {_MASKS}/S2_mask_<n>.png, or "
    f"2021/<event>/Sentinel2/{_IMAGES}/imafter_<n>.png and {_MASKS}/gt_<n>.png"
)


class _Place(NamedTuple):
    """Place of an image and its mask: split, event, and `rest` of their names."""

    split: str
    event: str
    rest: str


def _layout(archive: Archive) -> list[tuple[Member, re.Match[str]]]:
    """Returns the images and masks of an archive by its layout; of several, the first one."""
    members = [member for member in members_of(archive) if _OTHER_SENSOR not in f"/{member.path}"]
    for layout in _LAYOUTS:
        found = [(member, match) for member in members if (match := layout.fullmatch(member.path))]
        roots = sorted({match["root"] for _, match in found})
        if len(roots) > 1:
            raise SourceError(
                archive.path, f"it holds the data set twice, in {roots[0] or './'} and {roots[1]}", "once", "name one"
            )
        if any(match["kind"] == _IMAGES for _, match in found):
            return found
    raise nothing_found(
        archive.path,
        [member.path for member in members_of(archive)],
        "it holds no images after a flood",
        _LAYOUT,
        "give the archive of OMBRIA with its Sentinel-2 images",
    )


@documented
@dataclasses.dataclass(frozen=True)
class OmbriaOptions:
    """Options of OMBRIA, which does not say which bands its PNGs show."""

    source: str | None = options.archive()
    band_order: str | None = scene_options.band_order()
    scene_level: str | None = scene_options.scene_level()

    def __post_init__(self):
        """Checks types."""
        check(self)


@dataclasses.dataclass(frozen=True)
class Ombria:
    """Reader of the images after the flood, with their masks; see `tfrecords_builder.sources.patches.PatchReader`.

    Attributes:
        facts: facts about the images. Their pixel size is that of Sentinel-2's finest bands; there is no transform to
            check it.
    """

    facts: Facts

    Options = OmbriaOptions

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and bands of an image."""
        return self.facts.patch_size, self.facts.patch_size, _CHANNELS

    def complete(self, options: OmbriaOptions) -> Facts:
        """Returns the facts with the user's names of the bands and level.

        Raises:
            OptionError: if one of them is missing, or there are more or fewer than three names.
        """
        if options.band_order is None or options.scene_level is None:
            raise OptionError(
                "`band_order` and `scene_level`",
                f"{self.facts.name} does not say which bands its PNGs show",
                "the names of three bands in stored order, and L1C or L2A",
                "say `band_order=B11,B08,B03` `scene_level=L2A` if you take them for shortwave infrared, near "
                "infrared and green",
            )
        bands = scenes.parse_band_order(options.band_order)
        if len(bands) != _CHANNELS:
            raise OptionError("band_order", f"{len(bands)} names", f"{_CHANNELS}, one a channel of the PNGs")
        sentinel2.parse_bands(",".join(bands))
        return dataclasses.replace(self.facts, bands=bands, level=options.scene_level)

    def items(self, archive: Archive) -> list[Item]:
        """Lists the images of an archive with their masks, sorted by key.

        Args:
            archive: a zip or folder that holds OmbriaS2 or the floods of 2021, at any depth, or what is in them.

        Raises:
            SourceError: if there are none, one lacks its mask or is none of the data set's, or two have one key.
        """
        found: dict[str, dict[_Place, Member]] = {_IMAGES: {}, _MASKS: {}}
        for member, match in _layout(archive):
            kind = match["kind"].upper()
            named = _NAME_OF[kind].fullmatch(match["name"])
            if named is None:
                raise SourceError(
                    f"{archive.path}: {member.path}",
                    "this is no image of the data set by its name",
                    _LAYOUT,
                    "move it out of the data set's folders, or name it as the others are",
                )
            place = _Place(match["split"] or "", match["event"] or "", named["rest"])
            if (other := found[kind].setdefault(place, member)) is not member:
                raise SourceError(
                    archive.path,
                    f"{other.path} and {member.path} are both number {place.rest} of {kind}",
                    "one file each",
                    "move one of them out of the data set's folders",
                )
        for kind, other in ((_IMAGES, _MASKS), (_MASKS, _IMAGES)):
            if lone := [member for place, member in found[kind].items() if place not in found[other]]:
                raise SourceError(
                    f"{archive.path}: {lone[0].path}",
                    f"no file of the same name beside it in {other}; {len(lone):,} in {kind} lack theirs",
                    _LAYOUT,
                    "copy or download the source again, or move what has no counterpart out",
                )
        items = [
            Item(
                key="_".join(filter(None, (place.event, pathlib.PurePosixPath(image.path).stem))),
                class_name="",
                member=image.path,
                bytes=image.bytes + found[_MASKS][place].bytes,
                stamp=f"{image.stamp} {found[_MASKS][place].stamp}",
                mask=found[_MASKS][place].path,
                split=place.split,
            )
            for place, image in found[_IMAGES].items()
        ]
        return sorted_by_key(archive.path, items)

    def read(self, archive: Archive, item: Item) -> Patch:
        """Reads and checks one image and its mask; numbers of 0 beside others that are not become 1.

        Raises:
            SourceError: if one is damaged or not of the form that the data set has, or the mask holds another number
                than 0 (dry) and 255 (flooded).
        """
        shape = self.shape[:2]
        pixels = image_decoding.decode_png(archive.read(item.member), f"{archive.path}: {item.member}", self.shape)
        where = f"{archive.path}: {item.mask}"
        numbers = image_decoding.decode_png(archive.read(item.mask), where, shape)
        if strange := sorted(set(np.unique(numbers).tolist()) - set(_CLASS_OF)):
            raise SourceError(
                where,
                f"the number {strange[0]}",
                "0 (dry) and 255 (flooded)",
                "write the mask again, or move it and its image out of the source",
            )
        mask = np.zeros(shape, np.uint8)
        for number, label in _CLASS_OF.items():
            mask[numbers == number] = label
        known = (pixels != self.facts.nodata).any(axis=-1)
        validity = np.where(known, VALID, NO_DATA).astype(np.uint8)
        # Dark water is 0 in single bands, and must not be taken for a hole.
        pixels[known] = np.maximum(pixels[known], self.facts.nodata + 1)
        return Patch(pixels.tobytes(), pixels, tile=records.PixelLabels(mask, validity, "", "", ""))

    def read_stored(self, archive: Archive, item: Item) -> tuple[bytes, records.PixelLabels]:
        """Returns the image and labels of an image's record.

        Raises:
            SourceError: see `read`.
        """
        patch = self.read(archive, item)
        return patch.stored, patch.tile

    def pixels(self, stored: bytes, where: str) -> np.ndarray:
        """Decodes a record's image to numbers (height, width, bands)."""
        return np.frombuffer(stored, np.uint8).reshape(self.shape)

    def warnings(self, where: str, means: np.ndarray, count: int) -> tuple[str, ...]:
        """Returns none: the bands' means are not known."""
        return ()


SENTINEL2 = Ombria(
    Facts(
        name="ombria_s2",
        task="segmentation",
        legend=FLOOD,
        dtype="uint8",
        patch_size=_SIZE,
        split="published",
        attribution="OMBRIA, Drakonakis et al. (2022), doi:10.1109/JSTARS.2022.3155559; flood masks of the Copernicus "
        "Emergency Management Service; contains modified Copernicus Sentinel data",
    )
)
