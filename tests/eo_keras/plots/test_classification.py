"""Tests of eo_keras.plots.classification: figures are decoded and compared, displayed pixels are worked out by hand."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from eo_keras import errors
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.metrics.scores import ReliabilityBin
from eo_keras.plots import classification, curves
from eo_keras.plots import figure as figures

NAMES = EUROSAT.class_names


def _decoded(png, smallest=(300, 100)):
    """Returns the figure's pixels after checking that it is a PNG of a sane size that is not blank."""
    assert isinstance(png, bytes)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert smallest[0] <= image.width <= 4000 and smallest[1] <= image.height <= 4000
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels < 200).any()
    # Nothing is cut off at the edges.
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()
    return pixels


def _tiles(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(count, 8, 8, 3), dtype=np.uint8)


def test_confusion_matrix():
    diagonal = np.diag(np.arange(1, 11) * 60)
    right = _decoded(classification.confusion_matrix_png(diagonal, NAMES, "Right"), (900, 700))
    wrong = _decoded(classification.confusion_matrix_png(diagonal[::-1], NAMES, "Right"), (900, 700))
    dark = right.sum(axis=2) < 200
    assert dark.mean() > 0.04, "Ten cells are full and therefore dark."
    assert not np.array_equal(right, wrong)
    assert classification.confusion_matrix_png(diagonal, NAMES, "Right") == classification.confusion_matrix_png(
        diagonal, NAMES, "Right"
    )


def test_confusion_matrix_with_a_class_without_examples_and_with_large_counts():
    _decoded(classification.confusion_matrix_png([[0, 0], [12_345_678, 1]], ["a", "b"], "Without support"))


def test_confusion_matrix_that_does_not_fit():
    with pytest.raises(ValueError, match="does not fit 3 class names"):
        classification.confusion_matrix_png(np.eye(2), "abc", "")


def test_per_cent_of_small_shares_is_not_zero():
    assert [classification._per_cent(share) for share in (1.0, 0.973, 0.0005, 0.00049)] == [
        "100.0 %",
        "97.3 %",
        "0.1 %",
        "<0.1 %",
    ]


def test_reliability():
    empty = [ReliabilityBin(0.0, 0.5, 0, 0.0, 0.0)]
    good = _decoded(classification.reliability_png([*empty, ReliabilityBin(0.5, 1.0, 90, 0.8, 0.8)], 0.0, "A"))
    bad = _decoded(classification.reliability_png([*empty, ReliabilityBin(0.5, 1.0, 90, 0.8, 0.2)], 0.6, "A"))
    assert good.shape == bad.shape and not np.array_equal(good, bad)
    _decoded(classification.reliability_png(empty, 0.0, "Empty bins only"))


def _mistakes(count):
    return (
        _tiles(count),
        ["HerbaceousVegetation"] * count,
        ["PermanentCrop"] * count,
        np.linspace(0.2, 0.9, count),
        [f"EuroSAT_RGB/River/River_{i}.jpg" for i in range(count)],
    )


