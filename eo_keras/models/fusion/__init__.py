"""Fusion of several modalities in one network, a file for each way.

`early` (`LayerFactory.image`) stacks the bands of all modalities for one backbone. The others give each modality a
backbone of its own, a *stream*:

* `late`: whole networks, whose logits are averaged; `late_learned`: their last features and logits joined by a
  convolution; `residual`: their mean and a learned correction.
* `vfusenet`: one more encoder, which takes the sum of all at each stage, and one decoder.
* `attention`: features weighted by what the other modalities see, and one decoder.

Two dates of a modality are stacked along its bands, or (`dates="siamese"`) pass through one backbone with the same
weights. A modality that is no data all over an example is missing there: means are taken over those that are present,
joined and summed features of a missing one are 0. In training its pixels of no data still count in the moments of the
batch normalization of its own backbone.
"""
