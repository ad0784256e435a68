"""Hugging Face's ``Trainer``, with privacy.

    trainer = PrivateTrainer(model=model, args=args, train_dataset=train, eval_dataset=test, plan=plan)
    trainer.train()                    # batches of the plan, clipped example by example, noised, counted
    trainer.private.guarantee()

``args`` are ordinary ``TrainingArguments``; learning rate and its schedule, weight decay, optimizer, saving, evaluation and
logging steps, label smoothing and the device are those of it. ``max_steps`` is the plan's steps. What is drawn is the plan's
too: ``per_device_train_batch_size`` says how many examples are in memory at once, and changes no result. Whatever would make
the stated ε false is refused with a sentence, not ignored: see :mod:`dptrain.hugging_face_arguments`.

**What is written, and where.** A save writes ``release/`` and ``private/`` below ``output_dir``, as
:meth:`~dptrain.private.PrivateTraining.save` does, and no ``trainer_state.json``, optimizer or ``training_args.bin`` beside
them. The latest checkpoint takes the place of the one before. ``save_model(folder)`` writes configuration and weights, for
``from_pretrained``, and nothing else. Losses of training and of evaluation are exact functions of private examples: they are
kept in ``state.log_history``, shown on the screen, and written for TensorBoard under ``<output_dir>.non_private``. Nothing is
pushed to a hub. A tokenizer is saved by its owner, who knows what text it was made of.

Losses are each example's own: cross entropy of ``labels``; of a sequence the mean over its tokens (shifted by one where the
model is a causal one; -100 counts for nothing), of a single output the squared error. ``loss=`` gives another one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dptrain.checkpoint import pack_json, unpack_json
from dptrain.checks import released
from dptrain.clipping.fallback import LossFunction
from dptrain.data.examples import Examples
from dptrain.errors import CheckpointError, ConfigError, ProtocolError
from dptrain.files import write_file
from dptrain.hugging_face_arguments import check_arguments, check_callbacks
from dptrain.ledger import Account
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining, make_private
from dptrain.recipe import Performance

try:
    from transformers import PreTrainedModel, Trainer, TrainingArguments
    from transformers.integrations import TensorBoardCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from transformers.trainer_utils import TrainOutput
except ImportError as missing:
    raise ConfigError("PrivateTrainer needs transformers and accelerate; type `pip install 'dptrain[text]'`") from missing

SCHEDULER = "scheduler.json"
IGNORED = -100
"""The label of a token that counts for nothing."""


class PrivateTrainer(Trainer):
    """A ``Trainer`` whose updates are those of a privacy plan.

    Args:
        plan: everything that decides ε; ``args.max_steps`` is its steps.
        train_dataset: map-style, one dictionary an example; attacks ask for a Subset of what a split was drawn of.
        loss: ``loss(model, inputs)`` gives one value an example; left out, that of the module's text.
        ledger: file in which steps are announced before they are taken; left out, ``<output_dir>/private/ledger.jsonl``.
        account: in which data set's account it stands, over all runs: its name, such as ``"patients-2026"``, as of
            :func:`~dptrain.private.make_private`. Hugging Face's data sets are known by no content, so that without it there is
            a warning, and no account.
        insecure_seed: repeatable batches and noise, for tests alone.
        others: as of ``Trainer``.

    Raises:
        ConfigError: an argument with which the stated ε would be false, or which cannot be kept to.
        PlanError: as :func:`~dptrain.private.make_private`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        plan: PrivacyPlan,
        train_dataset: Any,
        loss: LossFunction | None = None,
        ledger: str | Path | None = None,
        account: Account | str | None = None,
        insecure_seed: int | None = None,
        **others: Any,
    ):
        check_arguments(args, plan, others)
        super().__init__(model=model, args=args, train_dataset=train_dataset, **others)
        check_callbacks(self.callback_handler.callbacks)
        self.remove_callback(TensorBoardCallback)  # which writes beside the weights; log() writes elsewhere
        self.create_optimizer_and_scheduler(plan.steps)
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError("ReduceLROnPlateau follows a loss on private examples; give a scheduler that follows steps")
        self._scheduler = scheduler
        smoothing = args.label_smoothing_factor
        rows = max(args.per_device_train_batch_size, plan.max_examples_per_unit or 1)
        self.private: PrivateTraining = make_private(
            model,
            optimizer,
            Collated(train_dataset, self._collate),
            plan,
            loss=loss or PerExample(smoothing),
            performance=Performance(max_physical_batch=rows),
            ledger=ledger or Path(str(args.output_dir)) / "private" / "ledger.jsonl",
            account=account,
            insecure_seed=insecure_seed,
        )
        """To attend to, and to ask for its guarantee."""
        self._curves: Any = None

    def _collate(self, examples: list[Any]) -> dict[str, Tensor]:
        columns = self._get_collator_with_removed_columns(self.data_collator, description="training")
        return dict(columns(examples))

    # -- the loop -----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *_: Any, **unknown: Any) -> TrainOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Trains to the plan's last step, from the checkpoint in ``output_dir`` where ``resume_from_checkpoint`` is true.

        Raises:
            ConfigError: an option that it does not have.
        """
        if unknown:
            raise ConfigError(f"PrivateTrainer.train() takes resume_from_checkpoint alone, and {sorted(unknown)} was given")
        args, plan, handler = self.args, self.private.plan, self.callback_handler
        resumed = args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        if resumed:
            self._resume(self._folder if resumed is True else Path(resumed))
        self.state.max_steps, self.state.num_train_epochs = plan.steps, round(plan.steps * plan.sampling_rate)
        self.state.global_step = self.private.steps_taken
        self.state.compute_steps(args, plan.steps)
        self.state.is_world_process_zero = self.state.is_local_process_zero = True
        self.control = handler.on_train_begin(args, self.state, self.control)
        try:
            self._steps()
        finally:
            if self._curves is not None:
                self._curves.close()
                self._curves = None
        self.control = handler.on_train_end(args, self.state, self.control)
        return TrainOutput(self.state.global_step, self._mean_loss(), {"epsilon": self.private.epsilon()})

    def _steps(self) -> None:
        args, handler, rate = self.args, self.callback_handler, self.private.plan.sampling_rate
        saved = None
        self.private.model.train()
        for batch in self.private.batches():
            step = self.private.steps_taken
            self.control = handler.on_step_begin(args, self.state, self.control)
            self.private.step(batch)
            self._scheduler.step()
            self.state.global_step, self.state.epoch = step + 1, (step + 1) * rate
            self.control = handler.on_step_end(args, self.state, self.control)
            if int(self.state.epoch + 1e-9) > int(step * rate + 1e-9):
                self.control = handler.on_epoch_end(args, self.state, self.control)
            if self._act():
                saved = step + 1
            if self.control.should_training_stop:
                break
        if saved != self.private.steps_taken and args.save_strategy != "no":
            self.save()

    def _act(self) -> bool:
        """What callbacks ask for after a step; whether it was saved."""
        control, step = self.control, self.state.global_step
        if control.should_log:
            counts = self.private.last_counts
            loss = None if counts is None or not counts.examples else counts.loss / counts.examples
            self.log({"learning_rate": self._scheduler.get_last_lr()[0], **({} if loss is None else {"loss": loss})})
        if control.should_evaluate:
            self.evaluate()
            self.private.model.train()
        if control.should_save or (step == self.private.plan.steps and self.args.save_strategy != "no"):
            self.save()
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            return True
        return False

    def _mean_loss(self) -> float:
        found = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return float(np.mean(found)) if found else float("nan")

    # -- what is written ----------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return Path(str(self.args.output_dir))

    def save(self) -> Path:
        """``release/`` and ``private/`` below ``output_dir``; whoever attends is called back."""
        self.private.model.train()
        write_file(self._folder / "private" / SCHEDULER, pack_json(_plain(self._scheduler.state_dict())), mode=0o600)
        return self.private.save(self._folder)

    def _resume(self, folder: Path) -> None:
        self.private.resume(folder)
        path = folder / "private" / SCHEDULER
        if not path.exists():
            raise CheckpointError(
                f"{path} is missing, without which the learning rate would begin anew; restore it from a copy"
            )
        self._scheduler.load_state_dict(unpack_json(path.read_bytes(), path))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Configuration and weights, as they are released, for ``from_pretrained``; nothing else."""
        if output_dir is None:
            self.save()
            return
        with self.private.averaged() as model:
            weights = {name: value.detach().clone() for name, value in released(model).items()}
            pretrained: Any = model
            pretrained.save_pretrained(output_dir, state_dict=weights)

    def save_state(self) -> None:
        """Raises ProtocolError: it would put losses on private examples beside the weights."""
        raise ProtocolError(
            "save_state() would write losses on private examples beside the weights; they are under "
            f"{self._folder}.non_private, and save() keeps what resuming needs"
        )

    def push_to_hub(self, *_: Any, **__: Any) -> Any:
        """Raises ProtocolError: what is published is looked at before."""
        raise ProtocolError(
            "push_to_hub() would publish whatever lies in output_dir; publish the folder that save_model() writes, once you "
            "have read its guarantee and its report"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keeps figures in memory and on the screen, and in the log directory of what is not private."""
        entry = {**logs, "step": self.state.global_step, "epoch": self.state.epoch}
        self.state.log_history.append(entry)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, (ProgressCallback, PrinterCallback)):
                callback.on_log(self.args, self.state, self.control, logs=dict(logs))
        if "tensorboard" not in (self.args.report_to or ()):
            return
        if self._curves is None:
            from torch.utils.tensorboard import SummaryWriter

            self._curves = SummaryWriter(f"{self._folder}.non_private")
        for name, value in logs.items():
            if isinstance(value, (int, float)):
                self._curves.add_scalar(f"non_private/{name}", value, self.state.global_step)

    def training_step(self, *_: Any, **__: Any) -> Tensor:
        """Raises ProtocolError: a gradient of its own would be neither clipped nor noised nor charged."""
        raise ProtocolError("training_step() would move weights without privacy; call train()")


class Collated(Examples):
    """Examples that a collator of Hugging Face's puts together."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], dict[str, Tensor]]):
        super().__init__(dataset)
        self._tensors = None
        self._collate = collate

    def take(self, positions: np.ndarray) -> dict[str, Tensor]:
        return self._collate([self._dataset[int(index)] for index in self.indices[positions]])


class PerExample:
    """The loss of each example; see the module's text."""

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "label")}
        labels = batch.get("labels", batch.get("label"))
        if labels is None:
            raise ConfigError(f"the examples have {sorted(batch)} and no labels; name what is to be learned `labels`")
        logits = model(**inputs).logits
        if logits.dim() == 2 and (labels.is_floating_point() or logits.shape[1] == 1):
            return (logits - labels.view(len(labels), -1)).square().mean(1)
        if logits.dim() == 2:
            return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if logits.dim() != 3:
            raise ConfigError(f"the model's logits are of shape {tuple(logits.shape)}; give loss=, with one value an example")
        if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
            logits, labels = logits[:, :-1], labels[:, 1:]
        counts = (labels != IGNORED).sum(1).clamp(min=1)
        each = F.cross_entropy(
            logits.transpose(1, 2),
            labels,
            reduction="none",
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )
        return each.sum(1) / counts


class Answering(nn.Module):
    """A model of Hugging Face's as attacks ask it: one tensor in, logits out. Where it reads tokens, padding is masked."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        model: Any = self.model
        given = {model.main_input_name: inputs}
        padding = getattr(model.config, "pad_token_id", None)
        if not inputs.is_floating_point() and padding is not None:
            given["attention_mask"] = (inputs != padding).long()
        return model(**given).logits

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """The model's own names, which its release has."""
        return self.model.state_dict(*args, **options)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return self.model.load_state_dict(state_dict, strict, assign)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Numbers and lists of a scheduler, without the functions that it was built of."""
    return {name: value for name, value in state.items() if name != "lr_lambdas"} | (
        {"lr_lambdas": [None] * len(state["lr_lambdas"])} if "lr_lambdas" in state else {}
    )