@pytest.mark.parametrize("count", [1, 3, 8, 9, 41])
def test_mistakes(count):
    columns, rows = min(count, 8), -(-min(count, 40) // 8)
    # Tiles of about 1.85 inches at 150 dots an inch, whatever their number: captions are set for this size.
    pixels = _decoded(classification.mistakes_png(*_mistakes(count), "EuroSAT"), (260 * columns, 350 * rows))
    assert pixels.shape[1] < 290 * columns + 100


def test_mistakes_shows_the_40_surest_in_order():
    images, true, predicted, confidences, keys = _mistakes(45)
    # The same mistakes in another order are the same figure, and the five least sure do not show.
    back = classification.mistakes_png(images[::-1], true, predicted, confidences[::-1], keys[::-1], "T")
    hidden = images.copy()
    hidden[:5] = 0
    shown = images.copy()
    shown[5] = 0
    figure = classification.mistakes_png(images, true, predicted, confidences, keys, "T")
    assert figure == back
    assert figure == classification.mistakes_png(hidden, true, predicted, confidences, keys, "T")
    assert figure != classification.mistakes_png(shown, true, predicted, confidences, keys, "T")


def test_mistakes_tell_their_number_where_only_the_surest_are_given():
    given = _mistakes(5)
    assert classification.mistakes_png(*given, "T", total=5) == classification.mistakes_png(*given, "T")
    assert classification.mistakes_png(*given, "T", total=812) != classification.mistakes_png(*given, "T")


def test_samples_show_right_and_wrong_answers_in_their_order():
    images, true, predicted, confidences, keys = _mistakes(5)
    wrong = classification.samples_png(images, true, predicted, confidences, keys, "T")
    right = classification.samples_png(images, true, true, confidences, keys, "T")
    _decoded(wrong, (1000, 300))
    assert wrong != right
    assert wrong != classification.samples_png(images[::-1], true, predicted, confidences, keys, "T")


def test_lengths_are_compared_also_where_there_is_no_image():
    for draw in (classification.mistakes_png, classification.samples_png):
        with pytest.raises(ValueError, match=r"different lengths: \[0, 1\]"):
            draw(np.zeros((0, 8, 8, 3), np.uint8), ["a"], ["b"], [0.5], ["k"], "T")


def test_no_mistake():
    none = classification.mistakes_png(np.zeros((0, 64, 64, 3), np.uint8), [], [], [], [], "EuroSAT")
    assert _decoded(none).shape[0] < 500
    with pytest.raises(ValueError, match=r"different lengths: \[0, 1\]"):
        classification.mistakes_png(_tiles(1), [], [], [], [], "EuroSAT")


def test_contact_sheet():
    images = {name: list(_tiles(12, seed)) for seed, name in enumerate(NAMES)}
    pixels = _decoded(classification.contact_sheet_png(images, "EuroSAT"), (1200, 1200))
    eleventh = {name: values[:10] for name, values in images.items()}
    np.testing.assert_array_equal(_decoded(classification.contact_sheet_png(eleventh, "EuroSAT")), pixels)
    images["River"][9] = np.zeros((8, 8, 3), np.uint8)
    assert not np.array_equal(_decoded(classification.contact_sheet_png(images, "EuroSAT")), pixels)


def test_contact_sheet_shows_the_colours_of_the_images():
    colour = np.array([10, 200, 30], np.uint8)
    pixels = _decoded(classification.contact_sheet_png({"one": [np.tile(colour, (4, 6, 1))]}, "T"), (100, 50))
    assert (pixels == colour).all(axis=2).sum() > 5000


def test_contact_sheet_of_little():
    _decoded(classification.contact_sheet_png({"a": [], "b": _tiles(1)}, "One class is empty"), (200, 200))
    _decoded(classification.contact_sheet_png({"a": []}, "All classes are empty"), (200, 100))
    _decoded(classification.contact_sheet_png({}, "No class"))


def test_training_curves():
    history = {
        "loss": [2.0, 1.0, 0.5],
        "val_loss": [2.1, float("nan"), 0.7],
        "accuracy": [0.3, 0.6, 0.9],
        "val_accuracy": [0.3, float("nan"), 0.8],
        "learning_rate": [1e-3, 1e-4, 0.0],
        "epoch": [1, 2, 3],
    }
    pixels = _decoded(curves.training_curves_png(history, "ResNet-50"), (1500, 400))
    other = _decoded(curves.training_curves_png(history | {"val_accuracy": [0.3, 0.5, 0.8]}, "ResNet-50"))
    assert not np.array_equal(pixels, other)
    without_rate = {name: history[name] for name in ("loss", "accuracy")}
    assert _decoded(curves.training_curves_png(without_rate, "Two panels")).shape[1] < pixels.shape[1]


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": [], "accuracy": []},
        {"epoch": [1, 2], "seconds": [3.0, 4.0]},
        {"loss": [1.0], "other_accuracy": [0.5]},
        {"loss": [float("nan")]},
        {"val_loss": [1.0, 2.0], "learning_rate": [0.0, 0.0]},
        {"loss": np.linspace(2, 1, 300), "learning_rate": np.full(300, 0.01)},
    ],
    ids=["nothing", "no epoch", "other columns", "one epoch", "nan", "validation only", "long"],
)
def test_training_curves_of_unusual_histories(history):
    _decoded(curves.training_curves_png(history, "T"))


def test_titles_may_be_long_and_hold_dollars():
    title = "Cost in $ and again in $: " + "a long title " * 12
    _decoded(classification.confusion_matrix_png(np.eye(2), ["$a$", "b_{"], title))


def test_names_of_any_script_are_drawn_without_a_warning(monkeypatch):
    """As code points where no font has them, in labels that Matplotlib makes itself too."""
    latin = figures._characters() - {0x6797, 0x5730}
    monkeypatch.setattr(figures, "_characters", lambda: latin)
    assert figures.plain("林地 Wald $") == r"[U+6797 U+5730] Wald \$"
    assert figures.plain("Ελιά Лес") == "Ελιά Лес"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ["林地", "غابة", "Лес"]
        _decoded(classification.confusion_matrix_png(np.eye(3), names, "林"))
        figure = figures.new_figure(4, 3, "T")
        figure.add_subplot().set(xlabel="林", title="地")
        _decoded(figures.png_bytes(figure))


