"""What names of scenes say."""

import datetime

import pytest

from eo_keras.geo import scene_names

NEW = "S2A_MSIL2A_20230625T234621_N0509_R073_T33UUU_20230626T022157"
OLD = "S2A_OPER_PRD_MSIL1C_PDMC_20160412T220102_R007_V20151211T070012_20151211T070045"
GRANULE = "S2A_OPER_MSI_L1C_TL_EPA__20170604T010049_A002448_T33UUU"


@pytest.mark.parametrize(
    ("name", "day"),
    [
        (NEW, "2023-06-25"),
        (f"{NEW}.SAFE", "2023-06-25"),
        ("S2A_MSIL1C_20180701_b", "2018-07-01"),
        (OLD, "2015-12-11"),
        (GRANULE, None),
        ("MSI_L1C_TL_EPA__20170604T010049_A002448", None),
        ("T31UDQ_20170829T105019", "2017-08-29"),
        ("L2A_T33UUU_20170823T094031", "2017-08-23"),
        ("S2A_33UUU_20230625_0_L2A", "2023-06-25"),
        ("20230625T100559_20230710T141230_T33UUU", "2023-06-25"),
        ("S2_20190723_Barbellino", "2019-07-23"),
        ("Boadella_2020-01-28", "2020-01-28"),
        ("leipzig_20180701_made_20190304", None),
        ("leipzig_20180701_2018-07-01", "2018-07-01"),
        ("leipzig", None),
        ("S2_20191399", None),
        ("S2_20190230", None),
    ],
)
def test_the_day_is_that_of_the_acquisition(name, day):
    assert scene_names.date_of(name) == (day and datetime.date.fromisoformat(day))


@pytest.mark.parametrize(
    ("name", "level"),
    [(NEW, "L2A"), (OLD, "L1C"), (GRANULE, "L1C"), ("S2A_33UUU_20230625_0_L2A", "L2A"), ("leipzig_l1c", "L1C")]
    + [("leipzig", None), ("XL1CX", None)],
)
def test_the_level_is_read_from_whole_words(name, level):
    assert scene_names.level_of(name) == level


@pytest.mark.parametrize(
    ("names", "has"),
    [
        ((NEW,), True),
        (("L2A_T33UUU_A041826_20230625T234624",), True),
        (("T33UUU_20230625T234621", "R10m", "IMG_DATA", f"{NEW}.SAFE"), True),
        (("S2B_MSIL2A_20180607T095029_N0208_R079_T33UYS_20180607T130225",), False),
        # Processed again: an old acquisition with an offset.
        (("S2B_MSIL2A_20180607T095029_N0500_R079_T33UYS_20230707T130225",), True),
        (("S2B_MSIL2A_20180607T095029_R079_T33UYS_20230707T130225",), True),
        (("S2B_MSIL2A_20180607T095029_R079_T33UYS_20180708T130225",), False),
        (("S2A_OPER_MSI_L2A_TL_2APS_20230626T022157_A041826_T33UUU_N05.09",), True),
        ((GRANULE,), False),
        (("T33UUU_20230625T234621",), True),
        (("20230625T100559_20230625T101230_T33UUU",), True),
        (("S2A_MSIL2A_20230625_town",), True),
        (("s2a_msil2a_20180625t234621_n0509_town",), True),
        (("S2A-MSIL2A-20180625-N0509-town",), True),
        (("T33UUU_20180625T234621",), None),
        (("S2A_33UUU_20230625_0_L2A",), None),
        (("town_2023-06-25",), None),
        (("town",), None),
    ],
)
def test_names_tell_of_an_offset(names, has):
    found, why = scene_names.has_offset(names)
    assert found is has
    assert bool(why) == (has is not None)


def test_tiles_are_told():
    assert scene_names.tile_of(NEW) == scene_names.tile_of("S2A_33UUU_20230625_0_L2A") == "33UUU"
    assert scene_names.tile_of("town_2018") is None
