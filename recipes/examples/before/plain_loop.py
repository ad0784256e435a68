"""Handwritten digits by a plain PyTorch loop, without privacy."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

pixels, labels = load_digits(return_X_y=True)
inputs, targets = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
train = torch.randperm(len(inputs))[:900]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

for _ in range(60):
    batch = train[torch.randint(len(train), (225,))]
    optimizer.zero_grad()
    loss = cross_entropy(model(inputs[batch]), targets[batch])
    loss.backward()
    optimizer.step()

torch.save(model.state_dict(), "digits.pt")
