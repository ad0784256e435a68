"""Early layers that public examples of other classes have taught, and that private ones never move.

    model = models.build_for(ModelConfig(name="mlp"), data, RegularizationConfig(freeze=-1))

What a layer has learned from private examples is what an inversion finds in it, and early layers need little of it: they are
trained on others and frozen, and private examples train the rest (TL-DMI: Ho, Hao, Chandrasegaran, Nguyen, Cheung 2024, "Model
Inversion Robustness: Can Transfer Learning Help?"). The others are the data set's public examples of other classes, told apart
by their groups: other people's faces. The whole model is trained on them, with a last layer of its own for their groups, by
AdamW on batches drawn at random, without clipping or noise, as there is nothing private in it. Then the layers that come first
are frozen, those between keep what they learned as their start, and the last one is as it was drawn for the private classes.
Under differential privacy frozen weights cost nothing: fewer weights carry the noise.

Everything is drawn from torch's generator, as initial weights are, so the seed of a model decides it. A layer is a module with
weights of its own, in the order in which the model names them.
"""

import torch
import torch.nn.functional as F
from torch import nn

from dptrain.data.dataset import DataSet
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import RegularizationConfig

BATCH = 32
LEARNING_RATE = 1e-3


def freeze_early(model: nn.Module, data: DataSet, regularization: RegularizationConfig) -> None:
    """Trains the model on the data set's ``others`` and freezes as many of its first layers as ``freeze`` says.

    Raises:
        ConfigError: the model has not that many layers and one more, or does not end in ``nn.Linear``.
        DataError: there are no such examples, or they are all of one group.
    """
    layers = layers_of(model)
    count = frozen_layers(layers, regularization.freeze)
    if data.others is None:
        raise DataError(
            f"regularization.freeze is {regularization.freeze}: layers are trained on public examples of other classes, and "
            f"the data set {data.name!r} comes with none; leave it out, or choose a data set with others, such as faces"
        )
    names, groups = data.others.groups.unique(return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"regularization.freeze is {regularization.freeze}: layers learn to tell groups of other classes apart, and those "
            f"of the data set {data.name!r} are all of one group"
        )
    name, last = next((name, part) for name, part in model.named_modules() if part is layers[-1])
    assert isinstance(last, nn.Linear)
    model.set_submodule(name, nn.Linear(last.in_features, len(names), bias=last.bias is not None))
    try:
        _train(model, data.others.inputs, groups, regularization.freeze_steps)
    finally:
        model.set_submodule(name, last)
    for layer in layers[:count]:
        for weight in layer.parameters(recurse=False):
            weight.requires_grad_(False)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The modules that have weights of their own."""
    return [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]


def frozen_layers(layers: list[nn.Module], freeze: int) -> int:
    """How many are frozen, of a model of these layers.

    Raises:
        ConfigError: so many that none is left, or the last is not one of classes.
    """
    count = len(layers) - 1 if freeze == -1 else freeze
    if len(layers) < 2 or count >= len(layers):
        raise ConfigError(
            f"regularization.freeze is {freeze} and the model has {len(layers)} layers with weights, the last of which is "
            f"never frozen; {f'give 1 to {len(layers) - 1}, or -1' if len(layers) > 1 else 'choose --model.name mlp or cnn'}"
        )
    if not isinstance(layers[-1], nn.Linear):
        raise ConfigError(
            f"regularization.freeze is {freeze} and the model's last layer is a {type(layers[-1]).__name__}; layers are "
            "trained on other classes behind a last nn.Linear of their own, so end the model in nn.Linear, or leave freeze out"
        )
    return count


def frozen_weights(model: nn.Module, freeze: int) -> list[str]:
    """The names of what is frozen, in the model's state.

    Raises:
        ConfigError: so many layers are to be frozen that none is left.
    """
    layers = layers_of(model)
    early = {id(layer) for layer in layers[: frozen_layers(layers, freeze)]}
    named = [(name, module) for name, module in model.named_modules() if id(module) in early]
    return [f"{name}.{own}" if name else own for name, module in named for own, _ in module.named_parameters(recurse=False)]


def _train(model: nn.Module, inputs: torch.Tensor, groups: torch.Tensor, steps: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW([*model.parameters()], lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(steps):
        drawn = torch.randint(len(inputs), (BATCH,))
        optimizer.zero_grad()
        with torch.enable_grad():
            F.cross_entropy(model(inputs[drawn]), groups[drawn]).backward()
        optimizer.step()
    optimizer.zero_grad()
