"""EuroSAT: 27,000 patches of 64x64 pixels in ten classes, as RGB JPEGs or 13-band GeoTIFFs.

Helber, Bischke, Dengel, Borth: "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover
Classification", IEEE JSTARS 12(7), 2019. Level-1C, all acquired before processing baseline 04.00, so that no
radiometric offset applies. The GeoTIFFs store B8A last and carry no band names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from eo_keras.core.options import check, documented, option
from eo_keras.errors import SourceError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors import radiometry, sentinel2
from eo_keras.sensors.band_order import GUARD_MIN_IMAGES, band_order_problem
from tfrecords_builder.sources import image_decoding, options
from tfrecords_builder.sources.archive import Archive, Member
from tfrecords_builder.sources.items import Content, Item, Patch, members_of, nothing_found, sorted_by_key
from tfrecords_builder.sources.source import Facts, PublishedFile

PATCH_SIZE = 64
RESOLUTION_M = 10.0


@documented
@dataclasses.dataclass(frozen=True)
class EuroSATOptions:
    """Options of EuroSAT."""

    source: str | None = options.archive()
    no_verify: bool = option(
        False,
        help="Whether to leave out the check that decodes every JPEG before anything is written. Faster; damage is "
        "then found in training images alone, and identical images are recognised by the checksums of their files.",
    )

    def __post_init__(self):
        """Checks types."""
        check(self)


@dataclasses.dataclass(frozen=True)
class EuroSAT:
    """Reader of one of EuroSAT's two archives, see `tfrecords_builder.sources.patches.PatchReader`.

    Attributes:
        facts: facts about the archive's images.
        roots: folders that hold the class folders in the published layouts; any other may as well.
        extensions: endings of the images' names.
    """

    facts: Facts
    roots: tuple[str, ...]
    extensions: tuple[str, ...]

    Options = EuroSATOptions

    def complete(self, options: EuroSATOptions, items: Sequence[Item] = ()) -> Facts:
        """Returns the facts, which no option changes."""
        return self.facts

    def items(self, archive: Archive, options: EuroSATOptions) -> list[Item]:
        """Lists the patches of an archive, sorted by key.

        Args:
            archive: a zip or folder that holds the class folders, at any depth; other folders and files may lie beside
                them, but no other images of the kind.
            options: the options.

        Raises:
            SourceError: if there are no patches, or in two places; a class folder is unknown, a file in one is not an
                image, or two files have one key.
        """
        members = members_of(archive)
        root = self._root(archive.path, [member.path for member in members])
        items = []
        for member in members:
            class_name, _, file_name = member.path.removeprefix(root).partition("/")
            inside = member.path.startswith(root) and file_name
            if inside and class_name in self.facts.legend.class_names:
                items.append(self._item(archive.path, class_name, file_name, member))
            # Lists, label maps and other forms of the images lie beside the class folders in some published archives;
            # images of this kind never do, and a damaged name must not make one vanish.
            elif member.path.lower().endswith(self.extensions):
                found = f"'{class_name}' is not a class folder" if inside else "an image outside the class folders"
                raise SourceError(
                    f"{archive.path}: {member.path}",
                    found,
                    f"images in {root}<Class>/, the classes {', '.join(self.facts.legend.class_names)}",
                    "move it out of the source, or name its folder by its class",
                )
        return sorted_by_key(archive.path, items)

    def _root(self, where: str, paths: list[str]) -> str:
        """Returns the folder that holds the class folders with images of this kind; empty, or ending in a slash."""
        roots = self._roots(paths)
        if len(roots) > 1:
            raise SourceError(
                where,
                f"class folders with images in {self.extensions[0]} lie in {roots[0] or './'} and in {roots[1]}",
                "one folder of class folders",
                f"give one of them as `source`, such as the folder {roots[1]}; of a zip, unpack it first. Where they "
                "belong to one data set, such as train and test, move their images together and use `lists`",
            )
        if roots:
            return roots[0]
        other = MULTISPECTRAL if self is RGB else RGB
        if other._roots(paths):
            raise SourceError(
                where,
                f"this is an archive of {other.facts.name}",
                f"one of {self.facts.name}",
                f"say `dataset={other.facts.name}`",
            )
        raise nothing_found(
            where,
            paths,
            "it holds no patches",
            f"{self.roots[0]}<Class>/<Class>_<n>{self.extensions[0]}",
            "give the published archive, a folder with its content, or the folder of class folders",
        )

    def _roots(self, paths: list[str]) -> list[str]:
        parents = {path.rpartition("/")[0] for path in paths if path.lower().endswith(self.extensions)}
        return sorted(
            {
                parent.removesuffix(class_name)
                for parent in parents
                if (class_name := parent.rpartition("/")[2]) in self.facts.legend.class_names
            }
        )

    def _item(self, source: str, class_name: str, file_name: str, member: Member) -> Item:
        where = f"{source}: {member.path}"
        key, extension = os.path.splitext(file_name)
        if extension.lower() not in self.extensions or "/" in file_name:
            raise SourceError(
                where,
                "this is not an image of the data set",
                f"files ending in {' or '.join(self.extensions)}, directly in the class folder",
                "move it out of the class folder",
            )
        named = key.rpartition("_")[0]
        if named != class_name and named in self.facts.legend.class_names:
            raise SourceError(where, f"a patch named {key} lies in class folder {class_name}", "one class")
        return Item(key, class_name, member.path, member.bytes, member.stamp)

    def read(self, archive: Archive, item: Item, options: EuroSATOptions) -> Patch:
        """Reads and checks one patch.

        Raises:
            SourceError: if it is damaged or not of the form that the data set has.
        """
        data, where = archive.read(item.member), f"{archive.path}: {item.member}"
        if self.facts.encoding == "jpeg":
            return Patch(Content(data), image_decoding.decode_jpeg(data, where, self.facts.patch_size))
        image = image_decoding.decode_geotiff(data, where, self.facts.shape, self.facts.dtype)
        remedy = "give the published archive, or move it out of the source"
        if image.crs is None or image.transform is None:
            raise SourceError(
                where, "no coordinate reference system or no transform", "a georeferenced GeoTIFF", remedy
            )
        named = image.band_names
        if named and all(name in sentinel2.BANDS for name in named) and named != self.facts.bands:
            raise SourceError(
                where, f"bands named {','.join(named)}", f"the order {','.join(self.facts.bands)}", remedy
            )
        return Patch(Content(self._as_stored(image.pixels)), image.pixels, image.crs, image.transform)

    def content(self, archive: Archive, item: Item, options: EuroSATOptions) -> Content:
        """Returns the content of a patch's record; a JPEG is not decoded.

        Raises:
            SourceError: if it cannot be read.
        """
        data = archive.read(item.member)
        if self.facts.encoding == "jpeg":
            return Content(data)
        where = f"{archive.path}: {item.member}"
        image = image_decoding.decode_geotiff(data, where, self.facts.shape, self.facts.dtype)
        return Content(self._as_stored(image.pixels))

    def warnings(self, where: str, means: np.ndarray, count: int) -> tuple[str, ...]:
        """Checks the place of B10 in the band order of GeoTIFFs.

        Raises:
            SourceError: if it does not, over enough patches.
        """
        bands = self.facts.bands
        problem = band_order_problem(means, bands) if "B10" in bands else None
        if problem is None:
            return ()
        if count < GUARD_MIN_IMAGES:
            return (f"too few patches ({count}) to judge the band order, but {problem}",)
        raise SourceError(
            where,
            problem,
            f"the stored order {','.join(bands)}",
            "give the published archive, or write the bands of your GeoTIFFs in that order",
        )

    def files_beside(self, options: EuroSATOptions) -> tuple[str, ...]:
        """Returns none."""
        return ()

    @staticmethod
    def _as_stored(pixels: np.ndarray) -> bytes:
        return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


_ATTRIBUTION = (
    "EuroSAT, Helber, Bischke, Dengel, Borth (2019), doi:10.1109/JSTARS.2019.2918242, MIT licence; "
    "contains modified Copernicus Sentinel data"
)
_ZENODO = "https://zenodo.org/records/7711810/files"

RGB = EuroSAT(
    Facts(
        name="eurosat_rgb",
        task="classification",
        legend=EUROSAT,
        bands=sentinel2.COMPOSITES["RGB"],
        dtype="uint8",
        encoding="jpeg",
        level="L1C",
        reflectance=radiometry.EUROSAT_JPEG,
        patch_size=PATCH_SIZE,
        resolution_m=RESOLUTION_M,
        attribution=_ATTRIBUTION,
        published=PublishedFile(
            "EuroSAT_RGB.zip", f"{_ZENODO}/EuroSAT_RGB.zip?download=1", 94_658_721, "f46e308c4d50d4bf32fedad2d3d62f3b"
        ),
    ),
    roots=("EuroSAT_RGB/", "2750/"),
    extensions=(".jpg", ".jpeg"),
)

MULTISPECTRAL = EuroSAT(
    Facts(
        name="eurosat_ms",
        task="classification",
        legend=EUROSAT,
        bands=sentinel2.EUROSAT_ORDER,
        dtype="uint16",
        level="L1C",
        reflectance=radiometry.HARMONISED,
        patch_size=PATCH_SIZE,
        resolution_m=RESOLUTION_M,
        georeferenced=True,
        attribution=_ATTRIBUTION,
        published=PublishedFile(
            "EuroSAT_MS.zip", f"{_ZENODO}/EuroSAT_MS.zip?download=1", 2_065_402_329, "091174add3c8e680a49244acf185b9f0"
        ),
    ),
    roots=("EuroSAT_MS/", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif/"),
    extensions=(".tif", ".tiff"),
)
