"""The engine equals one example at a time on the six workloads that it is timed on."""

import math

import pytest
import torch

from dptrain.clipping import Clipper
from tests.benchmarks.workloads import WORKLOADS, classify


@pytest.mark.parametrize("name", WORKLOADS)
def test_it_equals_one_example_at_a_time(name: str):
    torch.manual_seed(0)
    workload = WORKLOADS[name]
    model = workload.build().double()
    inputs, targets = workload.batch(3)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    truth = {key: torch.zeros_like(value) for key, value in model.named_parameters()}
    for index in range(3):
        losses = classify(model, (inputs[index : index + 1], targets[index : index + 1]))
        gradients = torch.autograd.grad(losses.sum(), list(model.parameters()))
        norm = math.sqrt(sum(float(value.square().sum()) for value in gradients))
        for total, gradient in zip(truth.values(), gradients, strict=True):
            total += min(1.0, 0.5 / norm) * gradient
    clipper = Clipper(model, classify, 0.5)
    found = clipper.sum([(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]).gradients
    assert clipper.method == "one pass"
    scale = math.sqrt(sum(float(value.square().sum()) for value in truth.values()))
    apart = math.sqrt(sum(float((found[key] - value).square().sum()) for key, value in truth.items()))
    assert apart <= 1e-10 * scale
