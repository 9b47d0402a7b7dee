import numpy as np
import pytest

from eo_keras.errors import BandError, OptionError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors.sentinel2 import BANDS, EUROSAT_ORDER
from tfrecords_builder.synthetic.world import World, WorldOptions, cells_for

# Mean and standard deviation of the published archive (facts about EuroSAT, train split), in stored order.
PUBLISHED = dict(
    zip(
        EUROSAT_ORDER,
        (
            *((1354.4, 245.7), (1118.2, 333.0), (1042.9, 395.1), (947.6, 593.8), (1199.5, 566.4), (1999.8, 861.2)),
            *((2369.2, 1086.6), (2296.8, 1118.0), (732.1, 404.9), (12.1, 4.8), (1819.0, 1002.6), (1118.9, 761.3)),
            (2594.1, 1231.6),
        ),
        strict=True,
    )
)
PER_CLASS = 12


@pytest.fixture(scope="module")
def patches():
    world = World(WorldOptions(seed=3, cells=cells_for(PER_CLASS)))
    return {
        name: np.stack([world.image(*world.patch(label, number), 64, 64) for number in range(1, PER_CLASS + 1)]).astype(
            np.float64
        )
        for label, name in enumerate(EUROSAT.class_names)
    }


def band(images, name):
    return images[..., EUROSAT_ORDER.index(name)]


def test_band_statistics_lie_near_the_published_ones(patches):
    images = np.concatenate(list(patches.values()))
    for name, (mean, deviation) in PUBLISHED.items():
        values = band(images, name)
        assert 0.6 < values.mean() / mean < 1.4, name
        assert 0.6 < values.std() / deviation < 1.4, name
    assert 9 < band(images, "B10").mean() < 15
    assert images.min() >= 1


def test_cirrus_band_is_far_below_all_others_in_every_class(patches):
    for name, images in patches.items():
        means = dict(zip(EUROSAT_ORDER, images.mean((0, 1, 2)), strict=True))
        cirrus = means.pop("B10")
        assert 4 * cirrus < min(means.values()), name


def test_spectra_are_physically_plausible(patches):
    sea = patches["SeaLake"]
    for name, images in patches.items():
        assert band(images, "B09").mean() < band(images, "B8A").mean(), name
        if name != "SeaLake":
            assert band(images, "B11").mean() > 3 * band(sea, "B11").mean(), name
    forest, industrial = patches["Forest"], patches["Industrial"]
    assert band(forest, "B08").mean() > 3 * band(forest, "B04").mean()
    assert band(sea, "B02").mean() > band(sea, "B04").mean() > band(sea, "B08").mean()
    assert band(industrial, "B04").mean() > 1.5 * band(forest, "B04").mean()


def test_coarse_bands_are_smoother_than_fine_ones(patches):
    town = patches["Residential"]

    def roughness(name):
        values = band(town, name)
        return np.abs(np.diff(values, axis=2)).mean() / values.std(axis=(1, 2)).mean()

    assert roughness("B04") > 1.3 * roughness("B05") > 1.3 * roughness("B01")


def test_a_pixel_is_the_same_through_every_window_and_in_every_order_of_asking():
    options = WorldOptions(seed=5, cells=4)
    whole = World(options).image(60, 50, 150, 170)
    other = World(options)
    np.testing.assert_array_equal(other.image(150, 130, 40, 60), whole[90:130, 80:140])
    np.testing.assert_array_equal(other.image(60, 50, 1, 1), whole[:1, :1])
    swapped = other.image(100, 100, 30, 30, ("B8A", "B02"))
    np.testing.assert_array_equal(swapped[..., 1], whole[40:70, 50:80, EUROSAT_ORDER.index("B02")])
    np.testing.assert_array_equal(swapped[..., 0], whole[40:70, 50:80, EUROSAT_ORDER.index("B8A")])
    assert whole.dtype == np.uint16 and whole.shape == (150, 170, 13)


