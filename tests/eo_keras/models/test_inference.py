"""The training model, copies of weights, and the random states of dropout, on several devices too."""

import json

import keras
import numpy as np
import pytest

from eo_keras.models import copy_weights, inference_model, logits_model, seed_states, set_trainable
from eo_keras.models.backbones.googlenet import TABLE, build_googlenet
from eo_keras.models.backbones.resnet import build_resnet
from tests.harness.networks import network_spec
from tests.launch.commands import start


def googlenet(**choices):
    table = [entry for entry in TABLE if entry[0] in ("4a", "4d")]
    return build_googlenet(network_spec(seed=1, **choices), width=1 / 32, table=table)


def test_training_model_of_one_output():
    model = build_resnet(network_spec(seed=1), blocks=(1,), width=4)
    trained = logits_model(model)
    assert [output.name for output in trained.outputs] == [model.get_layer("logits").output.name]
    assert len(keras.tree.flatten(trained(np.ones((1, 32, 32, 3), "uint16")))) == 1


def test_weights_and_averages_are_copied_by_layer():
    model = googlenet()
    trained, inference = logits_model(model), inference_model(model, 32)
    assert len(inference.weights) < len(trained.weights)
    values = [np.full(weight.shape, number, "float32") for number, weight in enumerate(trained.weights)]
    copy_weights(trained, inference, values)
    by_path = {weight.path: number for number, weight in enumerate(trained.weights)}
    for weight in inference.weights:
        assert (np.asarray(weight) == by_path[weight.path]).all()
    copy_weights(trained, inference, [keras.Variable(value) for value in values])
    copy_weights(model, inference)
    np.testing.assert_array_equal(inference.get_layer("logits").kernel, model.get_layer("logits").kernel)
    assert np.abs(np.asarray(inference.get_layer("logits").kernel)).max() < 1
    with pytest.raises(ValueError):
        copy_weights(trained, inference, values[1:])


def test_inference_model_of_a_frozen_model_is_trainable():
    model = build_resnet(network_spec(seed=1), blocks=(1,), width=4)
    set_trainable(model, only_head=True, frozen_batch_norm=True)
    assert len(model.trainable_variables) == 2
    assert all(layer.trainable for layer in inference_model(model).layers)


def test_states_of_dropout():
    states = seed_states(logits_model(googlenet()))
    assert [tuple(state.shape) for state in states] == [(2,)] * 3
    assert len({int(np.asarray(state)[0]) for state in states}) == 3  # Each layer has a key of its own.
    assert seed_states(googlenet(dropout=0)) == []


MIRRORED_SCRIPT = """
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import keras
from eo_keras.models import logits_model, seed_states
from eo_keras.models.backbones.compact import build_compact
from tests.harness.networks import network_spec
with strategy.scope():
    spec = network_spec(num_classes=3, dropout=0.5, seed=1)
    model = logits_model(build_compact(spec, stem=(4, 4), widths=(16,), blocks=(1,)))
    masks = keras.Model(model.input, model.get_layer("dropout").output)
states = seed_states(model)

@tf.function
def spread():
    def change():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            state.assign(state.value + tf.cast(tf.stack([replica, 0]), state.value.dtype))
    strategy.run(change)

@tf.function
def step(image):
    return strategy.run(lambda image: masks(image, training=True), (image,))

def ask():
    image = tf.constant(np.random.default_rng(0).integers(1, 3000, (2, 32, 32, 3)).astype("uint16"))
    return [(np.asarray(answer) == 0).tolist() for answer in strategy.experimental_local_results(step(image))]

alike, spread_, asked = ask(), spread(), [ask(), ask()]
checkpoint = tf.train.Checkpoint(states=[state.value for state in states])
path = checkpoint.write(sys.argv[1] + "/states")
further = ask()
checkpoint.read(path).assert_consumed()
spread()
print(json.dumps([alike, *asked, further, ask()]))
"""


def test_replicas_drop_different_places_once_their_keys_differ(tmp_path):
    pytest.importorskip("tensorflow")
    done = start("-c", MIRRORED_SCRIPT, tmp_path).wait()
    assert done.returncode == 0, done.stderr
    alike, first, second, further, restored = json.loads(done.stdout)
    assert alike[0] == alike[1]
    assert first[0] != first[1]
    assert second[0] != first[0] and second[1] != first[1]
    # A checkpoint holds the first replica's state; the others' follow from it.
    assert restored == further
