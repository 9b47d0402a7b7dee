"""Published weights: catalogue, download, conversion to other bands."""
