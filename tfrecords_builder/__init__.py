"""From published archives and scenes to a records folder: sharded TFRecords with a card. Imports no TensorFlow."""
