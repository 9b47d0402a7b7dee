"""Stream of a block of a map: windows are read, predicted and blended, row by row, each step in threads of its own.

Memory depends on the block's width and on the size of a window, not on the number of rows.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
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
a classifier, (batch, classes). It is called in several threads at once."""

AT_ONCE = 2
"""Number of batches that are predicted at once: while one waits for memory or a single thread, the other computes."""

_SUBMITTED = 4
"""Number of batches that are predicted, or wait for it, while finished rows are written."""

_READ_AHEAD = 8
"""Number of strips and batches that are read before they are needed: decoding a row of a file's tiles takes as long as
several batches."""

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
        probabilities: float32 (rows, width, classes), means over the looks that are clear; 0 where none is. Valid until
            the next rows are taken.
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
        predicted = _predicted(read, predict, threads)
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
        self._runs = [list(_runs(*self._columns.weights(cell, self.left, self.right))) for cell in self.column_cells]
        left, right = (lattice.start(self.column_cells[place]) for place in (0, -1))
        places = np.arange(left, right + lattice.window)
        self._read_columns = mirrored(places, self._columns.first, self._columns.stop)
        self._mirrored_columns = np.flatnonzero(self._read_columns != places)
        # First row, pixels and clear ones of the row of windows that was read last, mirrored rows left out.
        self._kept: tuple[int, np.ndarray, np.ndarray] | None = None
        # What the windows above have added to the rows from `done` on; None for nothing.
        self.done = self.top
        self._clear = np.zeros((0, self.right - self.left), bool)
        self._sums: np.ndarray | None = None
        self._votes: np.ndarray | None = None
        # Buffers of strips: that of these rows, and those that are used again. New memory takes longer than its use.
        self._buffer: np.ndarray | None = None
        self._free: list[np.ndarray] = []

    # Reading, in its own thread.

    def strip(self, reader: PixelReader, cell: int) -> tuple[_Strip, np.ndarray, list[int]]:
        """Reads a row of windows.

        Returns:
            The strip, its pixels (window, columns of all windows, bands), and the windows with clear pixels.
        """
        image, clear = self._read(reader, self._rows.mirrored(cell))
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

    def _read(self, reader: PixelReader, rows: np.ndarray) -> Sequence[np.ndarray]:
        """Reads the pixels of rows over the columns of all windows, and which of them are clear."""
        top, bottom = int(rows.min()), int(rows.max()) + 1
        found, first = None, top
        if self._kept is not None and self._kept[0] <= top < self._kept[0] + len(self._kept[1]):
            # The windows above have read their overlap with these.
            found = [array[top - self._kept[0] : bottom - self._kept[0]] for array in self._kept[1:]]
            first += len(found[0])
        if first < bottom:
            left = int(self._read_columns.min())
            width = int(self._read_columns.max()) + 1 - left
            read = reader.read(first - self.look.row, left - self.look.column, bottom - first, width)
            columns = self._read_columns - left
            found = [self._joined(*arrays, columns) for arrays in zip(found or (None, None), read, strict=True)]
        self._kept = top, *found
        if np.array_equal(rows, np.arange(top, bottom)):
            return found
        return [array.take(rows - top, axis=0) for array in found]

    def _joined(self, above: np.ndarray | None, read: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Returns rows that were kept, if there are any, and below them others: given columns of what was read."""
        kept = 0 if above is None else len(above)
        joined = np.empty((kept + len(read), len(columns), *read.shape[2:]), read.dtype)
        if above is not None:
            joined[:kept] = above
        below, edges = joined[kept:], self._mirrored_columns
        inside = np.setdiff1d(np.arange(len(columns)), edges, assume_unique=True)
        if len(inside):
            place = slice(int(inside[0]), int(inside[-1]) + 1)
            below[:, place] = read[:, columns[place.start] : columns[place.stop - 1] + 1]
        below[:, edges] = read[:, columns[edges]]
        return joined

    # Blending. Arrays of probabilities have the shape (rows, width, classes) and lie in memory class by class, which
    # makes a pass over one class several times as fast.

    def add_window(self, strip: _Strip, place: int, probabilities: np.ndarray) -> None:
        """Adds a window's predictions to those of its strip."""
        lattice, strip.missing = self.lattice, strip.missing - 1
        if strip.sums is None:
            rows, values = lattice.window - 2 * lattice.margin, self._classes
            # Of one prediction for all pixels: one row, and the sum of the weights beside the classes.
            if probabilities.ndim == 1:
                strip.sums = self._zeros(1, values + 1)
            elif self._free:
                strip.sums = self._free.pop()
                strip.sums.fill(0)
            else:
                strip.sums = self._zeros(rows, values)
        if probabilities.ndim > 1:
            probabilities = probabilities[lattice.margin : lattice.window - lattice.margin]
            for here, inside, weights in self._runs[place]:
                if weights is None:
                    strip.sums[:, here] = probabilities[:, inside]
                else:
                    strip.sums[:, here] += weights[:, np.newaxis] * probabilities[:, inside]
            return
        for here, _, weights in self._runs[place]:
            # As much as of its window is clear.
            weights = strip.votes[place] if weights is None else weights[:, np.newaxis] * strip.votes[place]
            strip.sums[0, here, :-1] += weights * probabilities
            strip.sums[0, here, -1:] += weights

    def _zeros(self, rows: int, classes: int) -> np.ndarray:
        return np.zeros((classes, rows, self.right - self.left), np.float32).transpose(1, 2, 0)

    def add_strip(self, strip: _Strip) -> None:
        """Adds a complete row of windows, which begins at `done`, to the rows that are not finished."""
        here, inside, weights = self._rows.weights(strip.cell, self.top, self.bottom)
        self._clear, sums = strip.clear[inside], strip.sums
        if sums is not None and len(sums) == 1:
            self._add_patches(sums[0], weights)
            return
        if sums is not None:
            # The strip's own rows become those that are not finished.
            sums = sums[inside.start - self.lattice.margin : inside.stop - self.lattice.margin]
            for rows, _, ramp in _runs(slice(0, len(weights)), slice(0, len(weights)), weights):
                if ramp is not None:
                    sums[rows] *= ramp[:, np.newaxis, np.newaxis]
        if self._sums is not None and self._votes is None:
            sums = self._zeros(len(weights), self._classes) if sums is None else sums
            sums[: len(self._sums)] += self._sums
        if self._votes is None:
            self._release()
            self._sums, self._buffer = sums, strip.sums

    def _release(self) -> None:
        if self._buffer is not None:
            self._free.append(self._buffer)
            self._buffer = None

    def _add_patches(self, sums: np.ndarray, weights: np.ndarray) -> None:
        if self._votes is None:
            self._sums = self._zeros(self.lattice.window, self._classes)
            self._votes = np.zeros(self._sums.shape[:2], np.float32)
        self._sums[: len(weights)] += weights[:, np.newaxis, np.newaxis] * sums[:, :-1]
        self._votes[: len(weights)] += weights[:, np.newaxis] * sums[:, -1]

    def finished(self, stop: int) -> tuple[slice, np.ndarray, np.ndarray] | None:
        """Takes the rows up to a row of the map that all windows over them have been added to.

        Returns:
            The rows on the map, probabilities (rows, width, classes), and which pixels are clear; None if there are
            none.
        """
        rows = slice(self.done, min(stop, self.bottom))
        count = rows.stop - rows.start
        if count <= 0:
            return None
        self.done, clear = rows.stop, self._clear[:count]
        self._clear = self._clear[count:]
        if self._sums is None:
            return rows, self._zeros(count, self._classes), clear
        if self._votes is None:
            # The rest is copied, so that the strip's buffer can be used again when the rows have been taken.
            sums, self._sums = self._sums[:count], self._sums[count:].copy(order="K")
            self._release()
            return rows, sums, clear
        sums, votes = self._sums[:count].copy(), self._votes[:count, :, np.newaxis]
        # Clear pixels lie in a window that has them.
        np.divide(sums, votes, out=sums, where=votes > 0)
        _shift(self._sums, count)
        _shift(self._votes, count)
        return rows, sums, clear


def _runs(here: slice, inside: slice, weights: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray | None]]:
    """Divides pixels with weights into runs of weights that are 1, of which no other window has any, and others.

    Args:
        here: the pixels.
        inside: the same in a window.
        weights: their weights.

    Yields:
        Pixels, the same in the window, and their weights; None for 1.
    """
    changes = np.flatnonzero(np.diff(weights == 1)) + 1
    for first, stop in itertools.pairwise([0, *changes.tolist(), len(weights)]):
        if first < stop:
            part = None if weights[first] == 1 else weights[first:stop]
            yield (
                slice(here.start + first, here.start + stop),
                slice(inside.start + first, inside.start + stop),
                part,
            )


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


