"""Sentinel-2 products of a generated city, in the layout that ESA delivers: SAFE folders with lossless JPEG 2000 bands.

Folder and file names, metadata and their namespaces follow the Sentinel-2 Products Specification Document; of the
metadata, what says what the numbers mean and where they lie is written, and no more.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib

import numpy as np

from eo_keras import files
from eo_keras.errors import OptionError
from eo_keras.sentinel2 import BANDS, COMPOSITES, NOMINAL_ORDER, QUANTIFICATION
from tfrecords_builder.generated.city_world import CityWorld
from tfrecords_builder.generated.sensor import BLOCK
from tfrecords_builder.generated.world import PIXEL_M

NO_DATA, SATURATED = 0, 65_535

OFFSET = -1000
"""What products add to their numbers since processing baseline 04.00; the pixels hold so much more."""

_OFFSET_SINCE = "04.00"
_SURFACE_20M = ("B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12")
"""What Level-2A has at 20 m, averaged where the band is finer; at 60 m this package needs B01 and B09 alone."""

_PSD = "https://psd-14.sentinel2.eo.esa.int/PSD"
_GML = "http://www.opengis.net/gml"


@dataclasses.dataclass(frozen=True)
class ProductOptions:
    """What a product is.

    Attributes:
        level: `L1C` or `L2A`, as the city's world is rendered.
        sensing: when the sensor passed.
        baseline: processing baseline, such as `02.09`; since 04.00 with an offset.
        tile: identifier of the MGRS tile.
        satellite: `S2A` or `S2B`.
        orbit: relative orbit.
        swath: whether a corner lies outside the swath and has no data.
    """

    level: str = "L1C"
    sensing: datetime.datetime = datetime.datetime(2018, 7, 1, 10, 10, 21)
    baseline: str = "02.06"
    tile: str = "33UUU"
    satellite: str = "S2A"
    orbit: int = 22
    swath: bool = True

    def __post_init__(self):
        """Refuses what is no product."""
        if self.level not in ("L1C", "L2A"):
            raise OptionError("product option level", f"'{self.level}'", "L1C or L2A")

    @property
    def offset(self) -> int:
        """What is to be added to the numbers."""
        return OFFSET if self.baseline >= _OFFSET_SINCE else 0

    @property
    def name(self) -> str:
        """The product's identifier."""
        made = self.sensing + datetime.timedelta(hours=3)
        return (
            f"{self.satellite}_MSI{self.level}_{_stamp(self.sensing)}_N{self.baseline.replace('.', '')}"
            f"_R{self.orbit:03d}_T{self.tile}_{_stamp(made)}"
        )


def _stamp(when: datetime.datetime) -> str:
    return when.strftime("%Y%m%dT%H%M%S")


def write_product(folder: str | os.PathLike[str], world: CityWorld, options: ProductOptions) -> pathlib.Path:
    """Writes a product.

    Args:
        folder: where the SAFE folder is made.
        world: the city, of the same level: its option `surface` for L2A.
        options: what the product is.

    Returns:
        The SAFE folder.

    Raises:
        OptionError: if the world is rendered for the other level, or there is a product of this name.
        StorageError: if it cannot be written.
    """
    if world.options.surface != (options.level == "L2A"):
        raise OptionError("product option level", options.level, "the level that the world is rendered for")
    root = pathlib.Path(folder) / f"{options.name}.SAFE"
    if root.exists():
        raise OptionError(root, "there is a product of this name", remedy="remove it or choose another folder")
    granule = root / "GRANULE" / f"{options.level}_T{options.tile}_A015800_{_stamp(options.sensing)}"
    beginning = f"T{options.tile}_{_stamp(options.sensing)}"
    with files.storage_errors(root):
        if options.level == "L1C":
            names = _write_toa(granule / "IMG_DATA", beginning, world, options)
        else:
            names = _write_surface(granule / "IMG_DATA", beginning, world, options)
        images = [f"{(granule / 'IMG_DATA' / name).relative_to(root).with_suffix('')}" for name in names]
        files.write_text(root / f"MTD_MSI{options.level}.xml", _product_xml(options, images))
        files.write_text(granule / "MTD_TL.xml", _tile_xml(options, world))
        strip = root / "DATASTRIP" / f"DS_EPAE_{_stamp(options.sensing)}_S{_stamp(options.sensing)}"
        strip.mkdir(parents=True)
        files.write_text(strip / "MTD_DS.xml", _strip_xml(options))
        files.write_text(root / "manifest.safe", _manifest(root))
    return root


