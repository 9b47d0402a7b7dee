"""Names and metadata files of Sentinel-2 products, after the Sentinel-2 Products Specification Document.

Of the metadata, what says what a product is, what its numbers mean and where it lies is written; of the sensor's inner
affairs nothing is. GDAL's own driver for Sentinel-2 opens products by them.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import pathlib

from eo_keras.errors import OptionError
from eo_keras.geo.grid import Grid
from eo_keras.sensors.sentinel2 import BANDS, COMPOSITES, NOMINAL_ORDER, QUANTIFICATION

NO_DATA, SATURATED = 0, 65_535

OFFSET = -1000
"""Offset in the metadata since processing baseline 04.00; stored numbers are larger by its absolute value."""

SCENE_CLASSES = (
    *("NODATA", "SATURATED_DEFECTIVE", "DARK_FEATURE_SHADOW", "CLOUD_SHADOW", "VEGETATION", "NOT_VEGETATED", "WATER"),
    *("UNCLASSIFIED", "CLOUD_MEDIUM_PROBA", "CLOUD_HIGH_PROBA", "THIN_CIRRUS", "SNOW_ICE"),
)
"""Names of Level-2A's scene classification by number."""

_OFFSET_SINCE = (4, 0)
_CYCLE_ORBITS, _FIRST = 143, datetime.datetime(2015, 6, 23)
_PSD = "https://psd-14.sentinel2.eo.esa.int/PSD"
_ROWS, _COLUMNS = "ABCDEFGHJKLMNPQRSTUV", ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
_BANDS_OF_LATITUDE = "CDEFGHJKLMNPQRSTUVWX"


@dataclasses.dataclass(frozen=True)
class ProductOptions:
    """Options of a generated Sentinel-2 product.

    Attributes:
        level: `L1C` or `L2A`, as the city's world is rendered.
        sensing: when the sensor passed.
        baseline: processing baseline, such as `02.09`; since 04.00 with an offset.
        tile: identifier of the tile; None for that of the military grid's square in which its middle lies.
        satellite: `S2A` or `S2B`.
        orbit: relative orbit.
        swath: whether a corner lies outside the swath and has no data.
    """

    level: str = "L1C"
    sensing: datetime.datetime = datetime.datetime(2018, 7, 1, 10, 10, 21)
    baseline: str = "02.06"
    tile: str | None = None
    satellite: str = "S2A"
    orbit: int = 22
    swath: bool = True

    def __post_init__(self):
        """Checks the level."""
        if self.level not in ("L1C", "L2A"):
            raise OptionError("product option level", f"'{self.level}'", "L1C or L2A")

    @property
    def offset(self) -> int:
        """Offset to be added to the numbers."""
        return OFFSET if tuple(map(int, self.baseline.split("."))) >= _OFFSET_SINCE else 0

    @property
    def generated(self) -> datetime.datetime:
        """Time of processing."""
        return self.sensing + datetime.timedelta(hours=3)

    @property
    def name(self) -> str:
        """The product's identifier; the tile must be set."""
        return (
            f"{self.satellite}_MSI{self.level}_{stamp(self.sensing)}_N{self.baseline.replace('.', '')}"
            f"_R{self.orbit:03d}_T{self.tile}_{stamp(self.generated)}"
        )

    @property
    def granule(self) -> str:
        """Name of the granule's folder."""
        return f"{self.level}_T{self.tile}_A{self.absolute_orbit:06d}_{stamp(self.sensing)}"

    @property
    def datastrip(self) -> str:
        """Name of the data strip's folder."""
        return f"DS_EPAE_{stamp(self.generated)}_S{stamp(self.sensing)}"

    @property
    def absolute_orbit(self) -> int:
        """Approximate absolute orbit number: 143 orbits in ten days."""
        return int((self.sensing - _FIRST) / datetime.timedelta(days=10) * _CYCLE_ORBITS)


def stamp(when: datetime.datetime) -> str:
    """Formats a time as in names of products."""
    return when.strftime("%Y%m%dT%H%M%S")


