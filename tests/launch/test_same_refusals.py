"""What `train` refuses, the sweep refuses before its first run and the doctor names, with the same words."""

import pytest
from absl import flags

from launch import app, doctor, sweep, train

BAD = {
    ("model=deeplab_resnet14", "loss=hinge", "crop=5"): "crop: 5; expected 32 or more",
    ("model=deeplab_resnet14", "loss=hinge"): "loss: 'hinge'; expected one of cross_entropy",
    ("model=deeplab_resnet14",): "model: deeplab_resnet14 is for segmentation, the records are for classification",
    ("model=inception",): "model: 'inception'; expected one of resnet50",
    ("loss=focal",): "loss: it does not apply to records of one class an image",
    ("backbone_run=runs/a",): "backbone_run: it does not apply",
    ("epochs=0",): "epochs: 0; expected 1 or more",
    ("learning_rate=nan",): "learning_rate: nan; expected a number above 0",
    ("brightness=2",): "brightness: 2.0; expected a number in [0, 1)",
    ("optimizer=lion",): "optimizer: 'lion'; expected one of sgd",
    ("decay_epochs=3",): "decay_epochs: they are given with --schedule=cosine",
    ("warmup_epochs=40",): "warmup_epochs: 40 in a run of 30 epochs",
    ("max_shift=64",): "max_shift: 64 pixels; expected less than the images' 64",
    ("progressive_sizes=64", "progressive_epochs=1"): "progressive_sizes: 64; expected less than the patches' 64",
    ("progressive_sizes=32",): "progressive_sizes: 1 sizes and 0 numbers of epochs",
    ("head_epochs=1",): "head_epochs: 1 without weights",
    ("model=resnet14", "weights=imagenet"): "weights: there are no ImageNet weights for --model=resnet14",
    ("strategy=none", "virtual_devices=2"): "strategy: none, with 2 virtual devices",
    ("dtype_policy=float8",): "dtype_policy: 'float8'",
    ("bands=SWIR",): "bands 'SWIR': the data does not hold B12",
}
"""Flags that cannot work on the records, and how the message begins."""


def refusal(command, words, monkeypatch, capsys):
    """Returns the error line of a command, without what it puts before the option's name."""
    values = flags.FlagValues()
    app.define_flags(values)
    command.define_flags(values)
    monkeypatch.setattr(command, "FLAGS", values)
    monkeypatch.setattr(app, "import_tensorflow_quietly", lambda: None)
    assert app.exit_code(command.main, [command.__name__, *words], values) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1, err
    return err.rstrip().partition(": error: ")[2].removeprefix("run seed=1: ").removeprefix("--")


@pytest.mark.parametrize("given", BAD, ids=",".join)
def test_train_sweep_and_doctor_refuse_alike(given, rgb_records, tmp_path, monkeypatch, capsys):
    words = [f"--{flag}" for flag in given]
    base = tmp_path / "base.flags"
    base.write_text("\n".join([f"--records_dir={rgb_records}", *words]))
    run_dir = tmp_path / "run"
    message = refusal(train, [f"--flagfile={base}", f"--run_dir={run_dir}"], monkeypatch, capsys)
    assert message.startswith(BAD[given])
    swept = [f"--base={base}", f"--sweep_dir={tmp_path / 'sweep'}", "--seed=1"]
    assert refusal(sweep, swept, monkeypatch, capsys) == message
    from eo_keras.doctor.tensorflow import Machine

    (check,) = doctor.check_flags(doctor.training_flags(base), Machine())
    assert check.level == doctor.doctor.PROBLEM and check.what.removeprefix("--") == message
    assert [path.name for path in tmp_path.iterdir()] == ["base.flags"]