def test_numbers_of_unknown_meaning_are_stretched_to_be_seen():
    rng = np.random.default_rng(0)
    for kind, scale in ((np.uint8, 1), (np.uint16, 40)):
        dark = np.stack([rng.integers(1, 30, (40, 40)) * scale, rng.integers(3, 9, (40, 40)) * scale], -1).astype(kind)
        dark[:10] = 0
        shown = classification.to_display(dark, ("X", "Y"), np.dtype(kind).name, stretched=True)
        assert (shown[:10] == 0).all() and (shown[10:].min(), shown[10:].max()) == (0, 255)
        assert 110 < shown[10:].mean() < 145
    # Each image by itself, and one without data or of one number.
    several = np.stack([dark, np.zeros_like(dark), np.full_like(dark, 7), dark // 4])
    shown = classification.to_display(several, ("X", "Y"), "uint16", stretched=True)
    assert (shown[1] == 0).all() and (shown[2] == 128).all() and abs(int(shown[3].mean()) - int(shown[0].mean())) < 8


def test_floats_are_stretched_and_nan_is_no_data():
    backscatter = np.linspace(-30, 0, 101, dtype=np.float32).reshape(1, 101, 1).repeat(2, -1)
    backscatter[0, 0, 1], backscatter[0, 60, 0] = np.nan, -np.inf
    shown = classification.to_display(backscatter, ("VV", "VH"), "float32")[0]
    assert (shown == shown[:, :1]).all() and shown[0, 0] == shown[60, 0] == 0
    # Of 99 numbers the second and the 98th percentile are about the third and the 98th.
    assert shown[1:3, 0].tolist() == [0, 0] and shown[98:, 0].tolist() == [255] * 3
    assert shown[50, 0] == pytest.approx(127.5, abs=2) and (np.diff(shown[61:98, 0].astype(int)) > 0).all()
    # Height 0 is a height.
    heights = np.array([[[0], [0], [9]]], np.float32)
    assert classification.to_display(heights, ("HEIGHT",), "float32")[0, :, 0].tolist() == [0, 0, 255]


def test_three_bytes_are_shown_as_they_are():
    image = _tiles(2)
    image[0, 0, 0] = 0
    for names in (("B04", "B03", "B02"), ("B12", "B8A", "B04"), ("B02", "B03", "B04")):
        shown = classification.to_display(image, names, "uint8")
        assert shown.dtype == np.uint8
        np.testing.assert_array_equal(shown, image)
    np.testing.assert_array_equal(
        classification.to_display(image.astype(np.float32), ("B04", "B03", "B02"), "uint8"), image
    )


def test_digital_numbers_are_stretched_and_red_green_blue_is_found():
    # 1 + dn * 254 / 2750: 1375 -> 128, 550 -> 51.8, 2750 -> 255, 28000 -> 255, 0 -> 1.
    image = np.array([[[550, 1375, 2750, 9], [0, 0, 0, 0], [0, 28000, 0, 7]]], np.uint16)
    shown = classification.to_display(image, ("B02", "B03", "B04", "B08"), "uint16")
    assert shown.dtype == np.uint8
    # The second pixel is no data; the third one holds data in two bands and is therefore not black.
    np.testing.assert_array_equal(shown, [[[255, 128, 52], [0, 0, 0], [1, 255, 1]]])


def test_no_data_is_asked_of_all_bands():
    image = np.array([[[0, 0, 0, 500]]], np.uint16)
    shown = classification.to_display(image, ("B02", "B03", "B04", "B08"), "uint16")
    np.testing.assert_array_equal(shown, [[[1, 1, 1]]])


def test_first_three_bands_where_red_green_and_blue_are_not_all_there():
    image = np.array([[[1375, 550, 2750, 0]]], np.uint16)
    shown = classification.to_display(image, ("B12", "B8A", "B04", "B03"), "uint16")
    np.testing.assert_array_equal(shown, [[[128, 52, 255]]])


@pytest.mark.parametrize("names", [("B08",), ("B08", "B04")])
def test_one_or_two_bands_are_grey(names):
    image = np.array([[[1375, 7], [0, 0]]], np.uint16)[..., : len(names)]
    np.testing.assert_array_equal(classification.to_display(image, names, "uint16"), [[[128] * 3, [0] * 3]])
    bytes_shown = classification.to_display(np.array([[[90, 7]]])[..., : len(names)], names, "uint8")
    np.testing.assert_array_equal(bytes_shown, [[[90] * 3]])


def test_four_bytes_show_red_green_and_blue():
    shown = classification.to_display(np.array([[[1, 2, 3, 4]]], np.uint8), ("B02", "B03", "B04", "B08"), "uint8")
    np.testing.assert_array_equal(shown, [[[3, 2, 1]]])


def test_leading_axes_are_kept_and_the_input_is_not_changed():
    image = np.random.default_rng(0).integers(0, 4000, size=(2, 3, 4, 5, 13)).astype(np.uint16)
    before = image.copy()
    assert classification.to_display(image, [f"X{i}" for i in range(13)], "uint16").shape == (2, 3, 4, 5, 3)
    np.testing.assert_array_equal(image, before)


def test_what_cannot_be_displayed():
    with pytest.raises(errors.BandError, match=r"shape \(2, 2, 3\); expected .*2\) for the bands B04,B03"):
        classification.to_display(np.zeros((2, 2, 3)), ("B04", "B03"), "uint16")
    with pytest.raises(errors.RecordsError, match="dtype 'float64'; expected uint8, uint16 or float32"):
        classification.to_display(np.zeros((2, 2, 1)), ("B04",), "float64")
