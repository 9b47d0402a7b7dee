"""Takes training steps of torchvision's ResNet on one batch in memory, and reports how fast.

The network is changed in one place to be the same as ours: the blocks that halve the image do so in their first
convolution (He et al. 2015) and not in their second, which would take more arithmetic.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/train_step.py --model=resnet50 --steps=20
"""

import argparse
import math
import time

import figures
import torch
import torchvision

CLASSES = 10


def network(name: str) -> torch.nn.Module:
    """Returns torchvision's network of a name with the strides of ours."""
    model = getattr(torchvision.models, name)(num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return model


def main() -> None:
    """Takes steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["resnet50", "resnet101"], default="resnet50")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--patch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm_steps", type=int, default=3)
    parser.add_argument("--dtype_policy", choices=["float32", "mixed_bfloat16"], default="float32")
    options = parser.parse_args()
    torch.manual_seed(1)
    model = network(options.model).to(memory_format=torch.channels_last).train()
    # A rate at which random weights do not diverge without a warm-up; the time of a step does not depend on it. The
    # decay as a penalty is as strong as our 5e-3, which is decoupled.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True, weight_decay=5e-4)
    image = torch.randn(options.batch_size, 3, options.patch_size, options.patch_size)
    image = image.to(memory_format=torch.channels_last)
    label = torch.arange(options.batch_size) % CLASSES

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype_policy == "mixed_bfloat16"):
            loss = torch.nn.functional.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step() for _ in range(options.warm_steps)]
    started = time.perf_counter()
    losses += [step() for _ in range(options.steps)]
    seconds = time.perf_counter() - started
    if not all(map(math.isfinite, losses)):
        raise SystemExit(f"a loss is not finite: {losses}")
    figures.report(
        options.batch_size * options.steps,
        seconds,
        ["torch", "torchvision"],
        threads=torch.get_num_threads(),
        first_loss=losses[0],
        last_loss=losses[-1],
    )


if __name__ == "__main__":
    main()
