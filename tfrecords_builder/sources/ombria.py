"""OMBRIA: images of Sentinel-1 and Sentinel-2 before and after floods, 256x256 pixels, with masks of flooded pixels.

Drakonakis, Tsagkatakis, Fotiadou, Tsakalides: "OmbriaNet: Supervised Flood Mapping via Convolutional Neural Networks
Using Multitemporal Sentinel-1 and Sentinel-2 Data Fusion", IEEE JSTARS 15, 2022. The masks come from the Copernicus
Emergency Management Service. The archive holds PNGs of 8-bit numbers, three a pixel of Sentinel-2, one of Sentinel-1,
and says neither which bands and polarization they are nor how they relate to reflectance and backscatter; the options
name the bands, and the card keeps reflectance unknown. The data set `ombria_s2` has Sentinel-2 after the flood alone.
Both sensors have the same masks; those of Sentinel-2 are read where they are there.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scene_options, scenes
from eo_keras.legends.catalogue import FLOOD
from eo_keras.records import example as records
from eo_keras.records.data_card import Modality
from eo_keras.records.example import NO_DATA, VALID
from eo_keras.sensors import catalogue as sensors
from eo_keras.sensors import sentinel2
from tfrecords_builder.sources import image_decoding, options
from tfrecords_builder.sources.archive import Archive, Member
from tfrecords_builder.sources.items import Content, Item, Patch, members_of, nothing_found, sorted_by_key
from tfrecords_builder.sources.source import Facts

_SIZE, _RESOLUTION_M = 256, 10.0
_MASKS, _WHITE = "MASK", 255
_KINDS = r"(?P<kind>BEFORE|AFTER|MASK)/(?P<name>[^/]+)"
_LAYOUTS = (
    re.compile(rf"(?P<root>(?:.*/)?)(?P<split>train|val|test)(?P<event>)/{_KINDS}"),
    re.compile(rf"(?P<root>(?:.*/)?)(?P<split>)(?P<event>[^/]+)/Sentinel[12]/{_KINDS}"),
    re.compile(rf"(?P<root>)(?P<split>)(?P<event>)Sentinel[12]/{_KINDS}"),
)
"""The published splits; the floods of 2021, by event; one of these events' folders."""

_FILE = {
    "BEFORE": re.compile(r"(?:S[12]_before|imbefore)_(?P<rest>[^/]+)\.png", re.IGNORECASE),
    "AFTER": re.compile(r"(?:S[12]_after|imafter)_(?P<rest>[^/]+)\.png", re.IGNORECASE),
    _MASKS: re.compile(r"(?:S[12]_mask|gt)_(?P<rest>[^/]+)\.png", re.IGNORECASE),
}
"""Patterns of the names of images and masks; `rest` is equal for an image and its mask."""

_OF_SENSOR1 = re.compile(r"(?:.*/)?(?:OmbriaS1/.*|Sentinel1/.*|S1_[^/]*)", re.IGNORECASE)
"""Pattern of the paths of Sentinel-1's files."""

_CLASS_OF = {0: 0, 255: 1}
"""Label of each number in a mask."""


class _Kind(NamedTuple):
    """The images of one modality: sensor, number of channels, and folder."""

    sensor: str
    channels: int
    folder: str


_KIND_OF = {
    "s2": _Kind(sensors.SENTINEL2.name, 3, "AFTER"),
    "s2_before": _Kind(sensors.SENTINEL2.name, 3, "BEFORE"),
    "s1": _Kind(sensors.SENTINEL1.name, 1, "AFTER"),
    "s1_before": _Kind(sensors.SENTINEL1.name, 1, "BEFORE"),
}
"""Modalities by name."""

_SINGLE = {"image": _KIND_OF["s2"]}
"""The one modality of `ombria_s2`."""

_LAYOUT = (
    "OmbriaS2/<train or test>/AFTER/S2_after_<n>.png and MASK/S2_mask_<n>.png, or "
    "2021/<event>/Sentinel2/AFTER/imafter_<n>.png and MASK/gt_<n>.png"
)


