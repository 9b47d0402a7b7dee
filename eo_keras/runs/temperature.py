"""Temperature of a run's confidences, where one was fitted for its present model."""

from __future__ import annotations

import os
import pathlib

from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.metrics import calibration
from eo_keras.metrics.calibration import Calibration
from eo_keras.runs import folder as runs

_REMEDY = "fit one with launch.evaluate, or leave `calibrated` out"


def path(run_dir: str | os.PathLike[str], model_name: str = runs.MODEL_NAME, symmetries: str = "none") -> pathlib.Path:
    """Returns the file of the temperature of one of a run's models: `evaluation/temperature.json` of the kept one."""
    last = "-last" if model_name == runs.LAST_MODEL_NAME else ""
    averaged = "" if symmetries == "none" else f"-{symmetries}"
    return pathlib.Path(run_dir) / runs.EVALUATION_DIR / f"temperature{last}{averaged}.json"


def find(
    run_dir: str | os.PathLike[str],
    calibrated: bool | None = None,
    symmetries: str = "none",
    model_name: str = runs.MODEL_NAME,
) -> tuple[Calibration | None, str]:
    """Returns the temperature of a run's model, and a text on it.

    Args:
        run_dir: the run folder.
        calibrated: whether it is wanted: None where there is one, True in any case, False not at all.
        symmetries: the average over symmetries that it was fitted for.
        model_name: name of the model in the run folder; by default that of the kept epoch.

    Raises:
        RunError: if it is wanted in any case and there is none for this model, or its file cannot be read.
    """
    if calibrated is False:
        return None, "none, as requested"
    kept = path(run_dir, model_name, symmetries)
    if not kept.is_file():
        if calibrated:
            raise RunError(run_dir, "no temperature was fitted for its model", f"{kept.name}", _REMEDY)
        return None, "none: launch.evaluate has fitted none"
    fitted = calibration.read_calibration(kept)
    if fitted.model_sha256 != files.sha256_of_file(runs.model_path(run_dir, model_name)):
        if calibrated:
            raise RunError(kept, "it was fitted for another model", "one for the run's model as it is now", _REMEDY)
        return None, f"none: {kept.name} was fitted for another model; evaluate the run again"
    cautions = "".join(f"; {caution}" for caution in fitted.cautions)
    text = f"{fitted.temperature:.3f}, fitted on {fitted.examples:,} examples ({fitted.fitted_on}){cautions}"
    return fitted, text
