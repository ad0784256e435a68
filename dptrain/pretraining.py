"""Public text first: what a language model learns before it sees a private one, and that no budget is spent on.

    model.load_state_dict(pretrained(recipe, data))

The model is trained on the data set's public text (``DataSet.others``) by AdamW, without clipping or noise, from initial
weights of a fixed seed: everybody could do the same, and every model of a recipe, its shadow models included, starts from
the same weights, as from a published checkpoint. A model from scratch under differential privacy spends its budget on
spelling; one that can spell spends it on what is particular to the private text (Li, Tramèr, Liang, Hashimoto 2022, "Large
Language Models Can Be Strong Differentially Private Learners").

The weights of one model, text and options are made once and kept in ``~/.cache/dptrain/pretrained``, in a file whose name says
what it holds; one that holds something else is not read.
"""

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor
from tqdm import tqdm

from dptrain import models
from dptrain.data.dataset import DataSet
from dptrain.errors import DataError
from dptrain.files import write_file
from dptrain.plain import as_plain
from dptrain.recipe import Recipe

SEED = 0
KEPT = 4
"""Models that are remembered."""
LONGEST_GRADIENT = 1.0

_MADE: "OrderedDict[str, dict[str, Tensor]]" = OrderedDict()


def pretrained(recipe: Recipe, data: DataSet, progress: bool = True) -> dict[str, Tensor]:
    """The state of the recipe's model after ``recipe.pretraining``.

    Raises:
        DataError: the data set comes with no public text.
    """
    if data.others is None or data.others.targets is None:
        raise DataError(
            f"pretraining.steps is {recipe.pretraining.steps} and the data set {data.name!r} comes with no public text; name "
            "files with --data.public, or set DPTRAIN_DATA, or leave pretraining out"
        )
    key = _key(recipe, data)
    if key not in _MADE:
        _MADE[key] = _kept(key) or _keep(key, _train(recipe, data, progress))
        while len(_MADE) > KEPT:
            _MADE.popitem(last=False)
    _MADE.move_to_end(key)
    return _MADE[key]


def _key(recipe: Recipe, data: DataSet) -> str:
    assert data.others is not None
    assert data.others.targets is not None
    content = hashlib.sha256()
    for tensor in (data.others.inputs, data.others.targets):
        content.update(tensor.contiguous().numpy().tobytes())
    settings = [as_plain(part) for part in (recipe.pretraining, recipe.model, recipe.regularization)]
    content.update(json.dumps([settings, data.input_shape, data.outputs]).encode())
    return content.hexdigest()


def _folder() -> Path:
    return Path.home() / ".cache" / "dptrain" / "pretrained"


def _kept(key: str) -> dict[str, Tensor] | None:
    for path in _folder().glob(f"{key[:24]}-*.safetensors"):
        content = path.read_bytes()
        if path.stem.endswith(hashlib.sha256(content).hexdigest()[:24]):
            return safetensors_load(content)
    return None


def _keep(key: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    content = safetensors_save(state)
    write_file(_folder() / f"{key[:24]}-{hashlib.sha256(content).hexdigest()[:24]}.safetensors", content)
    return state


def _train(recipe: Recipe, data: DataSet, progress: bool) -> dict[str, Tensor]:
    assert data.others is not None
    assert data.others.targets is not None
    options, inputs, targets = recipe.pretraining, data.others.inputs, data.others.targets
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        model = models.build_for(recipe.model, data, recipe.regularization).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.0)
        order = torch.empty(0, dtype=torch.long)
        for step in tqdm(
            range(options.steps), desc="public text", unit="update", leave=False, disable=None if progress else True
        ):
            if len(order) < options.batch_size:
                order = torch.cat([order, torch.randperm(len(inputs))])
            drawn, order = order[: options.batch_size], order[options.batch_size :]
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / options.steps))
            optimizer.zero_grad()
            with torch.enable_grad():
                F.cross_entropy(model(inputs[drawn]).flatten(0, 1), targets[drawn].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), LONGEST_GRADIENT)
            optimizer.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
