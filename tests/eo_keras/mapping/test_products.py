import dataclasses
import re

import pytest
from PIL import Image

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo.class_map import open_class_map
from eo_keras.mapping.page import attribution_of
from eo_keras.mapping.products import ProductOptions, check_inputs, write_products
from tests.eo_keras.mapping.test_areas import box, town, zones_file  # noqa: F401


def test_products_of_a_map(town, tmp_path):  # noqa: F811
    zones = zones_file(tmp_path / "zones.gpkg", [box(0, 0, 20, 300)], ["x"])
    options = ProductOptions(
        polygons=True, min_area_ha=1, simplify_m=15, areas=True, zones=str(zones), quicklook=True, page=True
    )
    stages = []
    written = write_products(town, options, tmp_path, "other", lambda stage, done, total: stages.append(stage))
    assert {name: path.name for name, path in written.items()} == {
        "areas": "other_areas.csv",
        "zones": "other_zones.csv",
        "polygons": "other.gpkg",
        "quicklook": "other.png",
        "page": "other.html",
    }
    assert all(path.stat().st_size for path in written.values())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["zones.gpkg", *(path.name for path in written.values())]
    )
    page = written["page"].read_text()
    listed = [
        "town.tif",
        "town.tif.aux.xml",
        "town.qml",
        *(file.name for name, file in written.items() if name != "page"),
    ]
    assert all(f">{name}<" in page for name in listed)
    for text in ("How it was made", "Industrial", "100.00", "zone"):
        assert text in page
    # All is inside of the file.
    assert not re.search(r'(?:src|href)="(?!data:image/png|#)', page)
    image = Image.open(written["quicklook"])
    assert 100 < image.width < 2500 and 100 < image.height < 2500
    colors = {color for _, color in image.convert("RGB").getcolors(2**20)}
    assert {(217, 217, 217), (255, 0, 0), (204, 77, 242), (0, 166, 0)} <= colors
    assert list(dict.fromkeys(stages)) == ["adding up areas", "merging small regions", "tracing polygons"]
    assert not write_products(town, ProductOptions(), tmp_path, "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_area_ha": 1}, "min_area_ha: it is given, but no polygons"),
        ({"simplify_m": 1, "areas": True}, "simplify_m: it is given, but no polygons"),
        ({"zone_field": "name"}, "zone_field: it is given, but no zones"),
        ({"polygons": True, "min_area_ha": -1}, "min_area_ha: -1; expected 0 or more"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(OptionError, match=said):
        ProductOptions(**options)


def test_attribution_names_the_years_of_the_scenes(town):  # noqa: F811
    with open_class_map(town) as class_map:
        scenes = '[{"product": "S2A_MSIL1C_20180704T101021_N0206", "date": "2018-07-04"}, {"date": "2021-01-31"}]'
        tags = {"SCENES": scenes, "ATTRIBUTION": "EuroSAT, MIT licence"}
        made = dataclasses.replace(class_map, tags=tags)
        expected = "Contains modified Copernicus Sentinel data 2018-2021. EuroSAT, MIT licence."
        assert attribution_of(made) == expected
        assert attribution_of(class_map) == ""


def test_zones_are_read_before_there_is_a_map(town, tmp_path):  # noqa: F811
    with open_class_map(town) as class_map:
        grid = class_map.grid
    here = zones_file(tmp_path / "here.gpkg", [box(0, 0, 20, 300)], ["x"])
    there = zones_file(tmp_path / "there.gpkg", [box(90_000, 0, 90_020, 300)], ["x"])
    check_inputs(ProductOptions(zones=str(here)), grid)
    with pytest.raises(SourceError, match=r"there\.gpkg: its zones lie outside the map"):
        check_inputs(ProductOptions(zones=str(there)), grid)
