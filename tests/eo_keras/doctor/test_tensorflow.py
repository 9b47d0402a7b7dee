import dataclasses

import pytest

from eo_keras.data.augment.options import Augmentation
from eo_keras.doctor import tensorflow as doctor_tensorflow
from eo_keras.doctor.machine import NOTE, OK, PROBLEM, WARNING
from eo_keras.doctor.tensorflow import Gpu, Machine, check_training
from eo_keras.training.options import ClassificationOptions, TrainingOptions

A100 = Gpu("A100", (8, 0), 40_000_000_000)
P100 = Gpu("P100", (6, 0), 16_000_000_000)
PROCESSOR = Machine()


def options(records_dir="", **given):
    return TrainingOptions(records_dir, "", **given)


def found(findings, level):
    return [finding.what for finding in findings if finding.level == level]


def test_variables():
    assert found(doctor_tensorflow.environment({"HOME": "/", "TF_ENABLE_ONEDNN_OPTS": "1"}), OK)
    findings = doctor_tensorflow.environment(
        {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "OMP_NUM_THREADS": "1"}
    )
    assert len(found(findings, PROBLEM)) == len(found(findings, WARNING)) == 2


def test_onednn_is_seen_at_work():
    import tensorflow as tf

    (finding,) = doctor_tensorflow.onednn()
    # Another computation in this process must not mind.
    assert float(tf.constant(1.0) + 1.0) == 2.0
    assert finding.level in (OK, WARNING) and "Conv2D" in finding.what


def test_gpus(tmp_path, monkeypatch):
    assert doctor_tensorflow.gpus() == ()
    assert found(doctor_tensorflow.devices((), tmp_path), NOTE) == ["none: TensorFlow computes on the processor"]
    fast, slow = (doctor_tensorflow.devices((gpu,), tmp_path) for gpu in (A100, P100))
    assert len(found(fast, OK)) == 2 and "40.0 GB" in fast[0].what
    assert "does not pay" in found(slow, NOTE)[0]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "hidden" in found(doctor_tensorflow.devices((), tmp_path), NOTE)[0]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("tensorflow.sysconfig.get_build_info", lambda: {"is_cuda_build": False})
    assert "without CUDA" in found(doctor_tensorflow.devices((), tmp_path), PROBLEM)[0]
    info = {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"}
    monkeypatch.setattr("tensorflow.sysconfig.get_build_info", lambda: info)
    monkeypatch.setattr(doctor_tensorflow, "missing_cuda_packages", lambda: ["nvidia-cudnn-cu12"])
    (finding,) = doctor_tensorflow.devices((), tmp_path)
    assert "nvidia-cudnn-cu12" in finding.what and "eo-keras[cuda]" in finding.remedy
    monkeypatch.setattr(doctor_tensorflow, "missing_cuda_packages", lambda: [])
    assert "LD_LIBRARY_PATH" in doctor_tensorflow.devices((), tmp_path)[0].remedy


def test_flags_that_work():
    (finding,) = check_training(options(), PROCESSOR)
    assert finding.level == OK and finding.what == "none known to break on 1 device"
    assert found(check_training(options(dtype_policy="mixed_float16"), Machine((A100,))), OK)
    assert found(check_training(options(batch_size=64), Machine((A100, A100))), OK) == [
        "none known to break on 2 devices"
    ]


@pytest.mark.parametrize(
    ("given", "machine", "level", "words"),
    [
        ({"virtual_devices": 2}, Machine((A100,)), NOTE, "not the GPUs"),
        ({"dtype_policy": "mixed_float16"}, PROCESSOR, WARNING, "no fast float16"),
        ({"dtype_policy": "mixed_float16"}, Machine((P100,)), WARNING, "before compute capability 7.0"),
        ({"dtype_policy": "mixed_bfloat16"}, Machine(bfloat16=0.8), WARNING, "measured at 0.80 times"),
        ({"dtype_policy": "float64"}, PROCESSOR, NOTE, "several times slower"),
        ({"cache_gb": 12.0}, Machine(memory=8_000_000_000), WARNING, "cache_gb=12"),
    ],
)
def test_options_that_are_slow_on_a_machine(given, machine, level, words):
    findings = check_training(options(**given), machine)
    assert any(words in what for what in found(findings, level)), findings
    assert any(finding.level == OK for finding in findings)


@pytest.mark.parametrize(
    ("given", "machine", "words"),
    [
        ({"strategy": "mirrored", "virtual_devices": 3}, PROCESSOR, "64 is not divisible by 3 devices"),
        ({"batch_size": 63}, Machine((A100, A100)), "63 is not divisible by 2 devices"),
        ({"dtype_policy": "mixed_float16"}, Machine((A100, A100)), "scale the loss under a strategy"),
        ({"model": "resnet14", "weights": "imagenet"}, PROCESSOR, "no ImageNet weights"),
    ],
)
def test_options_that_break_on_a_machine(given, machine, words):
    (problem,) = found(check_training(options(**given), machine), PROBLEM)
    assert words in problem


@pytest.mark.parametrize("speed", [None, 0.95, 2.0])
def test_bfloat16_is_no_matter_where_it_is_not_slower(speed):
    assert len(check_training(options(dtype_policy="mixed_bfloat16"), Machine(bfloat16=speed))) == 1


def test_bfloat16_is_measured_not_read_from_the_processor(monkeypatch):
    assert 0.01 < doctor_tensorflow.bfloat16_speed(seconds=0.1) < 100
    for speed, level, words in ((0.84, NOTE, "is slower"), (1.02, NOTE, "saves memory, not time"), (1.7, OK, "pays")):
        (finding,) = doctor_tensorflow.bfloat16(speed, "the processor")
        assert finding.level == level and f"{speed:.2f} times" in finding.what and finding.what.endswith(words)


def test_flags_are_compared_with_the_records(tmp_path):
    from tfrecords_builder import build
    from tfrecords_builder.synthetic import archives

    source = archives.write_eurosat_archive(tmp_path / "rgb.zip", kind="rgb", patches_per_class=2)
    split = build.splits.SplitOptions(test_fraction=0.5)
    build.build(build.BuildOptions("eurosat_rgb", str(source), str(tmp_path / "r"), split))
    given = options(records_dir=str(tmp_path / "r"), bands="RGB")
    assert found(check_training(given, PROCESSOR), OK)
    shifted = ClassificationOptions(Augmentation(max_shift=64))
    for changes, words in (({"bands": "SWIR"}, "B12"), ({"classification": shifted}, "max_shift: 64 pixels")):
        (problem,) = found(check_training(dataclasses.replace(given, **changes), PROCESSOR), PROBLEM)
        assert words in problem
