"""Hugging Face's Trainer keeps to the plan; what it cannot keep to it refuses, with a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

transformers = pytest.importorskip("transformers")

from dptrain import PrivacyPlan  # noqa: E402
from dptrain.checkpoint import load_release  # noqa: E402
from dptrain.errors import ConfigError, ProtocolError  # noqa: E402
from dptrain.hugging_face import IGNORED, Answering, PerExample, PrivateTrainer  # noqa: E402
from dptrain.ledger import accounts  # noqa: E402

PLAN = PrivacyPlan(sampling_rate=0.1, expected_batch_size=40, steps=4, clipping_norm=0.5, delta=1e-4, noise_multiplier=1.0)
PIXELS, LABELS = load_digits(return_X_y=True)
PICTURES = torch.tensor(PIXELS[:400], dtype=torch.float32).view(-1, 1, 8, 8) / 16
DIGITS = [{"pixel_values": one, "labels": int(label)} for one, label in zip(PICTURES, LABELS[:400], strict=True)]


def vit() -> Any:
    torch.manual_seed(0)
    size: Any = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "num_labels": 10}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_dropout_prob=0.0, **size)
    )


def arguments(folder: Path, **options: Any) -> Any:
    given = {"max_steps": 4, "max_grad_norm": 0, "report_to": "none", "use_cpu": True, "disable_tqdm": True, **options}
    return transformers.TrainingArguments(str(folder / "run"), **given)


def trainer(folder: Path, plan: PrivacyPlan = PLAN, others: dict[str, Any] | None = None, **options: Any) -> PrivateTrainer:
    return PrivateTrainer(
        vit(), arguments(folder, **options), plan=plan, train_dataset=DIGITS, insecure_seed=1, **(others or {})
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient_accumulation_steps": 2}, "one draw of noise; leave it at 1"),  # sharp edge 9
        ({"train_sampling_strategy": "group_by_length"}, "by its own coin"),  # sharp edge 1
        ({"max_steps": -1}, r"give max_steps=plan\.steps"),  # sharp edge 4
        ({"max_grad_norm": 1.0}, "clips each example's gradient to 0.5; give the same, or 0"),
        ({"bf16": True}, "half precision"),  # sharp edge 19
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2},
            "the last one is released",
        ),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 2}, "follows a loss on private"),
        ({"push_to_hub": True, "hub_token": "none"}, "looked at before"),
        ({"gradient_checkpointing": True}, "one pass"),
        ({"auto_find_batch_size": True}, "whatever it says"),
        ({"neftune_noise_alpha": 5.0}, "no part of the plan"),
    ],
)
def test_what_would_make_epsilon_false_is_refused(options: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path, **options)


def test_losses_do_not_leave_the_machine(tmp_path: Path):
    """Sharp edge 14: whoever reports to a service uploads exact losses of private examples."""
    args = arguments(tmp_path)
    args.report_to = ["wandb"]
    with pytest.raises(ConfigError, match="would leave this machine"):
        PrivateTrainer(vit(), args, plan=PLAN, train_dataset=DIGITS)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"callbacks": [transformers.EarlyStoppingCallback()]}, "chooses a checkpoint on private examples"),  # sharp edge 13
        ({"compute_loss_func": F.cross_entropy}, "an average over a batch; give loss="),
        ({"model_init": vit}, "several models with the ε of one"),
    ],
)
def test_callbacks_and_functions_that_choose_or_average_are_refused(others: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path, others=others)


def test_memory_batches_change_no_result_and_noise_is_drawn_once_an_update(tmp_path: Path):
    """Sharp edge 9: 40 examples at once, or 3 at a time."""
    found = []
    for rows in (64, 3):
        one = trainer(tmp_path / str(rows), per_device_train_batch_size=rows, learning_rate=0.01, save_strategy="no")
        one.train()
        found.append(torch.cat([value.detach().flatten() for value in one.private.model.parameters()]))
    assert float((found[0] - found[1]).abs().max()) < 1e-3
    start = torch.cat([value.detach().flatten() for value in vit().parameters()])
    assert float((found[0] - start).abs().max()) > 1e-2


def test_nothing_private_stands_beside_the_released_weights(tmp_path: Path):
    """Sharp edges 14, 18 and 24."""
    one = trainer(
        tmp_path, report_to="tensorboard", save_steps=2, logging_steps=2, eval_strategy="steps", eval_steps=2,
        others={"eval_dataset": DIGITS[:50]},
    )  # fmt: skip
    one.train()
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"release", "private"}
    assert {path.name for path in (run / "release").iterdir()} == {"model.safetensors", "card.json", "manifest.json"}
    assert load_release(run / "release")[1]["steps_taken"] == 4
    assert list((tmp_path / "run.non_private").glob("events*"))
    assert {name for entry in one.state.log_history for name in entry} >= {"loss", "eval_loss"}
    one.save_model(str(tmp_path / "published"))
    assert {path.name for path in (tmp_path / "published").iterdir()} == {"config.json", "model.safetensors"}
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "published").eval()
    with torch.no_grad():
        assert torch.allclose(again(PICTURES[:5]).logits, one.private.model.eval()(PICTURES[:5]).logits)
    with pytest.raises(ProtocolError, match="losses on private examples beside the weights"):
        one.save_state()
    with pytest.raises(ProtocolError, match="whatever lies in output_dir"):
        one.push_to_hub()
    with pytest.raises(ProtocolError, match=r"call train\(\)"):
        one.training_step()


def test_a_resumed_training_goes_on_in_its_schedule_and_counts_all_steps(tmp_path: Path):
    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 2

    first = trainer(tmp_path, others={"callbacks": [Stops()]}, learning_rate=0.01, lr_scheduler_type="linear")
    first.train()
    assert first.private.steps_taken == 2
    second = trainer(tmp_path, learning_rate=0.01, lr_scheduler_type="linear")
    second.train(resume_from_checkpoint=True)
    assert second.private.steps_taken == 4
    scheduler: Any = second.lr_scheduler
    assert scheduler.get_last_lr()[0] == pytest.approx(0.0, abs=1e-9)  # of four steps, not of two more
    assert second.private.epsilon() == pytest.approx(PLAN.guarantee().epsilon, rel=0.1)
    with pytest.raises(ConfigError, match="takes resume_from_checkpoint alone"):
        second.train(trial=None)


class _Says(nn.Module):
    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, **_: Any) -> Any:
        return type("Output", (), {"logits": self.logits})


def test_losses_are_each_examples_own_and_as_the_models_own_on_average():
    """Known answer: the mean over examples is what transformers' own loss says, where all examples have as many tokens."""
    classes = vit()
    batch = {"pixel_values": PICTURES[:6], "labels": torch.tensor(LABELS[:6])}
    own = PerExample()(classes, batch)
    assert own.shape == (6,)
    assert float(own.mean()) == pytest.approx(float(classes(**batch).loss), rel=1e-5)
    torch.manual_seed(1)
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=11, n_positions=8)
    language = transformers.GPT2LMHeadModel(config).eval()
    tokens = {"input_ids": torch.randint(11, (3, 8)), "labels": torch.randint(11, (3, 8))}
    assert float(PerExample()(language, tokens).mean()) == pytest.approx(float(language(**tokens).loss), rel=1e-5)
    logits, labels = torch.randn(2, 4, 5), torch.randint(5, (2, 4))
    labels[0, 2:] = IGNORED
    ignoring = PerExample()(_Says(logits), {"labels": labels})
    assert float(ignoring[0]) == pytest.approx(float(F.cross_entropy(logits[0, :2], labels[0, :2])), rel=1e-5)
    smooth = PerExample(0.2)(_Says(logits[:, 0]), {"labels": torch.tensor([0, 4])})
    whole = F.cross_entropy(logits[:, 0], torch.tensor([0, 4]), label_smoothing=0.2)
    assert float(smooth.mean()) == pytest.approx(float(whole), rel=1e-5)
    value = PerExample()(_Says(torch.tensor([[1.0], [3.0]])), {"labels": torch.tensor([0.0, 1.0])})
    assert value.tolist() == [1.0, 4.0]
    with pytest.raises(ConfigError, match="no labels"):
        PerExample()(classes, {"pixel_values": PICTURES[:2]})


def test_attacks_ask_the_model_by_its_own_names():
    model = vit().eval()
    asked = Answering(model)
    assert asked(PICTURES[:3]).shape == (3, 10)
    assert list(asked.state_dict()) == list(model.state_dict())
    torch.manual_seed(2)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20, max_position_embeddings=8
    )
    text = Answering(transformers.BertForSequenceClassification(config).eval())
    short, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 0, 0]])
    with torch.no_grad():
        assert np.allclose(text(short), text(padded), atol=1e-5)  # padding says nothing


def test_its_steps_stand_in_the_account_that_is_named(tmp_path: Path):
    """A list of dictionaries has no content that is known: without a name nothing would add up its runs."""
    private = trainer(tmp_path, others={"account": "digits-by-name"})
    private.train()
    (account,) = accounts()
    (run,) = account.runs()
    assert (run.steps, run.status) == (PLAN.steps, "done")
    assert account.statement().spent[0].epsilon == pytest.approx(private.private.epsilon(), abs=1e-9)
    with pytest.warns(UserWarning, match="stands in no account"):
        trainer(tmp_path / "another")
