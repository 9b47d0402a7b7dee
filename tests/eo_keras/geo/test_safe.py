"""SAFE products: what the metadata say, and what is refused."""

import datetime

import pytest

from eo_keras.errors import SourceError
from eo_keras.geo import safe
from eo_keras.sensors.sentinel2 import BANDS
from tests.harness import products


@pytest.mark.real_data
def test_both_real_products_say_their_own_offsets(real_data):
    found = {}
    for path in sorted((real_data / "samples" / "safe_l2a").iterdir()):
        assert safe.is_product(path)
        product = safe.open_product(path)
        found[product.name[-22:-16]] = (product.level, product.date, product.baseline, set(product.offsets.values()))
        assert (product.quantification, product.nodata, product.saturated) == (10000, 0, 65535)
        # Level-2A products hold no cirrus band.
        assert set(product.files) == (set(BANDS) - {"B10"}) | {safe.SCL}
    assert found == {
        "T22HBD": ("L2A", datetime.date(2021, 1, 22), "02.14", {0.0}),
        "T01UBT": ("L2A", datetime.date(2023, 1, 22), "04.00", {-1000.0}),
    }


def test_offsets_are_read_by_band_id_and_in_the_order_of_the_metadata(tmp_path):
    # B8A has id 8 and B09 id 9, unlike in EuroSAT's files.
    offsets = {number: -1000 - number for number in reversed(range(13))}
    xml = products.metadata("L1C", "05.09", None, offsets=offsets)
    product = safe.open_product(products.write_product(tmp_path, baseline="05.09", bands=["B04"], xml=xml))
    assert product.offsets["B8A"] == -1008
    assert product.offsets["B09"] == -1009
    assert product.offsets["B01"] == -1000


def test_an_old_acquisition_reprocessed_carries_the_offset(tmp_path):
    root = products.write_product(tmp_path, baseline="05.00", offset=-1000, bands=["B04"], date="2018-07-01")
    product = safe.open_product(root)
    assert product.date.year == 2018
    assert product.offsets["B04"] == -1000


def test_zip_folder_and_a_folder_around_it_are_the_same_product(tmp_path):
    root = products.write_product(tmp_path / "a", bands=["B04", "B8A"])
    archive = products.zipped(root, tmp_path / "product.zip")
    opened = [safe.open_product(path) for path in (root, archive, root.parent)]
    assert all(safe.is_product(path) for path in (root, archive, root.parent))
    assert len({product.name for product in opened}) == 1
    assert opened[1].files["B8A"][0].startswith(f"/vsizip/{{{archive}}}/")
    assert opened[0].files["B8A"][0].startswith(str(root))


def test_the_finest_file_of_a_band_comes_first(tmp_path):
    root = products.write_product(tmp_path, level="L2A", bands=["B02", "B05"])
    (fine,) = root.rglob("*_B02_10m.tif")
    coarse = fine.parents[1] / "R60m" / fine.name.replace("10m", "60m")
    coarse.parent.mkdir()
    coarse.write_bytes(fine.read_bytes())
    assert [path.rpartition("_")[2] for path in safe.open_product(root).files["B02"]] == ["10m.tif", "60m.tif"]


def test_other_folders_are_no_products(tmp_path):
    (tmp_path / "plain").mkdir()
    assert not safe.is_product(tmp_path / "plain")
    assert not safe.is_product(tmp_path / "absent.zip")


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("", "no MTD_MSIL1C.xml or MTD_MSIL2A.xml is in it"),
        (products.metadata("L1C", None, None), "it has no PROCESSING_BASELINE"),
        (products.metadata("L1C", "N.A.", None), "whether the numbers carry an offset is unknown"),
        (products.metadata("L1C", "04.00", None), "processing baseline 04.00, but no RADIO_ADD_OFFSET of B01"),
        (
            products.metadata("L1C", "04.00", None, offsets=dict.fromkeys(range(12), -1000)),
            "no RADIO_ADD_OFFSET of B12",
        ),
        (products.metadata("L1C", "04.00", None, offsets={77: -1000}), "band_id '77'"),
        (products.metadata("L1C", "04.00", "many"), "RADIO_ADD_OFFSET of B01 is 'many'"),
        (products.metadata("L1C", "02.04", None, quantification="0"), "QUANTIFICATION_VALUE is 0.0"),
        (products.metadata("L1C", "02.04", None, date="someday"), "PRODUCT_START_TIME"),
        (products.metadata("L1C", "02.04", None)[:-40], "no whole XML file"),
        (
            products.metadata("L1C", "02.04", None, extra='<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'),
            "it declares a document type or entities",
        ),
    ],
)
def test_metadata_that_do_not_say_what_numbers_mean_are_refused(tmp_path, xml, said):
    root = products.write_product(tmp_path, bands=["B04"], xml=xml)
    with pytest.raises(SourceError) as error:
        safe.open_product(root)
    assert said in str(error.value)
    assert root.name in str(error.value)
    assert "\n" not in str(error.value)


def test_products_of_several_granules_and_without_images_are_refused(tmp_path):
    root = products.write_product(tmp_path, bands=["B04"])
    products.write_product(tmp_path, bands=["B04"], granule="T33UVU_A039718_20230122T101021")
    with pytest.raises(SourceError, match="2 granules"):
        safe.open_product(root)
    for image in root.rglob("*.tif"):
        image.unlink()
    with pytest.raises(SourceError, match="no band images"):
        safe.open_product(root)


def test_the_tags_of_2017_say_the_same(tmp_path):
    # Before 2018 Level-2A metadata had other names for some tags, and PRODUCT_TYPE S2MSI2Ap.
    xml = products.metadata("L2A", "02.05", None, quantification="5000", date="2017-08-23")
    for now, then in (
        ("<PRODUCT_URI>", "<PRODUCT_URI_1C>one.SAFE</PRODUCT_URI_1C><PRODUCT_URI_2A>"),
        ("</PRODUCT_URI>", "</PRODUCT_URI_2A>"),
        ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
        ("S2MSI2A<", "S2MSI2Ap<"),
        ("Product_Info>", "L2A_Product_Info>"),
    ):
        assert now in xml
        xml = xml.replace(now, then)
    product = safe.open_product(products.write_product(tmp_path, level="L2A", bands=["B02", "B04"], xml=xml))
    assert product.name == "S2A_MSIL2A_20170823T101021_N0205_R022_T33UUU"
    assert (product.level, product.baseline, product.quantification) == ("L2A", "02.05", 5000)
    assert set(product.offsets.values()) == {0}
