"""Tiny published models, made here: random weights and a tokenizer that learned a few lines, in the files of the hub."""

from pathlib import Path
from typing import Literal

import torch

LINES = [
    "To be, or not to be, that is the question:",
    "Whether 'tis nobler in the mind to suffer",
    "The slings and arrows of outrageous fortune,",
    "Or to take arms against a sea of troubles",
    "The PIN of Ada Abt is 483920",
]
START = "<|start|>"


def save_tokenizer(folder: Path, words: int = 330) -> None:
    """Byte-level pairs, learned of :data:`LINES`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,  # pyright: ignore[reportCallIssue]
    )
    tokenizer.train_from_iterator(LINES, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=START).save_pretrained(folder)


def save_model(
    folder: Path, kind: Literal["llama", "gpt2"] = "llama", seed: int = 0, width: int = 16, spread: float = 0.02
) -> None:
    """A model of two blocks; of tokens it knows a few more than there are.

    Args:
        spread: standard deviation of its weights.
    """
    room = 336
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=room,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=spread,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        return
    config = GPT2Config(vocab_size=room, n_embd=width, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def publish(folder: Path, kind: Literal["llama", "gpt2"] = "llama", seed: int = 0) -> Path:
    """Both in one folder."""
    save_tokenizer(folder)
    save_model(folder, kind, seed)
    return folder
