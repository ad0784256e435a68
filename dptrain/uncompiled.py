"""torch's optimizers without the marks that they carry for torch's compiler.

    optimizer = SGD(model.parameters(), lr=0.1)         # a torch.optim.SGD

``add_param_group``, ``zero_grad``, ``state_dict``, ``load_state_dict`` and ``step`` of ``torch.optim`` tell the compiler to
leave them alone, and import it for that: ``torch._dynamo``, with sympy and most of ``torch.distributed``, in every process that
makes an optimizer. That takes 2.2 s of a processor's time, by

    python -c "import time, torch; t = time.process_time(); import torch._dynamo; print(time.process_time() - t)"

Trainings of a recipe are not compiled. These classes call the same functions beneath the marks, so that weights are the same.
"""

import inspect

import torch
from torch.optim import Optimizer


class Unmarked(Optimizer):
    """What all of them share; an optimizer of one's own, whose ``step`` bears no mark, needs no more."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class SGD(Unmarked, torch.optim.SGD):
    """``torch.optim.SGD``, which is never ``differentiable``."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class AdamW(Unmarked, torch.optim.AdamW):
    """``torch.optim.AdamW``, which is never ``differentiable``."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
