"""Input pipelines of tf.data: batches from a records folder."""
