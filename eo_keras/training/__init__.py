"""Training under tf.distribute: options, steps, epochs and checkpoints."""
