"""Nothing that a downloaded file says makes a request, or opens files elsewhere: a server on this machine sees none."""

import http.server
import json
import pathlib
import shutil
import sqlite3
import threading
import zipfile

import numpy as np
import pytest
import rasterio

from eo_keras.errors import EOKerasError
from eo_keras.geo import images as rasters
from eo_keras.geo import polygons as vectors
from eo_keras.geo import scenes, vector_files
from eo_keras.geo.open_images import ImageKind, open_image
from eo_keras.geo.scene_reader import SceneReader
from tests.harness import products

PIXELS = np.full((3, 64, 64), 1500, np.uint16)
NAMES = ("B04", "B03", "B02")


@pytest.fixture(scope="module")
def server():
    """The URL of a server, and the requests that it has seen."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (the name is http.server's)
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", seen
        running.shutdown()


def wms(url):
    west, north = products.CORNER
    return f"""<GDAL_WMS><Service name="WMS"><ServerUrl>{url}/wms?</ServerUrl><Layers>x</Layers></Service><DataWindow>
<UpperLeftX>{west}</UpperLeftX><UpperLeftY>{north}</UpperLeftY><LowerRightX>{west + 640}</LowerRightX>
<LowerRightY>{north - 640}</LowerRightY><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow>
<Projection>{products.CRS}</Projection><BandsCount>3</BandsCount></GDAL_WMS>"""


def vrt(*sources, inner=""):
    west, north = products.CORNER
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{name}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="{int("/" not in source)}">{source.replace("<", "&lt;")}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource>{inner}</VRTRasterBand>"
        for number, (name, source) in enumerate(zip(NAMES, sources, strict=False), start=1)
    )
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>{products.CRS}</SRS>'
        f"<GeoTransform>{west},10,0,{north},0,-10</GeoTransform>{bands}</VRTDataset>"
    )


def use(path):
    """Opens and reads a scene, at full size and in overview."""
    scene = scenes.open_scene(path, scenes.SceneOptions(level="L2A"))
    with SceneReader(scene) as reader:
        return reader.read(0, 0, 64, 64)[0]


def tiff(path, **more):
    return products.write_raster(path, PIXELS, 10, names=NAMES, **more)


def named_tif(folder, url):
    (folder / "a.tif").write_text(wms(url))
    return folder / "a.tif"


def named_jp2(folder, url):
    (folder / "x_B04.jp2").write_text(vrt(f"/vsicurl/{url}/x.tif"))
    return folder


def remote_vrt(folder, url):
    (folder / "a.vrt").write_text(vrt(f"/vsicurl/{url}/x.tif"))
    return folder / "a.vrt"


def url_vrt(folder, url):
    (folder / "a.vrt").write_text(vrt(f"{url}/x.tif"))
    return folder / "a.vrt"


def inline_vrt(folder, url):
    (folder / "a.vrt").write_text(vrt(wms(url)))
    return folder / "a.vrt"


def nested_vrt(folder, url):
    (folder / "b.vrt").write_text(vrt(f"/vsicurl_streaming/{url}/x.tif"))
    (folder / "a.vrt").write_text(vrt("b.vrt"))
    return folder / "a.vrt"


def vrt_of_service(folder, url):
    (folder / "b.tif").write_text(wms(url))
    (folder / "a.vrt").write_text(vrt("b.tif"))
    return folder / "a.vrt"


def vrt_with_overview(folder, url):
    tiff(folder / "b.tif")
    overview = f"<Overview><SourceFilename>/vsicurl/{url}/o.tif</SourceFilename></Overview>"
    (folder / "a.vrt").write_text(vrt("b.tif", inner=overview))
    return folder / "a.vrt"


def in_safe(folder, url):
    root = products.write_product(folder, level="L2A", bands=["B04"], suffix=".jp2", size=16)
    next(root.rglob("*.jp2")).write_text(vrt(f"/vsicurl/{url}/x.tif"))
    return root


def in_zip(folder, url):
    return products.zipped(in_safe(folder, url), folder / "a.zip")


def overview_beside(folder, url):
    tiff(folder / "a.tif")
    (folder / "a.tif.ovr").write_text(wms(url))
    return folder / "a.tif"


def overview_in_tags(folder, url):
    tiff(folder / "a.tif")
    with rasterio.open(folder / "a.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{url}/o.tif")
    return folder / "a.tif"


def overview_in_side_file(folder, url):
    tiff(folder / "a.tif")
    said = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{url}/o.tif</MDI></Metadata>'
    (folder / "a.tif.aux.xml").write_text(f"<PAMDataset>{said}</PAMDataset>")
    return folder / "a.tif"


def mask_beside(folder, url):
    tiff(folder / "a.tif")
    (folder / "a.tif.msk").write_text(wms(url))
    return folder / "a.tif"


@pytest.mark.parametrize(
    "make",
    [
        *(named_tif, named_jp2, remote_vrt, url_vrt, inline_vrt, nested_vrt, vrt_of_service, vrt_with_overview),
        *(in_safe, in_zip, overview_beside, overview_in_tags, overview_in_side_file),
    ],
)
def test_scenes(server, tmp_path, make):
    url, seen = server
    seen.clear()
    with pytest.raises(EOKerasError) as caught:
        use(make(tmp_path, url))
    assert seen == [] and str(tmp_path) in str(caught.value)


def test_a_vrt_of_local_files_is_read(tmp_path):
    tiff(tmp_path / "b.tif")
    (tmp_path / "c.vrt").write_text(vrt("b.tif"))
    (tmp_path / "a.vrt").write_text(vrt("b.tif", str(tmp_path / "b.tif"), "c.vrt"))
    np.testing.assert_array_equal(use(tmp_path / "a.vrt"), PIXELS.transpose(1, 2, 0))


def test_a_vrt_of_files_in_a_zip_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tiff(tmp_path / "b.tif"), "in/b.tif")
    (tmp_path / "b.tif").unlink()
    for form in (f"/vsizip/{tmp_path}/b.zip/in/b.tif", f"/vsizip/{{{tmp_path}/b.zip}}/in/b.tif"):
        (tmp_path / "a.vrt").write_text(vrt(form))
        np.testing.assert_array_equal(use(tmp_path / "a.vrt"), PIXELS[:1].transpose(1, 2, 0))
    (tmp_path / "a.vrt").write_text(vrt("/vsizip//vsicurl/http://127.0.0.1:9/b.zip/in/b.tif"))
    with pytest.raises(EOKerasError, match="no file on a local disk"):
        use(tmp_path / "a.vrt")


def test_a_vrt_in_a_folder_of_bands_names_nothing_outside(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        tiff(folder / "b.tif")
    (inside / "x_B04.vrt").write_text(vrt("b.tif"))
    assert scenes.open_scene(inside).bands == ("B04",)
    (inside / "x_B03.vrt").write_text(vrt(str(outside / "b.tif")))
    with pytest.raises(EOKerasError, match="outside of the folder"):
        scenes.open_scene(inside)


def test_images(server, tmp_path):
    url, seen = server
    seen.clear()
    path = overview_in_tags(tmp_path, url)
    assert rasters.read_image(path).pixels.shape == (64, 64, 3)
    with pytest.raises(EOKerasError):
        rasters.read_image(named_tif(tmp_path, url))
    assert seen == []


@pytest.mark.parametrize("make", [overview_beside, overview_in_tags, overview_in_side_file, mask_beside])
def test_images_read_in_windows(server, tmp_path, make):
    """What lies beside an image, or its tags name, is not asked for."""
    url, seen = server
    seen.clear()
    with open_image(make(tmp_path, url), ImageKind("sentinel2", NAMES, "uint16")) as image:
        np.testing.assert_array_equal(image.read(0, 0, 64, 64).pixels, PIXELS.transpose(1, 2, 0))
        assert image.grid.pixel_size == 10
    assert seen == []


FEATURE = {
    "type": "Feature",
    "properties": {"code_2018": "11100"},
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
}


def collection(**more):
    return {"type": "FeatureCollection", "features": [FEATURE], **more}


@pytest.mark.parametrize(
    "content",
    [
        lambda url: collection(crs={"type": "link", "properties": {"href": f"{url}/crs", "type": "ogcwkt"}}),
        lambda url: collection(crs={"type": "URL", "properties": {"url": f"{url}/crs"}}),
        lambda url: {
            **collection(),
            "features": [
                {**FEATURE, "geometry": {**FEATURE["geometry"], "crs": {"type": "link", "properties": {"href": url}}}}
            ],
        },
        lambda url: {"type": "gdal_streamed_alg", "command_line": f"gdal vector pipeline ! read {url}/a.geojson"},
        lambda url: {"crs": None, "features": [], "links": [{"rel": "data", "href": f"{url}/collections"}]},
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_geojson(server, tmp_path, content, zipped):
    url, seen = server
    seen.clear()
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(content(url)))
    if zipped:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a.geojson")
        path = tmp_path / "a.zip"
    with pytest.raises(EOKerasError, match=r"a\.geojson"):
        vectors.read_polygons(path, None)
    assert seen == []


def test_geojson_that_names_its_crs_is_read(tmp_path):
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}}
    (tmp_path / "a.geojson").write_text("\ufeff" + json.dumps(collection(crs=named)))
    assert vectors.read_polygons(tmp_path / "a.geojson", None).crs == "EPSG:3035"


@pytest.mark.parametrize("text", ['<OGRVRTDataSource><OGRVRTLayer name="a"/></OGRVRTDataSource>', "<wfs/>", "WFS:x"])
def test_other_forms_under_a_known_name(server, tmp_path, text):
    url, seen = server
    seen.clear()
    for name in ("a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet"):
        (tmp_path / name).write_text(text.replace("<wfs", f'<OGRWFSDataSource href="{url}"'))
        with pytest.raises(EOKerasError):
            vector_files.find_layers(tmp_path / name)
    assert seen == []


def test_geopackages_with_views_and_links(server, tmp_path):
    import pyogrio.raw
    import shapely

    url, seen = server
    seen.clear()
    path = tmp_path / "a.gpkg"
    pyogrio.raw.write(
        str(path),
        geometry=shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)], object)),
        field_data=[np.array(["11100"], object)],
        fields=["code_2018"],
        layer="land",
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:4326",
    )
    linked = pathlib.Path(shutil.copy(path, tmp_path / "linked.gpkg"))
    for file, statements in (
        (path, [f"create view evil as select ogr_geocode('{url}') as fid, 1 as geom"]),
        (linked, [f"update gpkg_spatial_ref_sys set definition = '{url}/srs', organization = 'x' where srs_id = 4326"]),
    ):
        with sqlite3.connect(file) as connection:
            for statement in statements:
                connection.execute(statement)
        with pytest.raises(EOKerasError):
            vectors.read_polygons(file, None)
    assert seen == []


def test_a_crs_is_never_looked_up(server):
    url, seen = server
    seen.clear()
    for crs in (f"{url}/crs", "/etc/hostname", f"/vsicurl/{url}/crs"):
        with pytest.raises(EOKerasError, match="coordinate reference system"):
            vector_files.crs_of(vector_files.Layer(("a.parquet",), "a", (), crs))
    assert seen == []
