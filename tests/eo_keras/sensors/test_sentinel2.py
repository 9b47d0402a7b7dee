import pytest

from eo_keras.errors import BandError
from eo_keras.sensors import sentinel2


def test_eurosat_stores_b8a_last():
    assert sentinel2.EUROSAT_ORDER[-1] == "B8A"
    assert sentinel2.EUROSAT_ORDER[8:12] == ("B09", "B10", "B11", "B12")
    assert sentinel2.NOMINAL_ORDER[8] == "B8A"
    assert sorted(sentinel2.EUROSAT_ORDER) == sorted(sentinel2.NOMINAL_ORDER)
    assert len(set(sentinel2.EUROSAT_ORDER)) == 13


def test_wavelengths_rise_and_level_2a_lacks_cirrus():
    bands = list(sentinel2.BANDS.values())
    assert [band.wavelength_nm for band in bands] == sorted(band.wavelength_nm for band in bands)
    assert [band.name for band in bands if "L2A" not in band.levels] == ["B10"]
    assert {band.name for band in bands if band.resolution_m == 10} == {"B02", "B03", "B04", "B08"}
    assert {band.name for band in bands if band.resolution_m == 60} == {"B01", "B09", "B10"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("RGB", ("B04", "B03", "B02")),
        ("ci", ("B08", "B04", "B03")),
        ("SWIR", ("B12", "B8A", "B04")),
        ("all", sentinel2.EUROSAT_ORDER),
        ("B04,B8A", ("B04", "B8A")),
        (" b4 , b08a", ("B04", "B8A")),
        ("B12", ("B12",)),
    ],
)
def test_parse_bands(text, names):
    assert sentinel2.parse_bands(text, sentinel2.EUROSAT_ORDER) == names


@pytest.mark.parametrize("text", ["B13", "", "B04,B04", "NDVI", "B04;B03"])
def test_impossible_bands_are_refused(text):
    with pytest.raises(BandError):
        sentinel2.parse_bands(text)


def test_bands_that_the_data_lacks_are_named():
    with pytest.raises(BandError, match="does not hold B08; expected bands out of B04,B03,B02"):
        sentinel2.parse_bands("CI", sentinel2.COMPOSITES["RGB"])


def test_nearest_band():
    assert sentinel2.nearest_band("B8A", ("B04", "B03", "B02")) == "B04"
    assert sentinel2.nearest_band("B01", ("B04", "B03", "B02")) == "B02"
