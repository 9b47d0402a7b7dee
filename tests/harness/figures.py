"""Figures that are not drawn: drawing takes most of the time of a short training."""

import contextlib


@contextlib.contextmanager
def undrawn():
    """Lets Matplotlib write pictures of one pixel, whose texts need no fonts."""
    import pytest
    from matplotlib.figure import Figure
    from PIL import Image

    from eo_keras.plots import figure as figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **_: Image.new("RGB", (1, 1)).save(file, "png"))
        patch.setattr(figures, "_set_fonts", lambda figure: None)
        yield
