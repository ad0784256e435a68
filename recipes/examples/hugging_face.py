"""Handwritten digits by a small vision transformer and Hugging Face's Trainer, with privacy; before/hugging_face.py is the same
without."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Subset
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

from dptrain import DataSet, PrivacyPlan, draw
from dptrain.hugging_face import PrivateTrainer
from evaluation import attend

pixels, labels = load_digits(return_X_y=True)
pixels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
digits: Any = [{"pixel_values": picture, "labels": int(label)} for picture, label in zip(pixels, labels, strict=True)]
split = draw(len(digits))
train, test = Subset(digits, split.members.tolist()), Subset(digits, split.non_members.tolist())
plan = PrivacyPlan(sampling_rate=0.25, expected_batch_size=225, steps=60, clipping_norm=1.0, delta=1e-4).calibrate(epsilon=8.0)

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
trainer = PrivateTrainer(model=model, args=args, train_dataset=train, eval_dataset=test, plan=plan, account="digits")
data = DataSet.of(pixels, torch.tensor(labels), classes=10, bounds=(0.0, 1.0))
attend(trainer.private, data, split, shadow_models=8)
trainer.train()
trainer.save_model("published")
