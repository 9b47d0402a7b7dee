"""Input pipelines: a records folder as batches, by tf.data."""
