import pytest

from eo_keras.errors import BandError
from eo_keras.sensors import catalogue


def test_the_sensor_of_bands():
    assert catalogue.of_bands(("B04", "B8A")) is catalogue.SENTINEL2
    assert catalogue.of_bands(("R", "NIR")) is catalogue.AERIAL
    assert catalogue.of_bands(["VV"]) is catalogue.SENTINEL1
    with pytest.raises(BandError, match="bands: B04,VV; expected those of one sensor"):
        catalogue.of_bands(("B04", "VV"))