@functools.cache
def _predicting() -> concurrent.futures.ThreadPoolExecutor:
    """Returns the threads of this process that predict; TensorFlow keeps memory for every thread that has called it."""
    return concurrent.futures.ThreadPoolExecutor(AT_ONCE, "predicting")


def _predicted(
    items: Iterator[_Strip | _Batch], predict: Predict, opened: contextlib.ExitStack
) -> Iterator[tuple[_Strip | _Batch, np.ndarray | None]]:
    """Yields strips and batches as they come, the batches with their predictions, which threads compute ahead."""
    ahead: deque[tuple[_Strip | _Batch, concurrent.futures.Future[np.ndarray] | None]] = deque()
    batches = 0

    def stop() -> None:
        concurrent.futures.wait([future for _, future in ahead if future is not None and not future.cancel()])

    def first() -> tuple[_Strip | _Batch, np.ndarray | None]:
        item, future = ahead[0]
        predictions = None if future is None else future.result()
        ahead.popleft()
        return item, predictions

    opened.callback(stop)
    for item in items:
        batches += isinstance(item, _Batch)
        ahead.append((item, _predicting().submit(predict, item.images) if isinstance(item, _Batch) else None))
        while batches == _SUBMITTED:
            ready = first()
            batches -= ready[1] is not None
            yield ready
    while ahead:
        yield first()


