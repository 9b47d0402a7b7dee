"""What operating systems and tools leave beside data is known for what it is, and data are not."""

import pytest

from eo_keras.core.system_files import is_litter


@pytest.mark.parametrize(
    "path",
    [
        "._T33UUU_B02.jp2",
        "a/.DS_Store",
        "__MACOSX/a/._b.tif",
        "a/THUMBS.DB",
        "desktop.ini",
        "@eaDir/b.tif/SYNOFILE_THUMB.jpg",
        "a/.ipynb_checkpoints/b-checkpoint.tif",
        "b.tif.aux.xml",
        "b.tif.ovr",
        ".~lock.b.csv#",
        "~$b.xlsx",
        "b.tif~",
        "System Volume Information/x",
    ],
)
def test_litter(path):
    assert is_litter(path)


def test_data():
    for path in ("b.tif", "a.b/c.jp2", "MTD_MSIL2A.xml", "thumbs.db.tif", "a~b.png", "Icon.png", "a (1).png"):
        assert not is_litter(path)
