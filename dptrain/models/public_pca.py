"""Eigenfaces of people who are known to everyone, and a small trained head: few weights to pay for, and none before the head.

The front is a principal component analysis (as of faces Turk and Pentland 1991, "Eigenfaces for Recognition") of the data set's
public examples of other classes alone. With their mean m and their first k principal axes V, as columns, an input x gives

    f(x) = Vᵀ(x − m) / ‖Vᵀ(x − m)‖

It was made without a private example and looks at one example at a time, so it costs no privacy; and since every f(x) has
length 1, one clipping norm fits all examples. That training under differential privacy gains by features that others' data
give is Tramèr and Boneh's finding (2021, "Differentially Private Learning Needs Better Features (or Much More Data)").

    model = models.build_for(ModelConfig(name="public_pca", hidden=()), data, RegularizationConfig())
    model(images)                       # [examples, classes]

Mean and axes are part of the model's state: whoever loads a released model needs no public example.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import ConfigError, DataError
from dptrain.models import linear, mlp
from dptrain.models.front import WithFront
from dptrain.recipe import ModelConfig, RegularizationConfig

SMALLEST = 1e-12
"""Length below which a vector of components is left as short as it is: that of the mean itself."""


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, *input_shape]`` to logits ``[examples, classes]``; the front is still to be fitted, or loaded.

    The head is softmax regression, or has layers of ``config.hidden``.

    Raises:
        ConfigError: more components are asked for than an input has numbers.
    """
    numbers = math.prod(input_shape)
    if config.components >= numbers:
        raise ConfigError(f"model.components is {config.components} and an input has {numbers} numbers; give fewer components")
    head = mlp if config.hidden else linear
    return WithFront(PublicPca(numbers, config.components), head.build((config.components,), classes, config, regularization))


class PublicPca(nn.Module):
    """``[examples, *input_shape]`` to ``[examples, components]`` of length 1; has no weights.

    Raises:
        RuntimeError: it is asked before it was fitted or loaded.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, numbers: int, components: int):
        super().__init__()
        self.output_shape = (components,)
        self.register_buffer("mean", torch.full((numbers,), torch.nan))
        self.register_buffer("axes", torch.full((numbers, components), torch.nan))

    def fit(self, public: Float[Tensor, "examples ..."]) -> None:
        """Mean and principal axes of these examples, each axis with its largest number above 0.

        Raises:
            DataError: there are too few examples for as many axes.
        """
        components = self.output_shape[0]
        if len(public) <= components:
            raise DataError(
                f"model.components is {components}, and the data set has {len(public)} public examples of other classes, which "
                f"span at most {len(public) - 1} axes; give fewer components"
            )
        flat = public.flatten(1).double()
        mean = flat.mean(0)
        axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:components]
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.axes.copy_((axes * largest.sign()).T)

    def forward(self, inputs: Float[Tensor, "examples ..."]) -> Float[Tensor, "examples components"]:
        if bool(self.mean[0].isnan()):
            raise RuntimeError("the eigenfaces were not made yet; build the model by dptrain.models.build_for, or load weights")
        components = (inputs.flatten(1) - self.mean) @ self.axes
        return components / components.norm(dim=1, keepdim=True).clamp_min(SMALLEST)

    def extra_repr(self) -> str:
        return f"{len(self.mean)}, {self.output_shape[0]}"