def _write_toa(folder: pathlib.Path, beginning: str, world: CityWorld, options: ProductOptions) -> list[str]:
    folder.mkdir(parents=True)
    names, bands = [], _bands(world, options)
    for band, numbers in bands.items():
        names.append(f"{beginning}_{band}.jp2")
        _write_image(folder / names[-1], numbers, BANDS[band].resolution_m, world)
    names.append(f"{beginning}_TCI.jp2")
    picture = np.stack([_grey(bands[band], options) for band in COMPOSITES["RGB"]])
    _write_image(folder / names[-1], picture, PIXEL_M, world)
    return names


def _write_surface(folder: pathlib.Path, beginning: str, world: CityWorld, options: ProductOptions) -> list[str]:
    names = []

    def write(resolution: int, band: str, numbers: np.ndarray) -> None:
        inner = folder / f"R{resolution}m"
        inner.mkdir(parents=True, exist_ok=True)
        names.append(f"R{resolution}m/{beginning}_{band}_{resolution}m.jp2")
        _write_image(folder / names[-1], numbers, resolution, world)

    for band, numbers in _bands(world, options).items():
        native = BANDS[band].resolution_m
        write(native, band, numbers)
        if native == 10 and band in _SURFACE_20M:
            write(20, band, _averaged(numbers))
    classes = _scene_classes(world, options)
    write(20, "SCL", classes)
    write(60, "SCL", classes[1::3, 1::3])
    return names


