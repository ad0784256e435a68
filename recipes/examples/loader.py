"""Handwritten digits by a data set of one's own, with a scheduler and a validation set, with privacy; before/loader.py is the
same without.

The plan draws the batches, ten an epoch. The last model is released and not the best one: a validation accuracy that decides
what is released tells something of those whom it was measured on, and no guarantee covers them.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

from dptrain import DataSet, PrivacyPlan, draw, make_private, per_example
from evaluation import attend

pixels, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels))
split = draw(len(digits))
train, validation = Subset(digits, split.members.tolist()), Subset(digits, split.non_members.tolist())
plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=90, steps=40, clipping_norm=1.0, delta=1e-4).calibrate(epsilon=8.0)
validation_loader = DataLoader(validation, batch_size=256)

model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
private = make_private(model, optimizer, train, plan, loss=per_example(cross_entropy))
attend(private, DataSet.from_map_style(digits, classes=10, bounds=(0.0, 1.0)), split)

for epoch in range(4):
    model.train()
    for batch in private.batches(until=10 * (epoch + 1)):
        private.step(batch)
    scheduler.step()

    model.eval()
    with torch.no_grad():
        right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in validation_loader)
    accuracy = right / len(validation)
    print(f"epoch {epoch + 1}: validation accuracy {accuracy:.3f}")
    private.save("runs/loader")
