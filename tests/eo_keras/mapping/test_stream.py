import contextlib
import dataclasses
import threading

import numpy as np
import pytest

from eo_keras.errors import SourceError
from eo_keras.geo.grid import Grid
from eo_keras.geo.scenes import Scene
from eo_keras.mapping import plan as plans
from eo_keras.mapping.lattice import Lattice
from eo_keras.mapping.stream import StreamInput, stream

MASKS, PATCHES = Lattice.of_masks(32, 16), Lattice.of_patches(16, 6)
SHAPES = ((1, 1), (1, 40), (63, 200), (130, 97))


def convolve(images):
    """A 3 x 3 mean with zero padding, as a share of two classes."""
    values = np.pad(images[..., 0].astype(np.float32) / 100, ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:3]
    mean = sum(values[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    return np.stack([mean, 1 - mean], -1)


def classify(images):
    mean = images[..., 0].mean((1, 2)).astype(np.float32) / 100
    return np.stack([mean, 1 - mean], -1)


@dataclasses.dataclass
class Reader:
    """Reader of an array, whose pixels above 0 are clear."""

    image: np.ndarray
    fails_at: int = 10**9
    closed: bool = False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.closed = True

    def read(self, row, column, height, width):
        assert row >= 0 and column >= 0, "windows lie inside the scene"
        if row + height > self.fails_at:
            raise SourceError("a.jp2", "it cannot be read")
        part = self.image[row : row + height, column : column + width]
        assert part.shape[:2] == (height, width), "windows lie inside the scene"
        return part, part[..., 0] > 0


class World:
    """Scenes of arrays at places of one grid."""

    def __init__(self, *images, places=None):
        self.scenes, self.readers = [], {}
        for number, image in enumerate(images):
            row, column = (0, 0) if places is None else places[number]
            grid = Grid("EPSG:32632", (10.0, 0.0, 6e5 + 10 * column, 0.0, -10.0, 5e6 - 10 * row), *image.shape[:2])
            self.scenes.append(Scene(str(number), "p", "L1C", None, ("B04",), (), grid, None, "cubic"))
            self.readers[str(number)] = Reader(image)

    def plan(self, lattice, **options):
        return plans.make_plan(self.scenes, lattice, 2, resolution_m=10.0, **options)

    def rows(self, plan, block, model, batch_size=5, **options):
        inputs = StreamInput(lambda look: self.readers[look.scene.source], "uint16", 1, batch_size)
        return stream(plan, block, model, inputs, 2, **options)

    def map(self, lattice, model, *, batch_size=5, first_clear=False, **options):
        """Returns probabilities and looks of the whole map, each pixel of which must come once."""
        plan = self.plan(lattice, **options)
        probabilities = np.full((plan.grid.height, plan.grid.width, 2), np.nan, np.float32)
        looks = np.zeros(probabilities.shape[:2], np.uint8)
        for block in plan.blocks:
            row = block.row
            for rows in self.rows(plan, block, model, batch_size, first_clear=first_clear):
                assert rows.row == row and rows.looks.shape[1] == block.width
                row += len(rows.looks)
                here = slice(rows.row, row), slice(block.column, block.column + block.width)
                assert np.isnan(probabilities[here]).all()
                probabilities[here], looks[here] = rows.probabilities, rows.looks
            assert row == block.row + block.height
        return probabilities, looks


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 100, (height, width, 1)).astype(np.uint16)


def narrow_blocks(monkeypatch):
    """Makes blocks some windows wide."""
    monkeypatch.setattr(plans, "_BUFFERS", 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lattice", [MASKS, Lattice.of_masks(17, 4), Lattice.of_masks(64, 32)], ids=str)
def test_a_convolution_gives_its_answer_for_the_whole_mirrored_scene(shape, lattice):
    image = noise(*shape)
    found, looks = World(image).map(lattice, convolve)
    mirrored = image
    for axis in (0, 1):
        pads = [(0, 0)] * 3
        pads[axis] = 1, 1
        mirrored = np.pad(mirrored, pads, mode="reflect" if shape[axis] > 1 else "edge")
    np.testing.assert_allclose(found, convolve(mirrored[None])[0][1:-1, 1:-1], atol=1e-6)
    assert (looks == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("lattice", "model"), [(MASKS, convolve), (PATCHES, classify)], ids=["masks", "patches"])
def test_blocks_and_batches_do_not_change_the_map(monkeypatch, shape, lattice, model):
    image = noise(*shape)
    image[20:60, 30:60] = 0
    image[-1, -1] = 50
    world = World(image)
    expected, looks = world.map(lattice, model)
    np.testing.assert_array_equal(looks, image[..., 0] > 0)
    np.testing.assert_allclose(expected.sum(axis=-1), looks, atol=1e-5)
    for columns in (False, True):
        if columns:
            narrow_blocks(monkeypatch)
        for block_rows, batch_size in ((1, 4), (20, 7), (50, 1)):
            plan = world.plan(lattice, block_rows=block_rows)
            assert len({block.column for block in plan.blocks}) > 1 or not columns or shape[1] < 64
            found, clear = world.map(lattice, model, batch_size=batch_size, block_rows=block_rows)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(clear, looks)


@pytest.mark.parametrize(("lattice", "model"), [(MASKS, convolve), (PATCHES, classify)], ids=["masks", "patches"])
def test_scenes_with_hardly_any_data(lattice, model):
    def never(images):
        raise AssertionError("there is nothing to predict")

    image = np.zeros((63, 200, 1), np.uint16)
    probabilities, looks = World(image).map(lattice, never)
    assert not probabilities.any() and not looks.any()
    image[40, 133] = 80
    probabilities, looks = World(image).map(lattice, model)
    assert np.argwhere(looks).tolist() == [[40, 133]] and np.count_nonzero(probabilities.any(axis=-1)) == 1
    assert probabilities[40, 133].sum() == pytest.approx(1)
    # Windows without data are not predicted, and others once.
    image[:, :100] = 1
    predicted = []

    def counted(images):
        predicted.append(images.any(axis=(1, 2, 3)).sum())
        return model(images)

    World(image[:, :199]).map(lattice, counted, batch_size=8)
    axes = lattice.axis(0, 63).cells, lattice.axis(0, 199).cells
    assert 0 < sum(predicted) < len(axes[0]) * len(axes[1]) - 10


def test_a_classifier_counts_patches_by_what_is_clear_in_them():
    # Left half clear, with 90; of the right half a column at its end, with 10.
    image = np.zeros((16, 64, 1), np.uint16)
    image[:, :32], image[:, 63] = 90, 10
    lattice = Lattice.of_patches(16, 8)
    found, looks = World(image).map(lattice, lambda images: classify(images) > 0.5)
    assert (looks == (image[..., 0] > 0)).all()
    # By hand: in row 0, at column 31, from the patches with clear pixels alone, weighted by their share.
    axis, values, votes = lattice.axis(0, 64), 0.0, 0.0
    for cell in axis.cells:
        here, _, weights = axis.weights(cell, 31, 32)
        start, pixels = lattice.start(cell), axis.mirrored(cell)
        if here.stop > here.start and (share := (image[0, pixels, 0] > 0).mean()):
            assert start <= 31 < start + 16
            values += weights[0] * share * (image[0, pixels, 0].mean() > 50)
            votes += weights[0] * share
    assert 0 < values < votes
    assert found[0, 31, 0] == pytest.approx(values / votes, abs=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1)[looks > 0], 1, atol=1e-6)


def test_several_looks_are_averaged_or_the_first_clear_one_is_taken():
    shape, rng = (70, 90), np.random.default_rng(3)
    images = [noise(*shape, seed) for seed in (1, 2, 3)]
    clear = [rng.random(shape) < 0.6 for _ in images]
    for image, seen in zip(images, clear, strict=True):
        image[~seen] = 0
    alone = [World(image).map(MASKS, convolve)[0] for image in images]
    count = np.sum(clear, axis=0)
    found, looks = World(*images).map(MASKS, convolve, block_rows=30)
    np.testing.assert_array_equal(looks, count)
    expected = np.sum([one * seen[..., None] for one, seen in zip(alone, clear, strict=True)], axis=0)
    np.testing.assert_allclose(found, expected / np.maximum(count, 1)[..., None], atol=1e-6)
    found, looks = World(*images).map(MASKS, convolve, first_clear=True)
    np.testing.assert_array_equal(looks, count)
    first = np.where(count > 0, np.argmax(clear, axis=0), 0)
    expected = np.take_along_axis(np.array(alone), first[None, ..., None], axis=0)[0]
    np.testing.assert_array_equal(found, expected * (count > 0)[..., None])


@pytest.mark.parametrize(("lattice", "model"), [(MASKS, convolve), (PATCHES, classify)], ids=["masks", "patches"])
def test_neighboring_scenes_agree_where_they_overlap(lattice, model):
    ground, places = noise(120, 200), ((0, 0), (30, 70))
    parts = [ground[:90, :130], ground[30:, 70:]]
    both, looks = World(*parts, places=places).map(lattice, model, block_rows=40)
    inside = slice(30, 90), slice(70, 130)
    assert (looks[inside] == 2).all() and looks[0, 0] == looks[-1, -1] == 1 and looks[0, -1] == looks[-1, 0] == 0
    alone = []
    for part, (row, column) in zip(parts, places, strict=True):
        # On the grid of both, which the lattice lies on.
        frame = np.zeros_like(ground)
        frame[0, 0] = frame[-1, -1] = 1
        alone.append(World(part, frame, places=((row, column), (0, 0))).map(lattice, model, first_clear=True)[0])
    # Farther from the borders than windows with mirrored pixels have a say.
    inner = slice(46, 74), slice(86, 114)
    np.testing.assert_array_equal(alone[0][inner], alone[1][inner])
    np.testing.assert_array_equal(both[inner], alone[0][inner])
    # One scene alone gives the same where the other is not.
    np.testing.assert_array_equal(both[:30], alone[0][:30])


def threads():
    """Returns the threads of streams; those that predict are the process's own and stay."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    return {thread for thread in others if not thread.name.startswith("predicting")}


def test_streams_share_the_threads_that_predict():
    world, seen, both = World(noise(200, 50)), set(), threading.Barrier(2)

    def predict(images):
        if threading.current_thread() not in seen:
            seen.add(threading.current_thread())
            both.wait(timeout=10)  # Else one thread might be fast enough for all batches.
        return convolve(images)

    plan = world.plan(MASKS, block_rows=50)
    for block in plan.blocks:
        list(world.rows(plan, block, predict, 1))
    assert len(plan.blocks) > 2 and len(seen) == 2


@pytest.mark.parametrize("part", ["reader", "model"])
def test_errors_of_the_threads_reach_the_caller_and_end_them(part):
    world, before, rows = World(noise(400, 50)), threads(), []
    if part == "reader":
        world.readers["0"].fails_at = 200
        model, expected = convolve, SourceError
    else:
        model, expected = lambda images: 1 / 0, ZeroDivisionError
    plan = world.plan(MASKS)
    with pytest.raises(expected):
        for one in world.rows(plan, plan.blocks[0], model):
            rows.append(one)
    assert threads() <= before and world.readers["0"].closed
    # What had been read before the fault was mapped.
    assert sum(len(one.looks) for one in rows) > 100 or part == "model"


def test_a_reader_that_cannot_be_opened():
    world, before = World(noise(40, 50)), threads()
    plan = world.plan(MASKS)

    def refuse(look):
        raise SourceError(look.scene.source, "it is gone")

    with pytest.raises(SourceError, match="it is gone"):
        list(stream(plan, plan.blocks[0], convolve, StreamInput(refuse, "uint16", 1, 4), 2))
    assert threads() <= before


def test_a_stream_that_is_closed_early_ends_its_threads():
    world, before = World(noise(2000, 50)), threads()
    plan = world.plan(MASKS)
    with contextlib.closing(world.rows(plan, plan.blocks[0], convolve, 1)) as rows:
        next(rows)
        assert len(threads() - before) == 1, "one reads"
    assert threads() <= before and world.readers["0"].closed
