"""DeepLabv3+ on two devices: the same steps as on one."""

from tests.eo_keras.training.test_distribution import assert_same, replicas


def test_two_devices_train_as_one(tmp_path):
    """Devices without a labelled pixel, synchronised moments of maps and of the image's mean, and the resized maps."""
    one, two = replicas(tmp_path, "deeplab_resnet50")
    assert_same(one, two, ["deeplab_resnet50"])
