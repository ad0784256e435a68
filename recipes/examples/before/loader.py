"""Handwritten digits by DataLoaders, with a scheduler and a validation set, without privacy."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

pixels, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels))
order = torch.randperm(len(digits)).tolist()
train, validation = Subset(digits, order[:900]), Subset(digits, order[900:])
validation_loader = DataLoader(validation, batch_size=256)

model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
best = 0.0

for epoch in range(4):
    model.train()
    for inputs, targets in DataLoader(train, batch_size=90, shuffle=True):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    scheduler.step()

    model.eval()
    with torch.no_grad():
        right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in validation_loader)
    accuracy = right / len(validation)
    print(f"epoch {epoch + 1}: validation accuracy {accuracy:.3f}")
    if accuracy > best:
        best = accuracy
        torch.save(model.state_dict(), "digits.pt")