class _Place(NamedTuple):
    """Place of an image and its mask: split, event, and `rest` of their names."""

    split: str
    event: str
    rest: str


def _layout(archive: Archive, wanted: set[tuple[str, str]]) -> list[tuple[Member, re.Match[str]]]:
    """Returns the images and masks of the wanted sensors and folders by the archive's layout; of several, the first.

    Args:
        archive: the archive.
        wanted: names of sensors and folders.
    """
    members = [member for member in members_of(archive) if any(sensor == _sensor(member) for sensor, _ in wanted)]
    for layout in _LAYOUTS:
        found = [(member, match) for member in members if (match := layout.fullmatch(member.path))]
        found = [one for one in found if (_sensor(one[0]), one[1]["kind"]) in wanted]
        for sensor in dict.fromkeys(sensor for sensor, _ in wanted):
            roots = sorted({match["root"] for member, match in found if _sensor(member) == sensor})
            if len(roots) > 1:
                raise SourceError(
                    archive.path,
                    f"it holds the data set twice, in {roots[0] or './'} and {roots[1]}",
                    "once",
                    "name one",
                )
        if any(match["kind"] == "AFTER" for _, match in found):
            return found
    raise nothing_found(
        archive.path,
        [member.path for member in members_of(archive)],
        "it holds no images after a flood",
        _LAYOUT,
        "give the archive of OMBRIA with its Sentinel-2 images",
    )


def _sensor(member: Member) -> str:
    of_sensor1 = _OF_SENSOR1.fullmatch(member.path)
    return (sensors.SENTINEL1 if of_sensor1 else sensors.SENTINEL2).name


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


@documented
@dataclasses.dataclass(frozen=True)
class FusionOptions(OmbriaOptions):
    """Options of OMBRIA with both sensors."""

    sar_band: str = option(
        "SAR",
        choices=sensors.SENTINEL1.bands,
        help="OMBRIA: polarization of its Sentinel-1 images, which it does not name; SAR where it is not known.",
    )
    allow_missing: bool = option(
        False,
        help="OMBRIA: whether a place may lack images of a sensor or a date; without it, such a source is refused.",
    )


