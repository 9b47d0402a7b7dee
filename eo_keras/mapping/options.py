"""Options of maps."""

from __future__ import annotations

import dataclasses

from eo_keras.core.engine_options import EngineOptions
from eo_keras.core.options import check, documented, nested, option
from eo_keras.errors import OptionError
from eo_keras.geo.scene_options import SceneReadingOptions
from eo_keras.mapping import clouds, plan, predictors
from eo_keras.mapping.products import ProductOptions

PICKS = ("mean", "latest", "clearest")
"""What a pixel takes of several clear looks: the mean of their probabilities, the latest one, or that of the scene with
the fewest clouds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionOptions(SceneReadingOptions):
    """Options of how a model predicts scenes; a base of `MapOptions`, and the options of `eo_keras.map_scene`."""

    window: int | None = option(
        None,
        minimum=16,
        help="Height and width in pixels of the windows that a segmentation model predicts at once. Default: those of "
        "its training.",
    )
    overlap: int | None = option(
        None, minimum=0, help="Pixels by which these overlap, at most half of them. Default: a quarter."
    )
    stride: int | None = option(
        None,
        minimum=1,
        help="Pixels from one patch of a classifier to the next; smaller ones give a finer map and take longer. "
        "Default: a quarter of the patch.",
    )
    tta: str = option(
        "none",
        choices=predictors.TTA,
        help="Test-time augmentation. d4: probabilities are averaged over the eight symmetries of each window.",
    )
    calibrated: bool | None = option(
        None,
        help="Whether the probabilities are those after the temperature that launch.evaluate fitted for the run. "
        "Default: where there is one.",
    )
    cloud_mask: str | None = option(
        None,
        choices=clouds.CLOUD_MASKS,
        help="What shows clouds and their shadows, which have no data in the map. scl: the scene classification of "
        "Level-2A. ukis: the networks of ukis-csmask (extra clouds). Default: scl where a scene has it, else none.",
    )
    pick: str = option(
        "mean",
        choices=PICKS,
        help="What a pixel takes of several scenes that are clear there: the mean of their probabilities, those of the "
        "latest scene, or those of the scene with the fewest clouds.",
    )
    allow_level_mismatch: bool = option(
        False,
        help="Whether scenes of another processing level than the model's are predicted; the map's tags say so.",
    )
    resolution: float | None = option(
        None,
        above=0,
        help="Pixel size of the map in meters; scenes are resampled to it. Default: that of the scenes, which must be "
        "the model's.",
    )
    area: str | None = option(
        None, path=True, help="File of polygons that the map covers. Default: all that the scenes cover."
    )
    batch_size: int | None = option(
        None, minimum=1, help="Windows predicted at once. Default: by the size of a window."
    )
    block_rows: int | None = option(
        None,
        minimum=1,
        affects_result=False,
        help=f"Rows of a block, the unit of work of several workers; it does not change the map. Default: "
        f"{plan.BLOCK_ROWS}, or {plan.BLOCK_CELLS} windows below each other where that is more.",
    )


@documented
@dataclasses.dataclass(frozen=True)
class MapOptions(PredictionOptions, EngineOptions):
    """Options of a map that is written."""

    run_dir: str = option(
        path=True, help="Model: a run folder made by launch.train, a .keras file beside its card, or an export."
    )
    scenes: tuple[str, ...] = option(
        path=True,
        help="Scenes: Sentinel-2 products (SAFE folders or zips), GeoTIFF, COG, VRT, JPEG 2000, folders of bands, or "
        "patterns in quotes such as `2018/*.zip`.",
    )
    output: str | None = option(
        None, path=True, repeatable=False, help="The map, a file NAME.tif; all else is written beside it as NAME..."
    )
    output_dir: str | None = option(
        None, path=True, repeatable=False, help="Folder of the map instead, which is called map.tif in it."
    )
    confidence: bool = option(False, help="Whether NAME_bands.tif holds the probability of each pixel's class, x 255.")
    entropy: bool = option(
        False, help="Whether it holds the entropy of the probabilities, x 255; 255 means that all are equal."
    )
    probabilities: bool = option(False, help="Whether it holds the probability of every class, x 255.")
    products: ProductOptions = nested(ProductOptions)
    overwrite: bool = option(
        False,
        affects_result=False,
        repeatable=False,
        help="Whether to replace files of these names that this program did not write, or another unfinished map.",
    )

    def __post_init__(self):
        """Checks the values, alone and together."""
        check(self)
        if (self.output is None) == (self.output_dir is None):
            found = "neither it nor `output_dir` is given" if self.output is None else "`output_dir` is given too"
            raise OptionError("output", found, "one of the two")
        if self.output is not None and not self.output.lower().endswith((".tif", ".tiff")):
            raise OptionError("output", f"'{self.output}'", "the name of a GeoTIFF, NAME.tif")
        if not self.scenes:
            raise OptionError("scenes", "it is empty", "at least one scene")
