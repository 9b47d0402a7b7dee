"""Takes training steps or forward passes of segmentation_models_pytorch's DeepLabV3Plus on one batch in memory.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/dense_step.py --what=step --encoder=resnet50
"""

import argparse
import math
import time

import figures
import segmentation_models_pytorch
import torch

CLASSES = 4


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["step", "forward"], default="step")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm_steps", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(1)
    model = segmentation_models_pytorch.DeepLabV3Plus(
        options.encoder, encoder_weights=None, in_channels=3, classes=CLASSES
    ).to(memory_format=torch.channels_last)
    image = torch.randn(options.batch_size, 3, options.size, options.size).to(memory_format=torch.channels_last)
    label = torch.arange(options.batch_size * options.size**2).reshape(options.batch_size, options.size, -1) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def forward() -> float:
        return model(image).softmax(1).mean().item()

    model.train(options.what == "step")
    work = step if options.what == "step" else forward
    values = [work() for _ in range(options.warm_steps)]
    started = time.perf_counter()
    values += [work() for _ in range(options.steps)]
    seconds = time.perf_counter() - started
    if not all(map(math.isfinite, values)):
        raise SystemExit(f"a value is not finite: {values}")
    figures.report(
        options.batch_size * options.steps,
        seconds,
        ["torch", "segmentation_models_pytorch"],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
