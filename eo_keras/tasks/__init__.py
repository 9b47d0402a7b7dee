"""Tasks: loss, validation and figures of classification and segmentation."""