@dataclasses.dataclass(frozen=True)
class Ombria:
    """Reader of images with their masks; see `tfrecords_builder.sources.patches.PatchReader`.

    Attributes:
        facts: facts about the images. Their pixel size is that of Sentinel-2's finest bands; there is no transform to
            check it.
        kinds: the images of each modality by its name, the first one first.
        Options: its options.
    """

    facts: Facts
    kinds: Mapping[str, _Kind]
    Options: type = OmbriaOptions

    def complete(self, options: OmbriaOptions, items: Sequence[Item] = ()) -> Facts:
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
        bands, channels = scenes.parse_band_order(options.band_order), _KIND_OF["s2"].channels
        if len(bands) != channels:
            raise OptionError("band_order", f"{len(bands)} names", f"{channels}, one a channel of the PNGs")
        sentinel2.parse_bands(",".join(bands))
        found = []
        for name, kind in self.kinds.items():
            optical = kind.sensor == sensors.SENTINEL2.name
            found.append(
                Modality(
                    name=name,
                    sensor=kind.sensor,
                    bands=bands if optical else (options.sar_band,),
                    dtype="uint8",
                    units=sensors.DIGITAL_NUMBERS,
                    resolution_m=_RESOLUTION_M,
                    patch_size=_SIZE,
                    level=options.scene_level if optical else "",
                )
            )
        return dataclasses.replace(self.facts, bands=bands, level=options.scene_level, others=tuple(found[1:]))

    def items(self, archive: Archive, options: OmbriaOptions) -> list[Item]:
        """Lists the images of an archive with their masks, sorted by key.

        Args:
            archive: a zip or folder that holds OmbriaS2 (and OmbriaS1) or the floods of 2021, at any depth, or what is
                in them.
            options: the options.

        Raises:
            SourceError: if there are none, one lacks its mask or is none of the data set's, or two have one key; or if
                one lacks a modality, unless the options allow it.
        """
        found = self._members(archive)
        images = {key: places for key, places in found.items() if key[1] != _MASKS}
        # Sentinel-2's masks last, in place of the equal ones of Sentinel-1.
        masks = {
            place: member for key, places in found.items() if key not in images for place, member in places.items()
        }
        for (_, kind), places in images.items():
            _check_pairs(archive, (kind, places), (_MASKS, masks))
        seen = {place: member for places in images.values() for place, member in places.items()}
        _check_pairs(archive, (_MASKS, masks), (" or ".join(dict.fromkeys(kind for _, kind in images)), seen))
        first, *others = self.kinds
        items = []
        for place, mask in masks.items():
            of = {name: found[kind.sensor, kind.folder].get(place) for name, kind in self.kinds.items()}
            present = [member for member in of.values() if member is not None]
            stem = pathlib.PurePosixPath(present[0].path).stem if len(self.kinds) == 1 else place.rest
            items.append(
                Item(
                    key="_".join(filter(None, (place.event, stem))),
                    class_name="",
                    member=of[first].path if of[first] else "",
                    bytes=mask.bytes + sum(member.bytes for member in present),
                    stamp=" ".join(member.stamp for member in (*present, mask)),
                    mask=mask.path,
                    split=place.split,
                    others=tuple((name, of[name].path) for name in others if of[name]),
                )
            )
        items = sorted_by_key(archive.path, items)
        self._check_complete(archive, options, items)
        return items

    def _members(self, archive: Archive) -> dict[tuple[str, str], dict[_Place, Member]]:
        """Returns the files by sensor and folder, and by their place."""
        wanted = {(kind.sensor, folder) for kind in self.kinds.values() for folder in (kind.folder, _MASKS)}
        found: dict[tuple[str, str], dict[_Place, Member]] = {one: {} for one in sorted(wanted)}
        for member, match in _layout(archive, wanted):
            kind = match["kind"]
            named = _FILE[kind].fullmatch(match["name"])
            if named is None:
                raise SourceError(
                    f"{archive.path}: {member.path}",
                    "this is no image of the data set by its name",
                    _LAYOUT,
                    "move it out of the data set's folders, or name it as the others are",
                )
            place = _Place(match["split"] or "", match["event"] or "", named["rest"])
            if (other := found[_sensor(member), kind].setdefault(place, member)) is not member:
                raise SourceError(
                    archive.path,
                    f"{other.path} and {member.path} are both number {place.rest} of {kind}",
                    "one file each",
                    "move one of them out of the data set's folders",
                )
        return found

    def _check_complete(self, archive: Archive, options: OmbriaOptions, items: list[Item]) -> None:
        """Checks that no example lacks a modality, unless the options allow it.

        Raises:
            SourceError: if one does; all that lack it are counted, and the first is named.
        """
        if not isinstance(options, FusionOptions) or options.allow_missing:
            return
        first, *others = self.kinds
        lacking = {name: [one for one in items if name not in dict(one.others)] for name in others}
        lacking[first] = [one for one in items if not one.member]
        for name, without in lacking.items():
            if without:
                kind = self.kinds[name]
                raise SourceError(
                    f"{archive.path}: {without[0].mask}",
                    f"there is no image {name} of this number ({sensors.named(kind.sensor).title}, {kind.folder}); "
                    f"{len(without):,} of {len(items):,} places lack theirs",
                    "an image of each sensor and date for every mask",
                    "copy or download the source again, or say `allow_missing` to build records that lack some",
                )

    def read(self, archive: Archive, item: Item, options: OmbriaOptions) -> Patch:
        """Reads and checks the images of a place and its mask; numbers of 0 beside others that are not become 1.

        Raises:
            SourceError: if one is damaged or not of the form that the data set has, or the mask holds another number
                than 0 (dry) and 255 (flooded).
        """
        first, files = next(iter(self.kinds)), dict(item.others)
        if item.member:
            files[first] = item.member
        images = {name: self._image(archive, files[name], name) for name in self.kinds if name in files}
        for name, pixels in images.items():
            # Sentinel-1's images have no number for "no data", but are white where the other sensor's hold none.
            other = images.get(name.replace("s1", "s2"), pixels)
            pixels[(pixels == _WHITE).all(axis=-1) & ~records.has_data(other)] = self.facts.nodata
        where = f"{archive.path}: {item.mask}"
        numbers = image_decoding.decode_png(archive.read(item.mask), where, (_SIZE, _SIZE))
        if strange := sorted(set(np.unique(numbers).tolist()) - set(_CLASS_OF)):
            raise SourceError(
                where,
                f"the number {strange[0]}",
                "0 (dry) and 255 (flooded)",
                "write the mask again, or move it and its image out of the source",
            )
        mask = np.zeros((_SIZE, _SIZE), np.uint8)
        for number, label in _CLASS_OF.items():
            mask[numbers == number] = label
        seen = np.any([records.has_data(pixels) for pixels in images.values()], axis=0)
        validity = np.where(seen, VALID, NO_DATA).astype(np.uint8)
        tile = records.PixelLabels(mask, validity, "", "", "")
        pixels = images.pop(first, np.zeros((_SIZE, _SIZE, self.kinds[first].channels), np.uint8))
        stored = pixels.tobytes() if item.member else b""
        others = {name: other.tobytes() for name, other in images.items()}
        return Patch(Content(stored, tile, others), pixels)

    def _image(self, archive: Archive, member: str, name: str) -> np.ndarray:
        """Returns an image (height, width, bands)."""
        channels = self.kinds[name].channels
        shape = (_SIZE, _SIZE) if channels == 1 else (_SIZE, _SIZE, channels)
        pixels = image_decoding.decode_png(archive.read(member), f"{archive.path}: {member}", shape)
        pixels = pixels.reshape(_SIZE, _SIZE, channels)
        known = records.has_data(pixels)
        # Dark water is 0 in single bands, and must not be taken for a hole.
        pixels[known] = np.maximum(pixels[known], self.facts.nodata + 1)
        return pixels

    def content(self, archive: Archive, item: Item, options: OmbriaOptions) -> Content:
        """Returns the content of a place's record.

        Raises:
            SourceError: see `read`.
        """
        return self.read(archive, item, options).content

    def warnings(self, where: str, means: np.ndarray, count: int) -> tuple[str, ...]:
        """Returns none: the bands' means are not known."""
        return ()

    def files_beside(self, options: OmbriaOptions) -> tuple[str, ...]:
        """Returns none."""
        return ()


def _check_pairs(archive: Archive, one: tuple[str, dict[_Place, Member]], other: tuple[str, dict[_Place, Member]]):
    """Checks that every file of a folder has its counterpart in another."""
    (kind, found), (name, counterparts) = one, other
    if lone := [member for place, member in found.items() if place not in counterparts]:
        raise SourceError(
            f"{archive.path}: {lone[0].path}",
            f"no file of the same name beside it in {name}; {len(lone):,} in {kind} lack theirs",
            _LAYOUT,
            "copy or download the source again, or move what has no counterpart out",
        )


_ATTRIBUTION = (
    "OMBRIA, Drakonakis et al. (2022), doi:10.1109/JSTARS.2022.3155559; flood masks of the Copernicus "
    "Emergency Management Service; contains modified Copernicus Sentinel data"
)

SENTINEL2 = Ombria(
    Facts(
        name="ombria_s2",
        task="segmentation",
        legend=FLOOD,
        dtype="uint8",
        patch_size=_SIZE,
        split="published",
        attribution=_ATTRIBUTION,
    ),
    _SINGLE,
)

BOTH_SENSORS = Ombria(dataclasses.replace(SENTINEL2.facts, name="ombria", modality="s2"), _KIND_OF, FusionOptions)
