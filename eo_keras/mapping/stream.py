"""Stream of a block of a map: windows are read, predicted and blended, row by row, in three threads.

Memory depends on the block's width and on the size of a window, not on the number of rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from eo_keras.mapping.lattice import Lattice, mirrored
from eo_keras.mapping.plan import Block, Look, MapPlan

Predict = Callable[[np.ndarray], np.ndarray]
"""Function from windows (batch, window, window, bands) to probabilities float32 (batch, window, window, classes) or, of
a classifier, (batch, classes)."""

_AHEAD = 3
"""Number of batches that are read, or predicted, before they are needed."""

_T = TypeVar("_T")


class PixelReader(Protocol):
    """Interface of a scene's reader."""

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window inside the scene.

        Args:
            row: first row on the scene's grid.
            column: first column.
            height: rows.
            width: columns.

        Returns:
            Numbers of the model's input (height, width, bands), 0 without data; and which pixels are clear, bool
            (height, width).
        """
        ...


@dataclasses.dataclass(frozen=True)
class StreamInput:
    """Inputs of a model's windows.

    Attributes:
        open_reader: opens a look for reading; called in the thread that reads.
        dtype: type of the model's numbers.
        bands: their number of bands.
        batch_size: windows predicted at once; the last batch of a block is filled with zeros.
    """

    open_reader: Callable[[Look], contextlib.AbstractContextManager[PixelReader]]
    dtype: str
    bands: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class MapRows:
    """Finished rows of a block.

    Attributes:
        row: the map's row of the first one.
        probabilities: float32 (rows, width, classes), means over the looks that are clear; 0 where none is.
        looks: uint8 (rows, width), number of clear looks, at most 255.
    """

    row: int
    probabilities: np.ndarray
    looks: np.ndarray


@dataclasses.dataclass
class _Strip:
    """One row of windows of a look.

    Attributes:
        look: the stream of the look.
        cell: the row's number in the lattice.
        clear: bool (window, width), which pixels of the look's part of the block are clear; those of mirrored rows are
            not used.
        votes: float32 (windows,), share of clear pixels of each window.
        missing: windows that are not predicted yet.
        sums: blended predictions (rows of a window without margins, or 1, width, classes), made when they are needed.
    """

    look: _LookStream
    cell: int
    clear: np.ndarray
    votes: np.ndarray
    missing: int
    sums: np.ndarray | None = None


@dataclasses.dataclass
class _Batch:
    """Windows of one call of the model, and the strip and column of each."""

    images: np.ndarray
    windows: list[tuple[_Strip, int]]
    probabilities: np.ndarray | None = None


def stream(
    plan: MapPlan, block: Block, predict: Predict, inputs: StreamInput, classes: int, *, first_clear: bool = False
) -> Iterator[MapRows]:
    """Yields the rows of a block from top to bottom, each once.

    Args:
        plan: the plan of the map.
        block: one of its blocks.
        predict: the model.
        inputs: what it is given.
        classes: its number of classes.
        first_clear: whether each pixel takes the first clear look in the plan's order instead of the mean of all.

    Raises:
        SourceError: if a scene cannot be read.
    """
    looks = [_LookStream(plan.lattice, look, block.over(look), classes) for look in plan.looks_over(block)]
    with contextlib.ExitStack() as threads:
        read = _prefetched(_reading(looks, inputs), threads)
        predicted = _prefetched(_predicting(read, predict), threads)
        yield from _blended(predicted, looks, block, classes, first_clear)


class _LookStream:
    """A look's windows in a block, and the predictions of rows that are not finished.

    Args:
        lattice: the lattice.
        look: the look.
        extent: first row, end row, first column and end column that it shares with the block.
        classes: the number of classes.
    """

    def __init__(self, lattice: Lattice, look: Look, extent: tuple[int, ...], classes: int):
        self.lattice, self.look, self._classes = lattice, look, classes
        self.top, self.bottom, self.left, self.right = extent
        self._rows, self._columns = look.rows(lattice), look.columns(lattice)
        self.row_cells = self._rows.cells_over(self.top, self.bottom)
        self.column_cells = self._columns.cells_over(self.left, self.right)
        self._taken = [self._columns.weights(cell, self.left, self.right) for cell in self.column_cells]
        left, right = (lattice.start(self.column_cells[place]) for place in (0, -1))
        places = np.arange(left, right + lattice.window)
        self._window_columns = mirrored(places, self._columns.first, self._columns.stop)
        self._kept: tuple[int, np.ndarray, np.ndarray] | None = None
        # Rows from `done` on, which windows above have added to.
        self.done = self.top
        width = self.right - self.left
        self._sums = np.zeros((lattice.window, width, classes), np.float32)
        self._votes: np.ndarray | None = None
        self._clear = np.zeros((lattice.window, width), bool)

    # Reading, in its own thread.

    def strip(self, reader: PixelReader, cell: int) -> tuple[_Strip, np.ndarray, list[int]]:
        """Reads a row of windows.

        Returns:
            The strip, its pixels (window, columns of all windows, bands), and the windows with clear pixels.
        """
        rows, columns = self._rows.mirrored(cell), self._window_columns
        image, clear = self._read(reader, rows, columns)
        size, stride = self.lattice.window, self.lattice.stride
        # Clear pixels up to each column, for the count of any window.
        counts = np.concatenate([[0], np.cumsum(clear.sum(axis=0, dtype=np.int64))])
        starts = np.arange(len(self.column_cells)) * stride
        votes = ((counts[starts + size] - counts[starts]) / size**2).astype(np.float32)
        seen = [int(place) for place in np.flatnonzero(votes)]
        # The window's own pixels of the block, without mirrored ones.
        first = self.left - self.lattice.start(self.column_cells[0])
        own = clear[:, first : first + self.right - self.left]
        return _Strip(self, cell, own, votes, len(seen)), image, seen

    def _read(self, reader: PixelReader, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top, bottom, left = int(rows.min()), int(rows.max()) + 1, int(columns.min())
        width = int(columns.max()) + 1 - left
        first = top
        parts = []
        if self._kept is not None and self._kept[0] <= top < self._kept[0] + len(self._kept[1]):
            # The windows above have read their overlap with these.
            kept = slice(top - self._kept[0], bottom - self._kept[0])
            parts.append((self._kept[1][kept], self._kept[2][kept]))
            first += len(parts[0][0])
        if first < bottom:
            parts.append(reader.read(first - self.look.row, left - self.look.column, bottom - first, width))
        image, clear = (np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
        self._kept = top, image, clear
        return _taken(image, rows - top, columns - left), _taken(clear, rows - top, columns - left)

    # Blending.

    def add_window(self, strip: _Strip, place: int, probabilities: np.ndarray) -> None:
        """Adds a window's predictions to those of its strip."""
        here, inside, weights = self._taken[place]
        margin = self.lattice.margin
        if probabilities.ndim == 1:
            # One prediction for all pixels: as much as of its window is clear.
            if strip.sums is None:
                strip.sums = np.zeros((1, self.right - self.left, self._classes + 1), np.float32)
            weights = weights * strip.votes[place]
            strip.sums[0, here, :-1] += weights[:, np.newaxis] * probabilities
            strip.sums[0, here, -1] += weights
        else:
            if strip.sums is None:
                shape = self.lattice.window - 2 * margin, self.right - self.left, self._classes
                strip.sums = np.zeros(shape, np.float32)
            rows = slice(margin, self.lattice.window - margin)
            strip.sums[:, here] += weights[:, np.newaxis] * probabilities[rows, inside]
        strip.missing -= 1

    def add_strip(self, strip: _Strip) -> None:
        """Adds a complete row of windows to the rows that are not finished."""
        here, inside, weights = self._rows.weights(strip.cell, self.top, self.bottom)
        passed = self.done - self.top
        here = slice(here.start - passed, here.stop - passed)
        self._clear[here] = strip.clear[inside]
        if strip.sums is not None:
            sums, weights = strip.sums, weights[:, np.newaxis, np.newaxis]
            if len(sums) > 1:
                margin = self.lattice.margin
                self._sums[here] += weights * sums[inside.start - margin : inside.stop - margin]
            else:
                if self._votes is None:
                    self._votes = np.zeros(self._clear.shape, np.float32)
                self._sums[here] += weights * sums[..., :-1]
                self._votes[here] += weights[..., 0] * sums[..., -1]

    def finished(self, stop: int) -> tuple[slice, np.ndarray, np.ndarray] | None:
        """Takes the rows up to a row of the map that all windows over them have been added to.

        Returns:
            The rows on the map, probabilities (rows, width, classes), and which pixels are clear; None if there are
            none.
        """
        stop = min(stop, self.bottom)
        count = stop - self.done
        if count <= 0:
            return None
        sums, clear = self._sums[:count].copy(), self._clear[:count].copy()
        if self._votes is not None:
            votes = self._votes[:count, :, np.newaxis]
            np.divide(sums, votes, out=sums, where=votes > 0)
            # Clear pixels lie in a window that has them.
            _shift(self._votes, count)
        _shift(self._sums, count)
        _shift(self._clear, count)
        rows = slice(self.done, stop)
        self.done = stop
        return rows, sums, clear