def _bands(world: CityWorld, options: ProductOptions) -> dict[str, np.ndarray]:
    """Renders all bands of the level in their own pixels: what the product holds, uint16."""
    names = [name for name, band in BANDS.items() if options.level in band.levels]
    found = {name: np.empty(2 * (world.size * PIXEL_M // BANDS[name].resolution_m,), np.uint16) for name in names}
    # A row of blocks at a time, of which the world keeps the ground while band after band is asked for.
    for top in range(0, world.size, BLOCK):
        for resolution in sorted({BANDS[name].resolution_m for name in names}):
            alike = tuple(name for name in names if BANDS[name].resolution_m == resolution)
            step = resolution // PIXEL_M
            row, height = top // step, min(BLOCK, world.size - top) // step
            numbers = world.native(row, 0, height, world.size // step, alike)
            for place, name in enumerate(alike):
                found[name][row : row + height] = numbers[..., place]
    for name, numbers in found.items():
        # At least 1, and so more than what means "no data".
        np.minimum(numbers.astype(np.int32) - options.offset, SATURATED - 1, out=numbers, casting="unsafe")
        numbers[_outside(world.size, BANDS[name].resolution_m // PIXEL_M, options)] = NO_DATA
    return found


def _outside(size: int, step: int, options: ProductOptions) -> np.ndarray:
    """Tells which pixels the swath does not reach: a wedge in the east, its edge along the orbit."""
    edge = size // step
    if not options.swath:
        return np.zeros((edge, edge), bool)
    # In pixels of 60 m, so that the bands agree on it.
    coarse = size // 6
    rows, columns = np.mgrid[:coarse, :coarse] / coarse
    return (columns > 0.99 - 0.1 * rows).repeat(6 // step, 0).repeat(6 // step, 1)


def _averaged(numbers: np.ndarray) -> np.ndarray:
    edge = len(numbers) // 2
    blocks = numbers.reshape(edge, 2, edge, 2)
    means = np.rint(blocks.mean(axis=(1, 3), dtype=np.float64)).astype(np.uint16)
    means[(blocks == NO_DATA).any(axis=(1, 3))] = NO_DATA
    return means


def _scene_classes(world: CityWorld, options: ProductOptions) -> np.ndarray:
    """Returns the scene classification at 20 m, uint8, of Level-2A's classes."""
    edge = world.size // 2
    classes = np.empty((edge, edge), np.uint8)
    for row in range(0, world.size, BLOCK):
        height = min(BLOCK, world.size - row)
        window = (row, 0, height, world.size)
        labels = world.landscapes(*window)[::2, ::2]
        cloud, shadow = (part[::2, ::2] for part in world.clouds(*window))
        found = np.full(labels.shape, 5, np.uint8)  # Not vegetated.
        found[np.isin(labels, [1, 2, 5])] = 4  # Forest, herbaceous vegetation and pasture.
        found[labels == 9] = 6  # Water.
        found[shadow > 0.3] = 3
        found[cloud > 0.15] = 8
        found[cloud > 0.6] = 9
        classes[row // 2 : (row + height) // 2] = found
    classes[_outside(world.size, 2, options)] = 0
    return classes


def _grey(numbers: np.ndarray, options: ProductOptions) -> np.ndarray:
    """Stretches reflectance 0 to 0.3558 to 1..255, as the true-colour images are."""
    reflectance = (numbers.astype(np.float64) + options.offset) / QUANTIFICATION
    grey = np.clip(np.rint(1 + 254 * reflectance / 0.3558), 1, 255)
    return np.where(numbers == NO_DATA, 0, grey).astype(np.uint8)


def _write_image(path: pathlib.Path, numbers: np.ndarray, resolution: int, world: CityWorld) -> None:
    import rasterio

    numbers = numbers if numbers.ndim == 3 else numbers[None]
    west, north = world.transform[2], world.transform[5]
    profile = {
        "driver": "JP2OpenJPEG",
        # Without these the driver throws detail away.
        "QUALITY": "100",
        "REVERSIBLE": "YES",
        "BLOCKXSIZE": 1024,
        "BLOCKYSIZE": 1024,
        "crs": world.crs,
        "transform": rasterio.Affine(resolution, 0, west, 0, -resolution, north),
    }
    shape = {"count": len(numbers), "height": numbers.shape[1], "width": numbers.shape[2], "dtype": numbers.dtype}
    with rasterio.open(path, "w", **shape, **profile) as dataset:
        dataset.write(numbers)


def _product_xml(options: ProductOptions, images: list[str]) -> str:
    level = "1C" if options.level == "L1C" else "2A"
    root = f"Level-{level}_User_Product"
    value = f"{'BOA_' if level == '2A' else ''}QUANTIFICATION_VALUE"
    values = f'<{value} unit="none">{QUANTIFICATION}</{value}>'
    if level == "2A":
        values = f"<QUANTIFICATION_VALUES_LIST>{values}</QUANTIFICATION_VALUES_LIST>"
    if options.offset:
        kind = "BOA" if level == "2A" else "RADIO"
        listed = "".join(
            f'<{kind}_ADD_OFFSET band_id="{number}">{options.offset}</{kind}_ADD_OFFSET>' for number in range(13)
        )
        group = "BOA_ADD_OFFSET_VALUES_LIST" if level == "2A" else "Radiometric_Offset_List"
        values += f"<{group}>{listed}</{group}>"
    spectral = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="{_metadata_name(name)}">'
        f"<RESOLUTION>{BANDS[name].resolution_m}</RESOLUTION></Spectral_Information>"
        for number, name in enumerate(NOMINAL_ORDER)
    )
    listed = "".join(f"<IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)
    special = "".join(
        f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>{number}</SPECIAL_VALUE_INDEX></Special_Values>"
        for text, number in (("NODATA", NO_DATA), ("SATURATED", SATURATED))
    )
    when = options.sensing.isoformat(timespec="milliseconds")
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{root} xmlns:n1="{_PSD}/User_Product_Level-{level}.xsd">
<n1:General_Info>
<Product_Info><PRODUCT_START_TIME>{when}Z</PRODUCT_START_TIME><PRODUCT_STOP_TIME>{when}Z</PRODUCT_STOP_TIME>
<PRODUCT_URI>{options.name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE><PROCESSING_BASELINE>{options.baseline}</PROCESSING_BASELINE>
<Datatake><SPACECRAFT_NAME>Sentinel-{options.satellite[1:]}</SPACECRAFT_NAME>
<DATATAKE_SENSING_START>{when}Z</DATATAKE_SENSING_START>
<SENSING_ORBIT_NUMBER>{options.orbit}</SENSING_ORBIT_NUMBER></Datatake>
<Product_Organisation><Granule_List><Granule imageFormat="JPEG2000">{listed}</Granule></Granule_List>
</Product_Organisation></Product_Info>
<Product_Image_Characteristics>{special}{values}
<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics>
</n1:General_Info>
</n1:{root}>
"""


def _metadata_name(band: str) -> str:
    """Returns a band's name as the metadata have it: `B1`, `B8A`."""
    return band if band == "B8A" else f"B{int(band[1:])}"


def _tile_xml(options: ProductOptions, world: CityWorld) -> str:
    level = options.level[1:]
    sizes = "".join(
        f'<Size resolution="{metres}"><NROWS>{world.size * 10 // metres}</NROWS>'
        f"<NCOLS>{world.size * 10 // metres}</NCOLS></Size>"
        f'<Geoposition resolution="{metres}"><ULX>{world.transform[2]:.0f}</ULX><ULY>{world.transform[5]:.0f}</ULY>'
        f"<XDIM>{metres}</XDIM><YDIM>-{metres}</YDIM></Geoposition>"
        for metres in (10, 20, 60)
    )
    root = f"Level-{level}_Tile_ID"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{root} xmlns:n1="{_PSD}/S2_PDI_Level-{level}_Tile_Metadata.xsd">
<n1:General_Info><SENSING_TIME>{options.sensing.isoformat(timespec="milliseconds")}Z</SENSING_TIME></n1:General_Info>
<n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_CODE>{world.crs}</HORIZONTAL_CS_CODE>{sizes}</Tile_Geocoding>
</n1:Geometric_Info>
</n1:{root}>
"""


def _strip_xml(options: ProductOptions) -> str:
    root = f"Level-{options.level[1:]}_DataStrip_ID"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{root} xmlns:n1="{_PSD}/S2_PDI_Level-{options.level[1:]}_Datastrip_Metadata.xsd">
<n1:General_Info><Processing_Info><PROCESSING_BASELINE>{options.baseline}</PROCESSING_BASELINE></Processing_Info>
</n1:General_Info>
</n1:{root}>
"""


def _manifest(root: pathlib.Path) -> str:
    import hashlib

    found = sorted(path for path in root.rglob("*") if path.is_file())
    objects = "".join(
        f'<dataObject ID="{path.stem}"><byteStream size="{path.stat().st_size}"><fileLocation locatorType="URL" '
        f'href="./{path.relative_to(root)}"/><checksum checksumName="SHA3-256">'
        f"{hashlib.sha3_256(path.read_bytes()).hexdigest()}</checksum></byteStream></dataObject>"
        for path in found
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" '
        f'xmlns:gml="{_GML}" version="esa/safe/sentinel/1.1/sentinel-2/msi/archive_product">\n'
        f"<dataObjectSection>{objects}</dataObjectSection>\n</xfdu:XFDU>\n"
    )
