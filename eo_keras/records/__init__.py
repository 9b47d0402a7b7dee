"""Records: data card, examples, TFRecord files and statistics. Imports no TensorFlow."""
