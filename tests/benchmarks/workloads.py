"""The six workloads on which private training is compared with ordinary training.

* W1: a CNN on 28×28 digits (Opacus' MNIST example), batch 256
* W2: a wide residual network 16-4 with GroupNorm on 32×32×3, batch 32
* W3: an MLP 784-1024-1024-10, batch 256
* W4: a GPT with 4 layers of width 256, 4 heads, 128 tokens, vocabulary 256, batch 16
* W5: logistic regression on 4096 features, batch 1024
* W6: an LSTM with 128 units over 64 steps, batch 32

Inputs and targets are random: speed does not depend on them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A pre-activation residual block of two 3×3 convolutions (Zagoruyko, Komodakis 2016), with GroupNorm."""

    def __init__(self, inside: int, outside: int, stride: int, groups: int = 16):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(min(groups, inside), inside), nn.GroupNorm(groups, outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        kept = self.shortcut(y) if self.shortcut is not None else x
        return kept + self.conv2(F.relu(self.norm2(self.conv1(y))))


def wide_resnet(depth: int = 16, widen: int = 4, classes: int = 10) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    inside = 16
    for stage, width in enumerate((16, 32, 64)):
        for index in range((depth - 4) // 6):
            layers.append(Block(inside, width * widen, 2 if stage and not index else 1))
            inside = width * widen
    layers += [nn.GroupNorm(16, inside), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes)]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class GPT(nn.Module):
    """Pre-norm transformer, as in GPT-2."""

    def __init__(self, vocabulary: int = 256, width: int = 256, heads: int = 4, layers: int = 4, tokens: int = 128):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.norms = nn.ModuleList(nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)]) for _ in range(layers))
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device).expand_as(x).contiguous()  # Opacus takes views of its indices
        x = self.tokens(x) + self.positions(places)
        for norms, attention, mlp in zip(self.norms, self.attention, self.mlp, strict=True):
            x = x + attention(norms[0](x))  # pyright: ignore[reportIndexIssue]
            x = x + mlp(norms[1](x))  # pyright: ignore[reportIndexIssue]
        return self.head(self.norm(x))


class Recurrent(nn.Module):
    """A classifier on the last output of an LSTM; ``lstm`` may be another implementation of the same."""

    def __init__(self, lstm: type[nn.Module] = nn.LSTM, features: int = 64, width: int = 128, classes: int = 10):
        super().__init__()
        self.lstm = lstm(features, width, batch_first=True)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy an example, the mean over the positions of a sequence."""
    out = model(batch[0])
    if out.dim() == 3:
        return F.cross_entropy(out.transpose(1, 2), batch[1], reduction="none").mean(1)
    return F.cross_entropy(out, batch[1], reduction="none")


@dataclass(frozen=True)
class Workload:
    """A model and what it is fed."""

    about: str
    build: Callable[[], nn.Module]
    batch: Callable[[int], tuple[Tensor, Tensor]]
    size: int
    """Examples a batch."""
    images: bool = False
    """Whether ``channels_last`` is a layout that it can have."""


def _images(channels: int, side: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda size: (torch.randn(size, channels, side, side), torch.randint(10, (size,)))


def _text(size: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(256, (size, 129))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


WORKLOADS: dict[str, Workload] = {
    "W1": Workload("MNIST CNN", _cnn, _images(1, 28), 256, images=True),
    "W2": Workload("WRN-16-4, GroupNorm", wide_resnet, _images(3, 32), 32, images=True),
    "W3": Workload("MLP 784-1024-1024-10", _mlp, lambda size: (torch.randn(size, 784), torch.randint(10, (size,))), 256),
    "W4": Workload("GPT, 4 layers of 256", GPT, _text, 16),
    "W5": Workload(
        "logistic regression",
        lambda: nn.Linear(4096, 10),
        lambda size: (torch.randn(size, 4096), torch.randint(10, (size,))),
        1024,
    ),
    "W6": Workload("LSTM, 128 × 64 steps", Recurrent, lambda size: (torch.randn(size, 64, 64), torch.randint(10, (size,))), 32),
}
