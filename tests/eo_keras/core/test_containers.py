"""Zips and folders as they come: what is no whole zip is named, and odd paths open all the same."""

import io
import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from eo_keras.core import containers
from eo_keras.errors import SourceError
from eo_keras.geo import polygons as vectors
from eo_keras.geo import safe, scenes
from tests.eo_keras.geo.test_checksums import damage
from tests.harness import products


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A SAFE folder of one band."""
    return products.write_product(
        tmp_path_factory.mktemp("product"), level="L2A", bands=["B04"], suffix=".jp2", size=16
    )


@pytest.fixture(scope="module")
def whole(product, tmp_path_factory):
    """The same as a zip."""
    return products.zipped(product, tmp_path_factory.mktemp("zip") / "product.zip")


def test_folders_called_as_zips_and_odd_letters_in_paths_are_no_obstacle(whole, product, tmp_path):
    for folder in ("my.zips", "a.zip", "a b", "a!b", "a#b?c", "ä中", "a{b}", "a}b", "a%20b"):
        (tmp_path / folder).mkdir()
        copied = shutil.copy(whole, tmp_path / folder / "p.zip")
        scene = scenes.open_scene(copied)
        assert scene.bands == ("B04",)
        assert containers.place_of(scene.layers[0].path)[0] == str(copied)
        assert containers.place_of(scene.layers[0].path)[1].endswith("_B04_10m.jp2")
    plain = shutil.copytree(product, tmp_path / "a#b?c" / "without ending")
    assert scenes.open_scene(plain).bands == ("B04",)
    # As the Copernicus Data Space calls what it sends where nobody gives it a name.
    assert scenes.open_scene(shutil.copy(whole, tmp_path / "$value")).bands == ("B04",)


def test_names_with_backslashes_are_read(product, tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for file in product.rglob("*.*"):
            if file.is_file():
                archive.writestr(str(file.relative_to(product.parent)).replace("/", "\\"), file.read_bytes())
    assert scenes.open_scene(tmp_path / "windows.zip").bands == ("B04",)


def test_litter_in_a_product_is_no_band(product, tmp_path):
    copied = pathlib.Path(shutil.copytree(product, tmp_path / product.name))
    for file in [file for file in copied.rglob("*") if file.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
        (file.parent / "@eaDir").mkdir(exist_ok=True)
        shutil.copy(file, file.parent / "@eaDir" / file.name)
    (named,) = safe.open_product(copied).files["B04"]
    assert "._" not in named and "@eaDir" not in named
    assert scenes.open_scene(products.zipped(copied, tmp_path / "a.zip")).bands == ("B04",)


def packed(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def patched(data, offset_local, offset_central, value):
    """A zip of one member with another number in both of its headers."""
    found = bytearray(data)
    for start, offset in ((data.find(b"PK\3\4"), offset_local), (data.find(b"PK\1\2"), offset_central)):
        found[start + offset : start + offset + 2] = value.to_bytes(2, "little")
    return bytes(found)


METADATA = {"x.SAFE/MTD_MSIL2A.xml": b"<a/>" * 100}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "it is cut off.*Download or copy it again, whole"),
        (lambda whole: b"", "the file is empty.*Download"),
        (lambda whole: b"<!DOCTYPE html><html>Sign in</html>", "a web page.*log in, and download the zip again"),
        (lambda whole: b'{"detail":"Expired signature!"}', "it begins with .*Expired signature.*Download"),
        (lambda whole: b"\x1f\x8b" + bytes(100), "a gzip archive.*Unpack it"),
        (lambda whole: packed({}), "it is empty.*Download"),
        (lambda whole: packed({"S2A.zip": whole}), r"other zips \(S2A.zip\).*Unpack it, and name one of those"),
        (lambda whole: packed({"tiles/33/U/UU/2023/6/25/0/B04.jp2": b"x"}), "otherwise than by ESA.*name the folder"),
        (lambda whole: packed({"a.txt": b"x"}), "no MTD_MSIL1C.xml or MTD_MSIL2A.xml is in it"),
        (lambda whole: patched(packed(METADATA), 6, 8, 1), "it is encrypted.*with its password"),
        (lambda whole: patched(packed(METADATA), 8, 10, 9), "packed by Deflate64.*Unpack it and give the folder"),
        (lambda whole: packed({"../x.SAFE/MTD_MSIL2A.xml": b"x"}), "leaves its folder"),
    ],
)
def test_what_a_zip_is_instead_is_said(whole, tmp_path, content, said):
    path = tmp_path / "p.zip"
    path.write_bytes(content(whole.read_bytes()))
    with pytest.raises(SourceError, match=said) as caught:
        scenes.open_scene(path)
    assert "by its name" not in str(caught.value)


@pytest.mark.parametrize(("flag", "value", "said"), [((6, 8), 1, "encrypted"), ((8, 10), 9, "Deflate64")])
def test_a_member_that_gdal_cannot_unpack_is_named(whole, tmp_path, flag, value, said):
    data = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        image = next(info for info in archive.infolist() if info.filename.endswith(".jp2"))
    at = image.header_offset + flag[0]
    data[at : at + 2] = value.to_bytes(2, "little")
    at = data.find(b"PK\1\2", 0)
    while data[at + 46 : at + 46 + len(image.filename)] != image.filename.encode():
        at = data.find(b"PK\1\2", at + 4)
    data[at + flag[1] : at + flag[1] + 2] = value.to_bytes(2, "little")
    (tmp_path / "p.zip").write_bytes(data)
    with pytest.raises(SourceError, match=f"_B04_10m.jp2: it is .*{said}"):
        scenes.open_scene(tmp_path / "p.zip")


def test_two_files_of_one_name_or_band_are_refused(product, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        (tmp_path / "twice.zip").write_bytes(b"")
        with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
            for data in (b"1", b"2"):
                archive.writestr("x.SAFE/MTD_MSIL2A.xml", data)
    with pytest.raises(SourceError, match="two files called x.SAFE/MTD_MSIL2A.xml"):
        scenes.open_scene(tmp_path / "twice.zip")
    copied = pathlib.Path(shutil.copytree(product, tmp_path / product.name))
    (image,) = copied.rglob("*_B04_10m.jp2")
    shutil.copy(image, image.with_suffix(".tif"))
    with pytest.raises(SourceError, match="B04_10m.jp2 and .*B04_10m.tif are both B04 at 10 m"):
        safe.open_product(copied)


def test_a_raster_is_told_for_what_it_is(whole, tmp_path):
    tif = products.write_raster(tmp_path / "a.tif", np.full((1, 8, 8), 900, np.uint16), 10, names=("B04",))
    for name, data, said in (
        ("b.jp2", tif.read_bytes(), r"b.jp2: this is a TIFF .*ends in .tif"),
        ("c.tif", b"\xff\x4f\xff\x51" + bytes(9), "c.tif: this is a JPEG 2000 file .*ends in .jp2"),
        ("d.tif", b"\n<html>Sign in</html>", "d.tif: this is XML or a web page.*download the image again"),
        ("e.tif", b"", "e.tif: the file is empty.*Copy it again"),
        ("f.tif", b"something", "f.tif: it cannot be opened as GTiff.*Copy it again"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=said):
            scenes.open_scene(tmp_path / name)
    with zipfile.ZipFile(whole) as archive:
        (image,) = (name for name in archive.namelist() if name.endswith(".jp2"))
    damaged = pathlib.Path(shutil.copy(whole, tmp_path / "damaged.zip"))
    damage(damaged, image, share=0.01)
    with pytest.raises(SourceError, match=rf"damaged.zip: {image}: (its CRC-32 is|its size is|it cannot be unpacked)"):
        scenes.open_scene(damaged)


def test_a_web_page_in_place_of_a_zip_of_land_use(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(SourceError, match="a.zip: this is a web page.*log in"):
        vectors.read_polygons(tmp_path / "a.zip", None)
