"""Trains networks on one device and on two virtual ones, and writes both results, to be compared.

    python -m tests.harness.replicas OUTPUT.npz [--full] [NAME ...]

A process of its own, for only one mirrored strategy fits in a process. In double precision: in single precision,
rounding, amplified by batch normalization, makes any two orders of summation differ after a few steps.
"""

import dataclasses
import gc
import sys

import numpy as np

from launch.app import import_tensorflow_quietly


def _row(title):
    """Channels of a block like those of table 1."""
    return title, (128, 64, 128, 32, 64, 64)


BATCH, STEPS, SIZE, CLASSES, UNKNOWN = 8, 5, 32, 4, 255
REDUCED = {
    # Of table 1 one block with an auxiliary classifier.
    "googlenet": {"width": 0.0625, "table": (_row("4a"),)},
    "compact": {"stem": (4, 8), "widths": (8,), "blocks": (1,)},
    "resnet50": {"blocks": (1, 1), "width": 8},
    "inception_v3": {"blocks": (1, 1, 1), "width": 0.0625},
}
"""Reduced builds; ResNet-101 is ResNet-50 with more of the same blocks."""

EVERY_KIND = ("googlenet", "segnet:late")
"""Reduced builds that together have nearly all that devices share: moments of batch normalization, of all examples and
of those that have a modality, several inputs, and the losses of classifiers, of auxiliary ones, and of masks and
distances with the weights of both, and of each modality's own masks. Moments of the whole image's mean, losses of masks
alone and of images are those of the others."""

DISTANCES = {"segnet": 5, "segnet:early": 5, "segnet:late": 5}
"""Numbers of distance classes that networks predict too."""

OPTIMIZERS = {"inception_v3": ("rmsprop", 1e-4), "compact": ("rmsprop", 1e-4), "googlenet": ("adamw", 1e-3)}
"""Optimizers and rates of reduced builds; the others, and all full networks, take sgd. Where a gradient is about 0,
these divide rounding by rounding, and in a deep network that grows from step to step."""

FULL_RATES = {"xception65": 1e-4, "deeplab_xception65": 1e-4}
"""Rates of sgd for the deepest networks: at 0.01, a hundred layers of moments over a pixel or four an image make
rounding grow a hundredfold a step."""


