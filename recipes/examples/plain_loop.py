"""Handwritten digits by a plain PyTorch loop, with privacy; before/plain_loop.py is the same without."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from dptrain import DataSet, PrivacyPlan, draw, make_private, per_example
from evaluation import attend

pixels, labels = load_digits(return_X_y=True)
inputs, targets = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
data = DataSet.of(inputs, targets, classes=10, bounds=(0.0, 1.0))
split = draw(len(data))

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
plan = PrivacyPlan(sampling_rate=0.25, expected_batch_size=225, steps=60, clipping_norm=1.0, delta=1e-4)
private = make_private(model, optimizer, data[split.members], plan.calibrate(epsilon=4.0), loss=per_example(cross_entropy))
attend(private, data, split)

for batch in private.batches():
    private.step(batch)

private.save("runs/plain_loop")
