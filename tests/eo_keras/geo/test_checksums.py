"""Files hashed for a card, and the checksums that zips and products offer verified in the same pass."""

import hashlib
import pathlib
import zipfile

import numpy as np
import pytest

from eo_keras.core import files
from eo_keras.errors import SourceError
from eo_keras.geo import checksums
from tests.harness import products

METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def data_of(number):
    """Bytes that shrink by about a third."""
    return np.random.default_rng(number).integers(0, 40, 3_000_000).astype(np.uint8).tobytes()


def pack(path, members, method):
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def damage(path, name, share=0.5, count=12):
    """Changes some bytes in the middle of a member."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename.encode()) + int(info.compress_size * share)
    for place in range(start, start + count):
        content[place] ^= 0x5A
    path.write_bytes(content)
    return info


@pytest.mark.parametrize("method", METHODS)
def test_members_that_are_used_are_checked_and_others_only_hashed(tmp_path, method):
    path = pack(tmp_path / "a.zip", {"used": data_of(1), "b/ä": data_of(2), "empty": b""}, METHODS[method])
    whole = files.sha256_of_file(path)
    assert checksums.sha256_of_zip(path) == whole == checksums.sha256_of_zip(path, ["used"])
    info = damage(path, "b/ä")
    assert checksums.sha256_of_zip(path, ["used", "empty"]) == files.sha256_of_file(path) != whole
    for members in (None, ["used", "b/ä"]):
        with pytest.raises(SourceError, match="b/ä: ") as caught:
            checksums.sha256_of_zip(path, members)
        assert "download or copy it again" in str(caught.value)
    if method == "stored":
        assert f"expected {info.CRC:08x}" in str(caught.value) and "CRC-32 is " in str(caught.value)


def test_a_member_that_ends_early_or_never(tmp_path):
    path = pack(tmp_path / "a.zip", {"a": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    for said in (1000, 6_000_000):
        changed = bytearray(content)
        at = changed.find(b"PK\1\2") + 24
        changed[at : at + 4] = said.to_bytes(4, "little")
        path.write_bytes(changed)
        with pytest.raises(SourceError, match=f"a: its size is .*expected {said:,}"):
            checksums.sha256_of_zip(path)


def test_zips_in_zips_are_checked_too(tmp_path):
    inner = pack(tmp_path / "in.zip", {"a.gpkg": data_of(1)}, zipfile.ZIP_STORED)
    damage(inner, "a.gpkg")
    path = pack(tmp_path / "a.zip", {"in.zip": inner.read_bytes()}, zipfile.ZIP_STORED)
    with pytest.raises(SourceError, match="in.zip: a.gpkg: it cannot be read .*CRC"):
        checksums.sha256_of_zip(path)


def write_manifest(root, *, algorithm="MD5", sizes=True):
    """Writes manifest.safe as ESA does."""
    name = {"MD5": "md5", "SHA3-256": "sha3_256", "CRC-99": "md5"}[algorithm]
    listed = []
    for file in sorted(file for file in root.rglob("*") if file.is_file()):
        said = f' size="{file.stat().st_size}"' if sizes else ""
        digest = hashlib.new(name, file.read_bytes()).hexdigest().upper()
        listed.append(
            f'<dataObject ID="x"><byteStream mimeType="application/octet-stream"{said}>'
            f'<fileLocation locatorType="URL" href="./{file.relative_to(root).as_posix()}"/>'
            f'<checksum checksumName="{algorithm}">{digest}</checksum>'
            "</byteStream></dataObject>"
        )
    text = f'<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1"><dataObjectSection>{"".join(listed)}</dataObjectSection>'
    (root / checksums.MANIFEST).write_text(f"{text}</xfdu:XFDU>")
    return root


@pytest.fixture
def product(tmp_path):
    return products.write_product(tmp_path, level="L2A", bands=["B04", "B03"], suffix=".jp2", size=32)


def band(root, name="B04"):
    return next(pathlib.Path(root).rglob(f"*_{name}_10m.jp2"))


def check(path):
    manifest, name = checksums.manifest_above(path)
    return checksums.sha256_of_file(path, manifest.files.get(name))


@pytest.mark.parametrize("algorithm", ["MD5", "SHA3-256"])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_folders_files_are_held_against_its_manifest(product, algorithm, sizes):
    image = band(write_manifest(product, algorithm=algorithm, sizes=sizes))
    assert check(image) == files.sha256_of_file(image)
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    with pytest.raises(SourceError, match=f"_B04_10m.jp2: its {algorithm} is .*which manifest.safe says"):
        check(image)
    image.write_bytes(content[:-7])
    with pytest.raises(SourceError, match=r"_B04_10m.jp2: its (size|MD5|SHA3-256) is"):
        check(image)
    assert check(band(product, "B03"))


def test_what_nobody_lists_is_not_checked(product, tmp_path):
    assert checksums.manifest_above(band(product)) is None
    write_manifest(product, algorithm="CRC-99")
    assert checksums.manifest_of(product).files == {}
    # Images that were all rewritten, as by a reduction, are others than the listed ones.
    write_manifest(product)
    for image in product.rglob("*.jp2"):
        image.write_bytes(image.read_bytes() + b"\0")
    assert not checksums.manifest_of(product).is_of_these
    (product / checksums.MANIFEST).write_text("<xfdu")
    with pytest.raises(SourceError, match="manifest.safe: no whole XML file"):
        checksums.manifest_of(product)


def test_a_zip_that_was_packed_of_a_damaged_product(product, tmp_path):
    write_manifest(product)
    assert checksums.manifest_of(products.zipped(product, tmp_path / "good.zip")).is_of_these
    content = bytearray(band(product).read_bytes())
    content[-3] ^= 1
    band(product).write_bytes(content)
    path = products.zipped(product, tmp_path / "a.zip")
    manifest = checksums.manifest_of(path)
    used = [name for name in manifest.files if name.endswith("_B04_10m.jp2")]
    with pytest.raises(SourceError, match="_B04_10m.jp2: its MD5 is .*which manifest.safe says"):
        checksums.sha256_of_zip(path, used, manifest.files)


@pytest.mark.real_data
def test_real_products_whose_images_were_reduced_are_known_as_such(real_data):
    for path in sorted((real_data / "samples" / "safe_l2a").iterdir()):
        manifest = checksums.manifest_of(path)
        assert len(manifest.files) > 40 and not manifest.is_of_these