def test_a_larger_world_holds_the_smaller_one():
    small, large = World(WorldOptions(cells=2)), World(WorldOptions(cells=5))
    np.testing.assert_array_equal(small.image(0, 0, 192, 192, ("B04",)), large.image(0, 0, 192, 192, ("B04",)))
    np.testing.assert_array_equal(small.classes(0, 0, 192, 192), large.classes(0, 0, 192, 192))


def test_no_seams_show_where_the_blocks_of_rendering_meet():
    # Cells of 144 pixels, so that some joints of the 96-pixel blocks lie far inside a cell and of its border.
    world = World(WorldOptions(seed=2, cells=8, cell=144))
    image = world.image(0, 0, world.size, world.size, ("B05", "B01")).astype(float)
    for place, name in enumerate(("B05", "B01")):
        steps = np.abs(np.diff(image[..., place], axis=1)).mean(0)
        joints = np.concatenate([steps[95::288], steps[191::288]])
        # At multiples of 60 m from the joints, so that the spline is in the same phase.
        around = np.concatenate([steps[joint + offset :: 288] for joint in (95, 191) for offset in (-12, -6, 6, 12)])
        assert 0.9 < joints.mean() / around.mean() < 1.1, name


def test_seed_changes_the_ground_and_acquisition_only_the_day():
    first, other = World(WorldOptions(seed=1, cells=3)), World(WorldOptions(seed=2, cells=3))
    later = World(WorldOptions(seed=1, cells=3, acquisition=1))
    window = (0, 0, 288, 288)
    assert (first.classes(*window) != other.classes(*window)).mean() > 0.5
    np.testing.assert_array_equal(first.classes(*window), later.classes(*window))
    before, after = (world.image(*window, ("B08",)).astype(float) for world in (first, later))
    assert (before != after).mean() > 0.9
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9


def test_classes_by_pixel_and_by_landscape():
    world = World(WorldOptions(seed=1, cells=cells_for(4)))
    line = {EUROSAT.label_of("River"), EUROSAT.label_of("Highway")}
    for label in range(len(EUROSAT)):
        for number in range(1, 5):
            window = (*world.patch(label, number), 64, 64)
            assert (world.landscapes(*window) == label).all()
            share = (world.classes(*window) == label).mean()
            # Of a line's patch most is the land beside it, but the line is always there.
            assert 0.02 < share < 0.5 if label in line else share == 1, EUROSAT.class_names[label]
    river = EUROSAT.label_of("River")
    window = (*world.patch(river, 1), 64, 64)
    water, near_infrared = world.classes(*window) == river, world.image(*window, ("B08",))[..., 0]
    assert near_infrared[water].mean() < 0.5 * near_infrared[~water].mean()


def test_every_class_has_its_share_of_the_cells_and_no_two_patches_share_a_place():
    world = World(WorldOptions(cells=cells_for(40)))
    places = {world.patch(label, number) for label in range(10) for number in range(1, 41)}
    assert len(places) == 400
    for label in range(10):
        row, col = world.patch(label, 40)
        assert world.cell_class(row // 96, col // 96) == label


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 190, 5, 5), (0, 0, 0, 5), (188, 0, 5, 5)])
def test_windows_outside_the_world_are_refused(window):
    with pytest.raises(OptionError, match="192 x 192"):
        World(WorldOptions(cells=2)).classes(*window)


def test_wrong_options_and_bands_are_refused():
    with pytest.raises(OptionError, match="cells"):
        WorldOptions(cells=0)
    with pytest.raises(OptionError, match="seed"):
        WorldOptions(seed=1.5)
    with pytest.raises(BandError, match="B13"):
        World(WorldOptions(cells=1)).image(0, 0, 5, 5, ("B13",))
    world = World(WorldOptions(cells=2))
    for number in (0, -1, 9):
        with pytest.raises(OptionError, match="patch"):
            world.patch(0, number)


def test_grid():
    world = World()
    assert world.crs == "EPSG:32633"
    assert world.transform[:2] == (10.0, 0.0) and world.transform[4] == -10.0
    assert len(world.transform) == 6 and world.size == 16 * 96
    assert set(EUROSAT_ORDER) == set(BANDS)