def tile_at(grid: Grid) -> str:
    """Returns the square of 100 km of the military grid (MGRS) that the middle of a UTM grid lies in, as `33UVU`."""
    zone = int(grid.crs.removeprefix("EPSG:")) - 32600
    west, south, east, north = grid.bounds
    latitude = _geographic(grid.crs, [((west + east) / 2, (south + north) / 2)])[0][0]
    column = _COLUMNS[zone % 3][int((west + east) / 2 // 100_000) - 1]
    # Rows of even zones begin with F, so that neighboring zones differ.
    row = _ROWS[(int((south + north) / 2 // 100_000) + (5 if zone % 2 == 0 else 0)) % len(_ROWS)]
    return f"{zone:02d}{_BANDS_OF_LATITUDE[min(int((latitude + 80) // 8), 19)]}{column}{row}"


def _geographic(crs: str, places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns latitudes and longitudes of places."""
    from rasterio.warp import transform

    longitudes, latitudes = transform(crs, "EPSG:4326", *zip(*places, strict=True))
    return list(zip(latitudes, longitudes, strict=True))


def product_xml(options: ProductOptions, images: list[str], grid: Grid, cloudy: float) -> str:
    """Returns the text of `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`.

    Args:
        options: options of the product.
        images: its images' paths in the product, without suffix.
        grid: its 10 m pixels.
        cloudy: share of the ground under clouds.
    """
    level, surface = options.level[1:], options.level == "L2A"
    when = _time(options.sensing)
    listed = "".join(f"\n            <IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)
    special = "".join(
        f"""
      <Special_Values>
        <SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>{number}</SPECIAL_VALUE_INDEX>
      </Special_Values>"""
        for text, number in (("NODATA", NO_DATA), ("SATURATED", SATURATED))
    )
    display = "".join(
        f"\n        <{colour}_CHANNEL>{NOMINAL_ORDER.index(band)}</{colour}_CHANNEL>"
        for colour, band in zip(("RED", "GREEN", "BLUE"), COMPOSITES["RGB"], strict=True)
    )
    corners = [grid.coordinates(column, row) for column, row in _around(grid)]
    outline = " ".join(f"{latitude:.9f} {longitude:.9f}" for latitude, longitude in _geographic(grid.crs, corners))
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="{_PSD}/User_Product_Level-{level}.xsd"\
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{_PSD}/User_Product_Level-{level}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{when}</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>{when}</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{options.name}.SAFE</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{options.baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>{_time(options.generated)}</GENERATION_TIME>
      <PREVIEW_IMAGE_URL>Not applicable</PREVIEW_IMAGE_URL>
      <PREVIEW_GEO_INFO>Not applicable</PREVIEW_GEO_INFO>
      <Datatake datatakeIdentifier="G{options.satellite}_{stamp(options.sensing)}_{options.absolute_orbit:06d}\
_N{options.baseline}">
        <SPACECRAFT_NAME>Sentinel-{options.satellite[1:]}</SPACECRAFT_NAME>
        <DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE>
        <DATATAKE_SENSING_START>{when}</DATATAKE_SENSING_START>
        <SENSING_ORBIT_NUMBER>{options.orbit}</SENSING_ORBIT_NUMBER>
        <SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION>
      </Datatake>
      <Query_Options completeSingleTile="true">
        <PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT>
      </Query_Options>
      <Product_Organisation>
        <Granule_List>
          <Granule datastripIdentifier="{_identifier(options, "DS")}" granuleIdentifier="{_identifier(options, "TL")}"\
 imageFormat="JPEG2000">{listed}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>{special}
      <Image_Display_Order>{display}
      </Image_Display_Order>{_numbers_xml(options)}
      <Spectral_Information_List>{_spectral_xml()}
      </Spectral_Information_List>{_scene_classes_xml() if surface else ""}
    </Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Product_Footprint>
      <Product_Footprint>
        <Global_Footprint>
          <EXT_POS_LIST>{outline}</EXT_POS_LIST>
        </Global_Footprint>
      </Product_Footprint>
      <RASTER_CS_TYPE>POINT</RASTER_CS_TYPE>
      <PIXEL_ORIGIN>1</PIXEL_ORIGIN>
    </Product_Footprint>
    <Coordinate_Reference_System>
      <GEO_TABLES version="1">EPSG</GEO_TABLES>
      <HORIZONTAL_CS_TYPE>GEOGRAPHIC</HORIZONTAL_CS_TYPE>
    </Coordinate_Reference_System>
  </n1:Geometric_Info>
  <n1:Quality_Indicators_Info>
    <Cloud_Coverage_Assessment>{100 * cloudy:.6f}</Cloud_Coverage_Assessment>
  </n1:Quality_Indicators_Info>
</n1:Level-{level}_User_Product>
"""


def _around(grid: Grid) -> list[tuple[int, int]]:
    """Returns columns and rows of a grid's corners, the first one again at the end."""
    return [(0, 0), (0, grid.height), (grid.width, grid.height), (grid.width, 0), (0, 0)]


def _numbers_xml(options: ProductOptions) -> str:
    """Returns the quantification and, where there is one, the offset of every band as XML."""
    if options.level == "L2A":
        text = f"""
      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</BOA_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>"""
        group, element = "BOA_ADD_OFFSET_VALUES_LIST", "BOA_ADD_OFFSET"
    else:
        text = f'\n      <QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</QUANTIFICATION_VALUE>'
        group, element = "Radiometric_Offset_List", "RADIO_ADD_OFFSET"
    if not options.offset:
        return text
    listed = "".join(
        f'\n        <{element} band_id="{number}">{options.offset}</{element}>' for number in range(len(BANDS))
    )
    return f"{text}\n      <{group}>{listed}\n      </{group}>"


def _spectral_xml() -> str:
    return "".join(
        f"""
        <Spectral_Information bandId="{number}" physicalBand="{_metadata_name(name)}">
          <RESOLUTION>{BANDS[name].resolution_m}</RESOLUTION>
          <Wavelength>
            <CENTRAL unit="nm">{BANDS[name].wavelength_nm}</CENTRAL>
          </Wavelength>
        </Spectral_Information>"""
        for number, name in enumerate(NOMINAL_ORDER)
    )


def _metadata_name(band: str) -> str:
    """Returns a band's name in the metadata: `B1`, `B8A`."""
    return band if band == "B8A" else f"B{int(band[1:])}"


def _scene_classes_xml() -> str:
    listed = "".join(
        f"""
        <Scene_Classification_ID>
          <SCENE_CLASSIFICATION_TEXT>SC_{text}</SCENE_CLASSIFICATION_TEXT>
          <SCENE_CLASSIFICATION_INDEX>{number}</SCENE_CLASSIFICATION_INDEX>
        </Scene_Classification_ID>"""
        for number, text in enumerate(SCENE_CLASSES)
    )
    return f"\n      <Scene_Classification_List>{listed}\n      </Scene_Classification_List>"


def tile_xml(options: ProductOptions, grid: Grid) -> str:
    """Returns the text of the granule's `MTD_TL.xml`."""
    level, zone = options.level[1:], int(grid.crs.removeprefix("EPSG:")) - 32600
    sizes = "".join(
        f"""
      <Size resolution="{metres}">
        <NROWS>{grid.height * 10 // metres}</NROWS>
        <NCOLS>{grid.width * 10 // metres}</NCOLS>
      </Size>"""
        for metres in (10, 20, 60)
    )
    places = "".join(
        f"""
      <Geoposition resolution="{metres}">
        <ULX>{grid.transform[2]:.0f}</ULX>
        <ULY>{grid.transform[5]:.0f}</ULY>
        <XDIM>{metres}</XDIM>
        <YDIM>-{metres}</YDIM>
      </Geoposition>"""
        for metres in (10, 20, 60)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_Tile_ID xmlns:n1="{_PSD}/S2_PDI_Level-{level}_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID metadataLevel="Brief">{_identifier(options, "TL")}</TILE_ID>
    <DATASTRIP_ID metadataLevel="Standard">{_identifier(options, "DS")}</DATASTRIP_ID>
    <SENSING_TIME metadataLevel="Standard">{_time(options.sensing)}</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding metadataLevel="Brief">
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone {zone}N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>{grid.crs}</HORIZONTAL_CS_CODE>{sizes}{places}
    </Tile_Geocoding>
  </n1:Geometric_Info>
</n1:Level-{level}_Tile_ID>
"""


def strip_xml(options: ProductOptions) -> str:
    """Returns the text of the data strip's `MTD_DS.xml`."""
    level = options.level[1:]
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_DataStrip_ID xmlns:n1="{_PSD}/S2_PDI_Level-{level}_Datastrip_Metadata.xsd">
  <n1:General_Info>
    <Datastrip_Time_Info>
      <DATASTRIP_SENSING_START>{_time(options.sensing)}</DATASTRIP_SENSING_START>
      <DATASTRIP_SENSING_STOP>{_time(options.sensing)}</DATASTRIP_SENSING_STOP>
    </Datastrip_Time_Info>
    <Processing_Info>
      <PROCESSING_BASELINE>{options.baseline}</PROCESSING_BASELINE>
      <UTC_DATE_TIME>{_time(options.generated)}</UTC_DATE_TIME>
    </Processing_Info>
  </n1:General_Info>
</n1:Level-{level}_DataStrip_ID>
"""


def manifest(root: pathlib.Path, level: str) -> str:
    """Returns the text of `manifest.safe`: the product's files with their sizes and checksums."""
    objects = "".join(
        f"""
    <dataObject ID="{path.relative_to(root).with_suffix("").as_posix().replace("/", "_")}">
      <byteStream mimeType="{"text/xml" if path.suffix == ".xml" else "application/octet-stream"}"\
 size="{path.stat().st_size}">
        <fileLocation href="./{path.relative_to(root).as_posix()}" locatorType="URL"/>
        <checksum checksumName="SHA3-256">{hashlib.sha3_256(path.read_bytes()).hexdigest()}</checksum>
      </byteStream>
    </dataObject>"""
        for path in sorted(path for path in root.rglob("*") if path.is_file())
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:gml="http://www.opengis.net/gml" xmlns:safe="http://www.esa.int/safe/sentinel/1.1"\
 xmlns:xfdu="urn:ccsds:schema:xfdu:1"\
 version="esa/safe/sentinel/1.1/sentinel-2/msi/archive_{level.lower()}_user_product">
  <dataObjectSection>{objects}
  </dataObjectSection>
</xfdu:XFDU>
"""


def _identifier(options: ProductOptions, kind: str) -> str:
    """Returns the long identifier of a granule (`TL`) or a data strip (`DS`)."""
    middle = f"A{options.absolute_orbit:06d}_T{options.tile}" if kind == "TL" else f"S{stamp(options.sensing)}"
    return (
        f"{options.satellite}_OPER_MSI_{options.level}_{kind}_EPAE_{stamp(options.generated)}_{middle}"
        f"_N{options.baseline}"
    )


def _time(when: datetime.datetime) -> str:
    return f"{when.isoformat(timespec='milliseconds')}Z"