def _blended(
    items: Iterator[tuple[_Strip | _Batch, np.ndarray | None]],
    looks: Sequence[_LookStream],
    block: Block,
    classes: int,
    first_clear: bool,
) -> Iterator[MapRows]:
    waiting: deque[_Strip] = deque()
    done, bottom = block.row, block.row + block.height
    lattice = looks[0].lattice
    # Strips of each row of the lattice that are not added yet.
    missing = collections.Counter(cell for look in looks for cell in look.row_cells)
    for item, predictions in items:
        if isinstance(item, _Strip):
            waiting.append(item)
        else:
            for (strip, place), values in zip(item.windows, predictions, strict=False):
                strip.look.add_window(strip, place, values)
        while waiting and not waiting[0].missing:
            strip = waiting.popleft()
            strip.look.add_strip(strip)
            missing[strip.cell] -= 1
            # Rows above the first window of the next row get nothing more, from any look.
            stop = min(bottom, lattice.start(strip.cell + 1) + lattice.margin)
            if not missing[strip.cell] and stop > done:
                yield _combined(looks, done, stop, block, classes, first_clear)
                done = stop
    if done < bottom:
        yield _combined(looks, done, bottom, block, classes, first_clear)


def _combined(
    looks: Sequence[_LookStream], start: int, stop: int, block: Block, classes: int, first_clear: bool
) -> MapRows:
    only = looks[0]
    whole = (only.done, only.left, only.right) == (start, block.column, block.column + block.width)
    if len(looks) == 1 and whole and stop <= only.bottom:
        _, values, clear = only.finished(stop)
        if not clear.all():
            values *= clear[..., np.newaxis]
        return MapRows(start, values, clear.astype(np.uint8))
    probabilities = np.zeros((classes, stop - start, block.width), np.float32).transpose(1, 2, 0)
    count = np.zeros((stop - start, block.width), np.uint16)
    for look in looks:
        found = look.finished(stop)
        if found is None:
            continue
        rows, values, clear = found
        here = slice(rows.start - start, rows.stop - start), slice(look.left - block.column, look.right - block.column)
        used = clear & (count[here] == 0) if first_clear else clear
        if not used.all():
            values *= used[..., np.newaxis]
        probabilities[here] += values
        count[here] += clear
    if len(looks) > 1 and not first_clear:
        probabilities /= np.maximum(count, 1)[..., np.newaxis]
    return MapRows(start, probabilities, np.minimum(count, 255).astype(np.uint8))


def _prefetched(items: Generator[_T], opened: contextlib.ExitStack) -> Iterator[_T]:
    """Returns an iterator whose items are made in a thread, some ahead; the thread ends when the stack is closed."""
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(_READ_AHEAD)
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