def _taken(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns values at rows and columns; a view where these are in order."""
    for axis, places in enumerate((rows, columns)):
        if len(places) == values.shape[axis] and (np.diff(places) == 1).all():
            continue
        values = values.take(places, axis=axis)
    return values


def _shift(values: np.ndarray, count: int) -> None:
    values[:-count] = values[count:]
    values[-count:] = 0


def _reading(looks: Sequence[_LookStream], inputs: StreamInput) -> Generator[_Strip | _Batch]:
    """Yields each strip before the batches that hold its windows, all looks of one row of the lattice together."""
    batch: _Batch | None = None
    first, stop = min(look.row_cells.start for look in looks), max(look.row_cells.stop for look in looks)
    with contextlib.ExitStack() as opened:
        readers = [opened.enter_context(inputs.open_reader(look.look)) for look in looks]
        for cell in range(first, stop):
            for look, reader in zip(looks, readers, strict=True):
                if cell not in look.row_cells:
                    continue
                strip, image, seen = look.strip(reader, cell)
                yield strip
                size = look.lattice.window
                for place in seen:
                    if batch is None:
                        batch = _Batch(np.zeros((inputs.batch_size, size, size, inputs.bands), inputs.dtype), [])
                    start = place * look.lattice.stride
                    batch.images[len(batch.windows)] = image[:, start : start + size]
                    batch.windows.append((strip, place))
                    if len(batch.windows) == inputs.batch_size:
                        yield batch
                        batch = None
        if batch is not None:
            yield batch


def _predicting(items: Iterator[_Strip | _Batch], predict: Predict) -> Generator[_Strip | _Batch]:
    for item in items:
        if isinstance(item, _Batch):
            item.probabilities = predict(item.images)
        yield item


def _blended(
    items: Iterator[_Strip | _Batch], looks: Sequence[_LookStream], block: Block, classes: int, first_clear: bool
) -> Iterator[MapRows]:
    waiting: deque[_Strip] = deque()
    done, bottom = block.row, block.row + block.height
    lattice = looks[0].lattice

    def emit(stop: int) -> Iterator[MapRows]:
        nonlocal done
        if stop > done:
            yield _combined(looks, done, stop, block, classes, first_clear)
            done = stop

    for item in items:
        if isinstance(item, _Strip):
            waiting.append(item)
        else:
            for (strip, place), values in zip(item.windows, item.probabilities, strict=False):
                strip.look.add_window(strip, place, values)
            item.windows.clear()
        while waiting and not waiting[0].missing:
            strip = waiting.popleft()
            # Rows above the first window of this strip get nothing more, from any look.
            yield from emit(min(bottom, lattice.start(strip.cell) + lattice.margin))
            strip.look.add_strip(strip)
    yield from emit(bottom)


def _combined(
    looks: Sequence[_LookStream], start: int, stop: int, block: Block, classes: int, first_clear: bool
) -> MapRows:
    probabilities = np.zeros((stop - start, block.width, classes), np.float32)
    count = np.zeros((stop - start, block.width), np.uint16)
    for look in looks:
        found = look.finished(stop)
        if found is None:
            continue
        rows, values, clear = found
        here = slice(rows.start - start, rows.stop - start), slice(look.left - block.column, look.right - block.column)
        used = clear & (count[here] == 0) if first_clear else clear
        if not used.all():
            values[~used] = 0
        probabilities[here] += values
        count[here] += clear
    if len(looks) > 1 and not first_clear:
        several = count > 1
        probabilities[several] /= count[several][:, np.newaxis]
    return MapRows(start, probabilities, np.minimum(count, 255).astype(np.uint8))


def _prefetched(items: Generator[_T], opened: contextlib.ExitStack) -> Iterator[_T]:
    """Returns an iterator whose items are made in a thread, some ahead; the thread ends when the stack is closed."""
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # Raised again where the items are taken.
            put((False, error))
        finally:
            items.close()

    thread = threading.Thread(target=work, daemon=True)

    def stop() -> None:
        stopped.set()
        thread.join()

    opened.callback(stop)
    thread.start()

    def taken() -> Iterator[_T]:
        while True:
            is_item, value = _next(made, stopped)
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value

    return taken()


def _next(made: queue.Queue, stopped: threading.Event) -> tuple[bool, Any]:
    while not stopped.is_set():
        with contextlib.suppress(queue.Empty):
            return made.get(timeout=0.1)
    return False, None
