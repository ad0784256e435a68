"""Handwritten digits by a small vision transformer and Hugging Face's Trainer, without privacy."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

pixels, labels = load_digits(return_X_y=True)
pixels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
digits: Any = [{"pixel_values": picture, "labels": int(label)} for picture, label in zip(pixels, labels, strict=True)]
order = torch.randperm(len(digits)).tolist()
train, test = Subset(digits, order[:900]), Subset(digits, order[900:])

size: Any = {"num_labels": 10, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, **size))
args = TrainingArguments(
    "runs/hugging_face",
    max_steps=60,
    per_device_train_batch_size=256,
    learning_rate=5e-3,
    lr_scheduler_type="cosine",
    eval_strategy="steps",
    eval_steps=30,
    save_steps=30,
    logging_steps=10,
    report_to="tensorboard",
)
trainer = Trainer(model=model, args=args, train_dataset=train, eval_dataset=test)
trainer.train()
trainer.save_model("published")
