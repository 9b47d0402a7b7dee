"""Training under tf.distribute: options, steps, epochs, checkpoints."""