def batches():
    """Images of four classes that differ in colour; some batches are filled up, so that the second device is empty."""
    random = np.random.default_rng(7)
    labels = random.integers(0, CLASSES, (STEPS, BATCH))
    images = random.integers(1, 200, (STEPS, BATCH, SIZE, SIZE, 3)) + labels[..., None, None, None] * [5, 10, 15]
    weights = np.ones((STEPS, BATCH), np.float32)
    weights[1, BATCH // 2 :] = 0
    weights[2, 3:] = 0
    weights[4, 1::2] = 0
    return images.astype(np.uint8), labels.astype(np.int32), weights


SEGMENTATION = {
    "deeplab_resnet50": {"backbone": "resnet", "blocks": (1, 1), "width": 4, "depth": 8, "low_depth": 4},
    "segnet": {"blocks": ((1, 4), (1, 8))},
    "unet": {"widths": (4, 8)},
}
"""Reduced builds of segmentation networks; two stages of a ResNet are a stride of 8."""


FUSED = {
    "segnet:early": {},
    "segnet:late": {"stream_logits": True},
    "deeplab_resnet50:early": {},
    "deeplab_resnet50:late": {},
    "deeplab_resnet50:late_learned": {},
    "deeplab_resnet50:residual": {},
    "deeplab_resnet50:vfusenet": {"dates": "siamese"},
    "deeplab_resnet50:attention": {"dates": "siamese"},
    "deeplab_resnet50:late:pretext": {"reconstruction": 8},
    "unet:early:translation": {"reconstruction": 3},
}
"""The reduced segmentation network on two modalities, by the fusion in its name, and further choices."""


def modalities(images):
    """Two dates of three bands, and in most examples another modality of two bands at half the resolution."""
    coarse = images[..., ::2, ::2, :2].astype(np.float32)
    coarse[:, 1::3] = np.nan
    return {"s2": images, "s2_before": images[:, ::-1], "s1": coarse}


def masks(labels):
    """Masks: the label of the image, on its right side the next one, and some pixels without a label."""
    right = np.arange(SIZE) >= SIZE // 2
    labels = np.where(right, (labels[..., None, None] + 1) % CLASSES, labels[..., None, None])
    labels = np.broadcast_to(labels, (*labels.shape[:-2], SIZE, SIZE)).copy()
    labels[..., ::5, ::3] = UNKNOWN
    return labels.astype(np.int32)


def with_distances(labels):
    """Masks, and beside them classes of their own, that differ from left to right and are known of other pixels."""
    distances = np.broadcast_to(np.arange(SIZE) * 5 // SIZE, labels.shape).copy()
    distances[..., ::7, :] = UNKNOWN
    return np.stack([labels, distances], axis=-1).astype(np.int32)


def mask_loss(weights=None, distance_classes=None, streams=()):
    """Both kinds of sums: those of pixels, and those of classes that are divided by each other."""
    from eo_keras.losses import segmentation
    from eo_keras.tasks.segmentation import MaskLoss, distance_loss, pixel_loss

    options = segmentation.DenseLossOptions("cross_entropy+dice")
    mask = MaskLoss(segmentation.DenseLoss(options, CLASSES), streams, 0.5)
    if weights is None:
        return pixel_loss(mask)
    return distance_loss(mask, segmentation.DenseLoss(segmentation.DenseLossOptions(), distance_classes), weights)


def masked_numbers(images):
    """Numbers to be predicted at some pixels, of eight bands as the modalities have."""
    numbers = np.concatenate([images, images[:, ::-1], images[..., :2]], axis=-1) / 100 - 1
    numbers[..., ::3, :, :] = np.nan
    numbers[:, ::2, ..., 6:] = np.nan
    return numbers


def images_of_another_sensor(images):
    """Numbers to be predicted of three bands, and what they are told from: eight bands."""
    numbers = images[..., ::-1] / 100 - 1
    numbers[..., :2, :, :] = np.nan
    return np.concatenate([numbers, np.nan_to_num(masked_numbers(images))], axis=-1)


def mask_metrics(inference, images, labels):
    """Pixel accuracy and cross-entropy."""
    predictions, known = inference.predict(images, verbose=0), labels != UNKNOWN
    chosen = np.take_along_axis(predictions, np.where(known, labels, 0)[..., None], axis=-1)[..., 0]
    return [(predictions.argmax(axis=-1) == labels)[known].mean(), -np.log(chosen[known]).mean()]


def train(name, arguments, strategy, optimizer):
    """Returns losses, weights and metrics after some steps of an architecture, as arrays by name."""
    choices = FUSED.get(name)
    name, fusion, *_ = [*name.split(":"), ""]
    predicted = (choices or {}).get("reconstruction")
    import tensorflow as tf

    from eo_keras import models, tasks
    from eo_keras.losses.adversarial import Adversary
    from eo_keras.losses.uncertainty import TaskWeights
    from eo_keras.models.discriminator import build_discriminator
    from eo_keras.tasks import pretext as pretext_task
    from eo_keras.tasks import translation
    from eo_keras.tasks.predictor import Predictor
    from eo_keras.training import phases, step
    from eo_keras.training.options import OptimizerOptions, TrainingOptions

    optimizer = OptimizerOptions(*optimizer, clip_norm=0.5, warmup_epochs=0, schedule="linear")
    options = TrainingOptions("", "", batch_size=BATCH, label_smoothing=0.1)
    masked = models.MODELS[name].task == "segmentation"
    with strategy.scope():
        normalization = models.Normalization((110.0, 115.0, 120.0), (60.0, 60.0, 60.0))
        image = models.ImageInput(("B04", "B03", "B02"), "uint8", normalization, SIZE)
        inputs = {models.IMAGE: image}
        if fusion:
            radar = models.Normalization(normalization.mean[:2], normalization.std[:2])
            radar = models.ImageInput(("VV", "VH"), "float32", radar, SIZE // 2, ratio=2)
            inputs = {"s2": image, "s2_before": image, "s1": radar}
        spec = models.NetworkSpec(
            inputs,
            CLASSES,
            output_stride=8 if "depth" in arguments and arguments is SEGMENTATION.get(name) else None,
            distance_classes=DISTANCES.get(name),
            distance_head="cascaded",
            synchronized=strategy.num_replicas_in_sync > 1,
            dtype_policy="float64",
            dropout=0.0,
            seed=3,
            lacking=bool(fusion),
            **({"fusion": fusion, **choices} if fusion else {}),
        )
        model = dataclasses.replace(models.MODELS[name], arguments=arguments)(name, spec)
        averages = [tf.Variable(weight.numpy(), trainable=False) for weight in model.weights]
        companion = TaskWeights(("mask", "distance"), dtype="float64") if name in DISTANCES else None
        loss = tasks.get("classification").loss(options)
        if masked:
            loss = mask_loss(companion, DISTANCES.get(name), tuple(spec.modalities) if spec.stream_logits else ())
        if predicted == 8:
            loss = pretext_task.reconstruction_loss((3, 3, 2))
        elif predicted:
            companion = Adversary(build_discriminator(8, predicted, seed=3, dtype="float64"))
            loss = translation.translation_loss((predicted,), companion, 0.1)
        stepper = step.TrainStep(model, strategy, step.StepOptions(ema=0.9), loss, averages)
        of_loss = () if companion is None else companion.variables
        stepper.enter(phases.make_phases(phases.PhaseOptions(1, 0, optimizer, optimizer), model, STEPS, of_loss)[0])
        inference = models.inference_model(model, SIZE)
    images, labels, example_weights = batches()
    labels = masks(labels) if masked else labels
    targets = with_distances(labels) if name in DISTANCES else labels
    if predicted:
        targets = masked_numbers(images) if predicted == 8 else images_of_another_sensor(images)
    images = modalities(images) if fusion else images
    dataset = tf.data.Dataset.from_tensor_slices((images, targets, example_weights))
    steps = [stepper(*batch) for batch in strategy.experimental_distribute_dataset(dataset)]
    models.copy_weights(model, inference)
    # Eleven examples in batches of eight: of the last batch, two devices hold three examples and none.
    rest = [
        tf.nest.map_structure(lambda one: one.reshape(-1, *one.shape[2:])[: 2 * BATCH], part)
        for part in (images, labels, example_weights)
    ]
    if predicted:
        metrics = [np.square(inference.predict(rest[0], verbose=0)).mean()]
    elif masked:
        metrics = mask_metrics(inference, *rest[:2])
    else:
        rest[2] = (np.arange(2 * BATCH) < 11).astype(np.float32)
        rest.append(np.arange(2 * BATCH).astype(str))
        predictor = Predictor(inference, tasks.get("classification"), tuple("ABCD"), strategy)
        predictions = predictor(None, tf.data.Dataset.from_tensor_slices(tuple(rest)).batch(BATCH)).predictions
        assert len(predictions.labels) == 11
        metrics = [predictions.accuracy(), predictions.cross_entropy()]
    moving = [one for one in model.weights if one.name.startswith("moving_")]
    others = [one for one in model.weights if not one.name.startswith("moving_")]
    return {
        "losses": np.array([float(loss) for loss, *_ in steps]),
        "right": np.array([int(right) for _, right, *_ in steps]),
        "metrics": np.array(metrics),
        "statistics": np.concatenate([one.numpy().ravel() for one in moving]),
        "weights": np.concatenate([one.numpy().ravel() for one in (*others, *of_loss)]),
        "parts": np.array([[float(part) for part in parts.values()] for *_, parts in steps]),
        "averages": np.concatenate([one.numpy().ravel() for one in averages]),
    }


def main():
    output, full = sys.argv[1], "--full" in sys.argv
    import_tensorflow_quietly()
    import keras
    import tensorflow as tf

    from eo_keras import models
    from eo_keras.training import distribution

    distribution.prepare_devices(virtual_devices=2, deterministic=True, seed=1)
    strategies = {"one": tf.distribute.get_strategy(), "two": distribution.make_strategy("mirrored", virtual_devices=2)}
    chosen = {name: models.MODELS[name].arguments for name in models.MODELS}
    if not full:
        chosen = REDUCED | SEGMENTATION | {name: SEGMENTATION[name.partition(":")[0]] for name in FUSED}
    names, results = [word for word in sys.argv[2:] if not word.startswith("-")] or list(chosen), {}
    for name in names:
        optimizer = ("sgd", FULL_RATES.get(name, 0.01)) if full else OPTIMIZERS.get(name, ("sgd", 0.01))
        for devices, strategy in strategies.items():
            found = train(name, chosen[name], strategy, optimizer)
            results |= {f"{name}/{devices}/{key}": value for key, value in found.items()}
            # Full networks in double precision take gigabytes each, graphs included.
            keras.utils.clear_session()
            gc.collect()
    np.savez(output, **results)


if __name__ == "__main__":
    main()
