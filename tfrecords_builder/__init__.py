"""Builder of records folders, sharded TFRecords with a card, from archives and scenes. Imports no TensorFlow."""
