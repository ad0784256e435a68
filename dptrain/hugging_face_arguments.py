"""Which of Hugging Face's ``TrainingArguments`` a private training keeps to, and which it refuses.

    check_arguments(args, plan, others)      # raises ConfigError with the argument, and what to give

An argument that would be ignored in silence is how a stated ε becomes false: gradients that are accumulated under noise of
their own, batches that are grouped by length and accounted for as drawn by coins, a "best" checkpoint that private
validation examples chose. Each is refused with a sentence.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dptrain.errors import ConfigError
from dptrain.plan import PrivacyPlan

AN_AVERAGE = "it is an average over a batch; give loss=, a function of (model, inputs) with one value an example"

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "gradient_accumulation_steps": (
        (1,),
        "an update is one draw of the plan and one draw of noise; leave it at 1: per_device_train_batch_size says what "
        "memory holds",
    ),
    "fp16": ((False,), "norms in half precision can exceed the clipping norm; leave it out"),
    "bf16": ((False,), "norms in half precision can exceed the clipping norm; leave it out"),
    "load_best_model_at_end": (
        (False,),
        "the best checkpoint is chosen on private examples, which nothing covers; leave it out: the last one is released",
    ),
    "train_sampling_strategy": (("random",), "the plan draws the batches, each example by its own coin; leave it out"),
    "group_by_length": ((False,), "the plan draws the batches, each example by its own coin; leave it out"),
    "auto_find_batch_size": ((False,), "chunks are halved where memory runs out, whatever it says; leave it out"),
    "push_to_hub": ((False,), "what is published is looked at before; leave it out, and publish what save_model() wrote"),
    "gradient_checkpointing": ((False, None), "per-example gradients are made in one pass; leave it out"),
    "activation_checkpointing": ((False, None), "per-example gradients are made in one pass; leave it out"),
    "neftune_noise_alpha": ((None,), "noise in embeddings is no part of the plan; leave it out"),
    "deepspeed": ((None, ""), "sharded weights are not supported; leave it out"),
    "fsdp": ((None, "", [], False), "sharded weights are not supported; leave it out"),
    "torch_compile": ((False, None), "per-example gradients are made without it; leave it out"),
    "use_liger_kernel": ((False,), "its fused losses are averages over a batch; leave it out"),
    "save_on_each_node": ((False,), "one process trains; leave it out"),
    "optim_target_modules": ((None,), "each trainable weight is in the optimizer once; leave it out"),
}

LOGS = ("none", "tensorboard")


def check_arguments(args: Any, plan: PrivacyPlan, others: Mapping[str, Any]) -> None:
    """Refuses what would make the stated ε false, or cannot be kept to.

    Raises:
        ConfigError: it names the argument and says what to give.
    """
    if not isinstance(plan, PrivacyPlan):
        raise ConfigError(f"plan is {plan!r}; give a PrivacyPlan, such as PrivacyPlan(...).calibrate(epsilon=8)")
    if args.max_steps != plan.steps:
        raise ConfigError(
            f"args.max_steps is {args.max_steps} and the plan has {plan.steps} steps, for which its ε holds; give "
            f"max_steps=plan.steps, which is {plan.steps * plan.sampling_rate:g} epochs"
        )
    if args.max_grad_norm and args.max_grad_norm != plan.clipping_norm:
        raise ConfigError(
            f"args.max_grad_norm is {args.max_grad_norm:g} and the plan clips each example's gradient to "
            f"{plan.clipping_norm:g}; give the same, or 0: the mean gradient is not clipped again"
        )
    for name, (accepted, why) in REFUSED.items():
        value = getattr(args, name, accepted[0])
        if not any(value is one or value == one for one in accepted):
            raise ConfigError(f"args.{name} is {value!r}: {why}")
    if str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) == "reduce_lr_on_plateau":
        raise ConfigError("args.lr_scheduler_type follows a loss on private examples; give one that does not, such as cosine")
    outside = [name for name in args.report_to if name not in LOGS]
    if outside:
        raise ConfigError(
            f"args.report_to is {args.report_to}: losses on private examples would leave this machine; give "
            'report_to="tensorboard", which writes them beside the output folder, or "none"'
        )
    if args.world_size > 1 or args.n_gpu > 1:
        raise ConfigError(
            f"{max(args.world_size, args.n_gpu)} devices are seen, and PrivateTrainer trains on one; show one with "
            "CUDA_VISIBLE_DEVICES=0, or write the loop with make_private() under torchrun"
        )
    if others.get("compute_loss_func") is not None:
        raise ConfigError(f"compute_loss_func is given: {AN_AVERAGE}")
    if others.get("model_init") is not None:
        raise ConfigError("model_init is given, by which a search would train several models with the ε of one; give model=")


def check_callbacks(callbacks: Iterable[Any]) -> None:
    """Refuses callbacks that let private examples choose, or that carry figures elsewhere.

    Raises:
        ConfigError: it names the callback.
    """
    from transformers import EarlyStoppingCallback

    for callback in callbacks:
        if isinstance(callback, EarlyStoppingCallback):
            raise ConfigError(
                "EarlyStoppingCallback chooses a checkpoint on private examples, which nothing covers; leave it out, and plan "
                "fewer steps"
            )
