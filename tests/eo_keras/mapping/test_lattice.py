import itertools

import numpy as np
import pytest

from eo_keras.mapping.lattice import Lattice, mirrored

LATTICES = (
    *(Lattice.of_masks(window, overlap) for window, overlap in ((64, 16), (64, 32), (64, 0), (63, 21), (17, 1))),
    *(Lattice.of_patches(window, stride) for window, stride in ((64, 8), (64, 64), (16, 5), (16, 1), (9, 8), (1, 1))),
)
EXTENTS = ((0, 1), (0, 200), (7, 8), (37, 100), (130, 421), (64, 128))


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
@pytest.mark.parametrize("extent", EXTENTS)
def test_weights_add_up_to_1_up_to_the_border(lattice, extent):
    first, stop = extent
    axis, total = lattice.axis(first, stop), np.zeros(stop - first)
    for cell in axis.cells:
        here, inside, weights = axis.weights(cell, first, stop)
        assert weights.dtype == np.float32 and (weights > 0).all()
        # Pixel for pixel, the part of the window that lies over these pixels.
        assert here.start + first == lattice.start(cell) + inside.start and here.stop - here.start == len(weights)
        assert inside.start >= lattice.margin and inside.stop <= lattice.window - lattice.margin
        total[here] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_weights_of_a_part_are_those_of_the_whole(lattice):
    axis = lattice.axis(11, 250)
    whole = {cell: axis.weights(cell, 11, 250) for cell in axis.cells}
    for first, stop in ((11, 12), (40, 41), (64, 130), (200, 250), (11, 250)):
        needed = []
        for cell, (here, _, weights) in whole.items():
            values = np.zeros(239, np.float32)
            values[here] = weights
            values = values[first - 11 : stop - 11]
            part = np.zeros(stop - first, np.float32)
            own, _, some = axis.weights(cell, first, stop)
            part[own] = some
            np.testing.assert_array_equal(part, values)
            needed += [cell] if values.any() else []
        # Not one window more than needed: each costs a prediction.
        assert list(axis.cells_over(first, stop)) == needed


def test_of_neighboring_windows_a_segmentation_model_keeps_the_middle():
    lattice = Lattice.of_masks(64, 16)
    assert (lattice.stride, lattice.margin) == (48, 4)
    axis = lattice.axis(0, 480)
    here, inside, weights = axis.weights(4, 0, 480)
    assert (here, inside) == (slice(4 * 48 - 4, 5 * 48 + 4), slice(4, 60))
    # The weights rise over the middle half of the overlap and are 1 between.
    np.testing.assert_allclose(weights[:8], (np.arange(8) + 0.5) / 8)
    np.testing.assert_array_equal(weights[8:-8], 1)
    np.testing.assert_allclose(weights[-8:], weights[7::-1])


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_blocks_edges(lattice):
    for (first, stop), largest in itertools.product(EXTENTS, (1, 10, 48, 64, 100, 1000)):
        edges = lattice.block_edges(first, stop, largest)
        assert (edges[0], edges[-1]) == (first, stop)
        sizes = np.diff(edges)
        assert (sizes > 0).all() and (sizes <= max(largest, lattice.stride)).all()
        if stop - first <= largest:
            assert len(edges) == 2
    # Blocks of a map's window meet where those of the map do.
    assert set(lattice.block_edges(100, 700, 100)[1:-1]) <= {
        lattice.stride // 2 + place * lattice.stride for place in range(1000)
    }


def test_mirrored_pixels_are_those_of_numpy():
    for first, stop, reach in ((0, 10, 4), (5, 9, 20), (3, 5, 7)):
        expected = np.pad(np.arange(first, stop), reach, mode="reflect")
        np.testing.assert_array_equal(mirrored(np.arange(first - reach, stop + reach), first, stop), expected)
    assert set(mirrored(np.arange(-30, 30), 7, 8)) == {7}
    axis = Lattice.of_masks(64, 32).axis(20, 60)
    for cell in axis.cells:
        pixels = axis.mirrored(cell)
        assert pixels.shape == (64,) and pixels.min() >= 20 and pixels.max() < 60
