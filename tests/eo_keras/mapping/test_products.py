import pytest

from eo_keras.errors import OptionError
from eo_keras.mapping.products import ProductOptions, write_products
from tests.eo_keras.mapping.test_areas import box, town, zones_file  # noqa: F401


def test_products_of_a_map(town, tmp_path):  # noqa: F811
    zones = zones_file(tmp_path / "zones.gpkg", [box(0, 0, 20, 300)], ["x"])
    options = ProductOptions(polygons=True, min_area_ha=1, simplify_m=15, areas=True, zones=str(zones))
    stages = []
    written = write_products(town, options, tmp_path, "other", lambda stage, done, total: stages.append(stage))
    assert {name: path.name for name, path in written.items()} == {
        "areas": "other_areas.csv",
        "zones": "other_zones.csv",
        "polygons": "other.gpkg",
    }
    assert all(path.stat().st_size for path in written.values())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["zones.gpkg", *(path.name for path in written.values())]
    )
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
