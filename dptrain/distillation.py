"""Knowledge distillation: what is released is a student that no private example has reached directly.

The teacher is trained on the members by the recipe, with its plan and all. The student is a new model of the same architecture
and learns the teacher's answers to public examples (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network";
as a defence Shejwalkar and Houmansadr 2021, "Membership Privacy for Machine Learning Models Through Knowledge Transfer"):

    T² · CE(softmax(teacher / T), softmax(student / T)),       by SGD with momentum 0.9, without clipping, without noise

What it means for the guarantee: the student is a function of the teacher, of public examples and of coins, so it is
post-processing, and whatever ε holds for the teacher holds for it. Without a plan there is still none: the teacher's answers
were made from the members, and an attack on the student says how much of them comes through.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain import models
from dptrain.data.dataset import DataSet
from dptrain.models import front
from dptrain.private import PrivateTraining
from dptrain.recipe import Recipe
from dptrain.regularization import weight_groups

MOMENTUM = 0.9
CHUNK = 4096


def released_model(
    recipe: Recipe, data: DataSet, public: Int[np.ndarray, " public"] | None, training: PrivateTraining, seed: int
) -> nn.Module:
    """A copy of what the recipe releases of this training: the model with its averaged weights, or its student."""
    if recipe.regularization.distillation:
        assert public is not None  # the training was not built without
        return student_of(recipe, data, public, training, seed)
    with training.averaged() as model:
        return copy.deepcopy(model)


def student_of(
    recipe: Recipe, data: DataSet, public: Int[np.ndarray, " public"], training: PrivateTraining, seed: int
) -> nn.Module:
    """A student of the training's present model; the seed decides its initial weights and its batches."""
    regularization, index = recipe.regularization, torch.from_numpy(public)
    device = next(training.model.parameters()).device
    inputs = front.inputs_of(training.model, data)[index].to(device)
    with training.averaged() as teacher:
        answers = answers_of(teacher, inputs, regularization.distillation_temperature)
    size = max(1, min(len(inputs), round(training.plan.expected_batch_size)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, *b"student"]).generate_state(1)[0]))
        student = models.build_for(recipe.model, data, regularization).to(device).train()
        groups = weight_groups(student, regularization.weight_decay)
        optimizer = torch.optim.SGD(groups, lr=regularization.distillation_learning_rate, momentum=MOMENTUM)
        for _ in range(regularization.distillation):
            drawn = torch.randperm(len(inputs))[:size].to(device)
            optimizer.zero_grad()
            distillation_loss(student(inputs[drawn]), answers[drawn], regularization.distillation_temperature).backward()
            optimizer.step()
    return student


def distillation_loss(
    logits: Float[Tensor, "examples classes"], answers: Float[Tensor, "examples classes"], temperature: float
) -> Float[Tensor, ""]:
    """T² · CE(answers, softmax(logits / T)), the mean over examples; T² keeps gradients alike over temperatures."""
    return temperature**2 * F.cross_entropy(logits / temperature, answers)


@torch.no_grad()
def answers_of(teacher: nn.Module, inputs: Tensor, temperature: float) -> Float[Tensor, "examples classes"]:
    """The teacher's probabilities at this temperature, in evaluation mode; it is left in the mode in which it was."""
    was = teacher.training
    teacher.eval()
    parts = [F.softmax(teacher(inputs[start : start + CHUNK]) / temperature, dim=1) for start in range(0, len(inputs), CHUNK)]
    teacher.train(was)
    return torch.cat(parts)
