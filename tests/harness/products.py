"""Tiny Sentinel-2 products in the true layout, with the faults that a test asks for."""

import pathlib
import zipfile

import numpy as np
import rasterio
from rasterio.transform import from_origin

from eo_keras.sensors.sentinel2 import BANDS, NOMINAL_ORDER

CORNER = (399_960.0, 5_900_040.0)
CRS = "EPSG:32633"


def band_pixels(name, size, resolution):
    """Numbers that differ between bands and places, far from 0."""
    edge = size * 10 // resolution
    rows, columns = np.mgrid[:edge, :edge] * resolution // 10
    return (2000 + 100 * NOMINAL_ORDER.index(name) + 3 * rows + columns).astype(np.uint16)


def write_raster(path, pixels, resolution, *, corner=CORNER, crs=CRS, driver=None, nodata=None, names=None, **profile):
    """Writes (height, width) or (bands, height, width) numbers as a raster."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    if pathlib.Path(path).suffix == ".jp2":
        profile |= {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    profile = {"driver": driver or "GTiff", "nodata": nodata} | profile
    if crs:
        profile |= {"crs": crs, "transform": from_origin(*corner, resolution, resolution)}
    shape = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", **shape, **profile) as dataset:
        dataset.write(pixels)
        for index, name in enumerate(names or (), start=1):
            dataset.set_band_description(index, name)
    return pathlib.Path(path)


def metadata(level, baseline, offset, *, quantification="10000", date="2023-01-22", offsets=None, extra=""):
    """The text of MTD_MSIL1C.xml or MTD_MSIL2A.xml, shortened to what says what the numbers mean."""
    tag = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    value = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    if offsets is None:
        offsets = {} if offset is None else dict.fromkeys(range(13), offset)
    listed = "".join(f'<{tag} band_id="{band}">{number}</{tag}>' for band, number in offsets.items())
    spectral = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="{name.replace("B0", "B")}"/>'
        for number, name in enumerate(NOMINAL_ORDER)
    )
    product_type = {"L1C": "S2MSI1C", "L2A": "S2MSI2A"}[level]
    said = f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>" if baseline else ""
    uri = f"S2A_MSI{level}_{date.replace('-', '')}T101021_N{(baseline or '').replace('.', '')}_R022_T33UUU"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>{extra}
<n1:Level_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product.xsd"><n1:General_Info><Product_Info>
<PRODUCT_START_TIME>{date}T10:10:21.024Z</PRODUCT_START_TIME><PRODUCT_URI>{uri}.SAFE</PRODUCT_URI>
<PRODUCT_TYPE>{product_type}</PRODUCT_TYPE>{said}
</Product_Info><Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
</Special_Values><{value} unit="none">{quantification}</{value}><Offsets>{listed}</Offsets>
<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics></n1:General_Info>
</n1:Level_User_Product>"""


def write_product(
    folder,
    *,
    level="L1C",
    baseline="02.04",
    offset=None,
    size=60,
    suffix=".tif",
    bands=None,
    scl=None,
    pixels=band_pixels,
    xml=None,
    date="2023-01-22",
    corner=CORNER,
    crs=CRS,
    granule="T33UUU_A039718_20230122T101021",
):
    """Writes a product of `size` 10 m pixels and returns the SAFE folder."""
    name = f"S2A_MSI{level}_{date.replace('-', '')}T101021_N{baseline.replace('.', '')}_R022_T33UUU_20230122T125921"
    root = pathlib.Path(folder) / f"{name}.SAFE"
    images = root / "GRANULE" / f"{level}_{granule}" / "IMG_DATA"
    for band in bands or [band for band, facts in BANDS.items() if level in facts.levels]:
        resolution = BANDS[band].resolution_m
        parent, ending = (images / f"R{resolution}m", f"_{resolution}m") if level == "L2A" else (images, "")
        parent.mkdir(parents=True, exist_ok=True)
        path = parent / f"T33UUU_20230122T101021_{band}{ending}{suffix}"
        write_raster(path, pixels(band, size, resolution), resolution, corner=corner, crs=crs)
    if scl is not None:
        (images / "R20m").mkdir(parents=True, exist_ok=True)
        write_raster(
            images / "R20m" / f"T33UUU_20230122T101021_SCL_20m{suffix}",
            scl.astype(np.uint8),
            20,
            corner=corner,
            crs=crs,
        )
    if xml is None:
        xml = metadata(level, baseline, offset, date=date)
    if xml:
        (root / f"MTD_MSI{level}.xml").write_text(xml, encoding="utf-8")
    return root


def zipped(root, path):
    """Packs a SAFE folder as the archives of the Copernicus Data Space do."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    return path
