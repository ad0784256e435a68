"""A published language model whose weights stay as they are, and what is learned beside them.

    model = build((64,), 49152, ModelConfig(name="lora", pretrained="HuggingFaceTB/SmolLM2-135M"), RegularizationConfig())
    model(tokens)                        # [sequences, length] to logits [sequences, length, tokens] of what comes next
    logits, state = model.read(tokens)   # of what comes after the last one, and what the model keeps of them

LoRA (Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen 2022, "LoRA: Low-Rank Adaptation of Large Language Models"): to some
linear layers W x is added (α / r) B A x, where A and B have r rows and columns. A is drawn, B begins at 0, so that before its
first update the model is the published one. Under differential privacy A and B alone are clipped and noised: far fewer numbers
carry the noise (Yu et al. 2022, "Differentially Private Fine-tuning of Language Models"). The layers are PEFT's.

**The base is no part of the model's state.** It is held beside the modules that PyTorch knows of, so what is saved and released
is A and B alone, under the names that they have in PEFT's adapter files, and ``base``: the SHA-256 of the base's settings and
weights, by which loading into another base is refused. All models of one base share its tensors. It is always in evaluation
mode: without dropout, and without a cache of what was read while it is trained.

Positions are given to the base once a sequence: left to itself, GPT-2 looks up one row of them for all examples together. Here
they are frozen; where they are trained, in a script of somebody's own, the engine of :mod:`dptrain.clipping` sees that this row
is no example's and leaves the model to ``torch.func``. A base whose forward pass writes into its own tensors is refused in
training: what one example left there would reach the gradients of others.
"""

import copy
import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import CheckpointError, ConfigError, ProtocolError
from dptrain.hub import SETTINGS, WEIGHTS, check_folder, first_line, folder_of, text_extra
from dptrain.recipe import ModelConfig, RegularizationConfig

KEY = "model.pretrained"
PUBLISHED = "base_model.model."
"""What PEFT's adapter files write before the name of a layer."""
PARTS = ("lora_A", "lora_B")
ADAPTED = tuple(f"{part}.default" for part in PARTS)
READ = 1 << 20
"""Bytes of a file that are hashed at once."""

State = tuple[Tensor, ...]
"""Keys and values, ``[layers, sequences, heads, length, head width]``; or the tokens, ``[1, sequences, length]``."""


class LowRank(nn.Module):
    """See the module's text.

    Args:
        base: a causal language model of transformers into which PEFT has put its layers.
        tokens: of the tokenizer. A base may have room for more, which are never said.
        digest: of the base's files.
    """

    base: Tensor

    def __init__(self, base: nn.Module, tokens: int, digest: bytes, name: str):
        super().__init__()
        self._base, self._tokens, self.pretrained = _Held(base), tokens, name
        for path, module in list(base.named_modules()):
            for part in PARTS:
                if part in getattr(module, "adapter_layer_names", ()) and getattr(module, part):
                    _mount(self, f"{PUBLISHED}{path}.{part}", getattr(module, part)["default"])
        self.register_buffer("base", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        self._takes_positions = "position_ids" in inspect.signature(base.forward).parameters
        self.register_load_state_dict_pre_hook(_check_base)

    def forward(self, tokens: Int[Tensor, "sequences length"]) -> Float[Tensor, "sequences length tokens"]:
        logits = self._answer(tokens, 0, use_cache=False).logits[..., : self._tokens]
        if self.training:
            self._base.check()
        return logits

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "sequences more"], state: State | None = None
    ) -> tuple[Float[Tensor, "sequences tokens"], State]:
        """Logits of what comes after ``tokens``, which come after what ``state`` was made of."""
        from transformers import DynamicCache

        if not self._caches:
            so_far = tokens if state is None else torch.cat([state[0][0], tokens], 1)
            return self(so_far)[:, -1], (so_far[None],)
        cache = DynamicCache(None if state is None else list(zip(*state, strict=True)))
        found = self._answer(tokens, 0 if state is None else state[0].shape[3], use_cache=True, cache=cache)
        layers: Any = cache.layers
        kept = torch.stack([layer.keys for layer in layers]), torch.stack([layer.values for layer in layers])
        return found.logits[:, -1, : self._tokens], kept

    def stated(self) -> dict[str, str]:
        """What a card says of the base."""
        return {"pretrained": self.pretrained, "sha256": bytes(self.base.tolist()).hex()}

    def check_base(self, stated: dict[str, str]) -> None:
        """Raises CheckpointError where a card says that the base was another one."""
        given = torch.frombuffer(bytearray.fromhex(stated["sha256"]), dtype=torch.uint8)
        _check_base(self, {"base": given}, "")

    @property
    def _caches(self) -> bool:
        """Whether keys and values of all layers are all that there is to keep: no window, no state of another kind."""
        settings: Any = self._base.module.config
        kinds = getattr(settings, "layer_types", None) or ["full_attention"]
        windows = getattr(settings, "sliding_window", None)
        return set(kinds) == {"full_attention"} and not windows

    def _answer(self, tokens: Tensor, first: int, **options: Any) -> Any:
        if self._takes_positions:
            places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
            options["position_ids"] = places.expand_as(tokens)
        return self._base.module(input_ids=tokens, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LowRank":
        """The base goes where the model goes; its tensors are replaced, not moved, as other models may have them too."""
        super()._apply(fn, recurse)
        own, made = set(self.modules()), dict[nn.Parameter, nn.Parameter]()
        for module in self._base.module.modules():
            if module in own:
                continue
            for key, value in module._parameters.items():
                if value is not None:
                    if value not in made:  # a weight can have two names
                        made[value] = nn.Parameter(fn(value.detach()), requires_grad=False)
                    module._parameters[key] = made[value]
            module._buffers.update({key: fn(value) for key, value in module._buffers.items() if value is not None})
        self._base.mark()
        return self


class _Held:
    """A module that PyTorch does not see where it is held. Copies have modules of their own and the same frozen tensors."""

    def __init__(self, module: nn.Module):
        self.module = module.eval()
        self.mark()

    def mark(self) -> None:
        """Takes its tensors as they are now for right."""
        self._marks = self._look()

    def check(self) -> None:
        """Raises ProtocolError where a tensor is not the one that was there, or was written into."""
        if self._look() != self._marks:
            raise ProtocolError(
                "a forward pass wrote into the published model's own weights or buffers, which examples would share from then "
                "on; choose another model.pretrained"
            )

    def _look(self) -> list[tuple[int, int]]:
        own = [*self.module.named_parameters(), *self.module.named_buffers()]
        return [(id(value), value._version) for name, value in own if not name.rpartition(".")[0].endswith(ADAPTED)]

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Held":
        return _Held(_with_same_tensors(self.module, memo))


def _with_same_tensors(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    memo |= {id(value): value for value in module.parameters() if not value.requires_grad and id(value) not in memo}
    return copy.deepcopy(module, memo)


def _mount(root: nn.Module, path: str, part: nn.Module) -> None:
    """Puts a module below others that are made where they are missing."""
    *above, last = path.split(".")
    for name in above:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, part)


def _check_base(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Raises CheckpointError where what is loaded was learned beside another base."""
    given, own = state.get(f"{prefix}base"), getattr(module, "base", None)
    if not isinstance(given, Tensor) or not isinstance(own, Tensor) or torch.equal(given.cpu(), own.cpu()):
        return
    raise CheckpointError(
        f"these weights were learned beside another model than the one in {getattr(module, 'pretrained', '')!r}: the SHA-256 "
        f"of its config.json and weights begins with {_hex(given)}, and here with {_hex(own)}; put the same files there again"
    )


def _hex(digest: Tensor) -> str:
    return bytes(digest.tolist()).hex()[:16]


def base_digest(folder: Path) -> bytes:
    """SHA-256 over the names and contents of ``config.json`` and all weights in safetensors."""
    files = [folder / SETTINGS, *sorted(folder.glob(WEIGHTS))]
    return _digest(tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@functools.lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> bytes:
    content = hashlib.sha256()
    for name, _, size in files:
        content.update(f"{Path(name).name} {size}\n".encode())
        for block in _blocks(Path(name)):
            content.update(block)
    return content.digest()


def _blocks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as handle:
        while block := handle.read(READ):
            yield block


@functools.lru_cache(maxsize=2)
def _base(folder: Path, digest: bytes) -> nn.Module:
    """The published model, frozen, in float32. Never handed out itself: see :func:`_with_same_tensors`."""
    with text_extra(KEY):
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # of many kinds: each model is a library's own class
        raise ConfigError(
            f"{KEY} is {str(folder)!r}, whose model cannot be read ({first_line(error)}); give a causal language model that "
            "transformers can load without code of its own"
        ) from None
    return model.requires_grad_(False).eval()


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[sequences, length]`` tokens to logits ``[sequences, length, classes]``.

    Raises:
        ConfigError: there is no base model, or none that can be read; the inputs are no sequences of its tokens; or dropout
            is asked for.
    """
    if config.pretrained is None:
        raise ConfigError(
            "model.pretrained is not given, and the model lora needs one to begin from; give --model.pretrained with a folder, "
            "or a name on the Hugging Face hub such as HuggingFaceTB/SmolLM2-135M"
        )
    if len(input_shape) != 1:
        raise ConfigError(
            f"the model lora reads sequences of tokens and the data set's inputs are {'×'.join(map(str, input_shape))}; choose "
            "--model.name cnn or mlp"
        )
    if regularization.dropout:
        raise ConfigError(f"regularization.dropout is {regularization.dropout}, and the model lora has none; leave it out")
    folder = folder_of(config.pretrained, KEY)
    check_folder(folder, {SETTINGS: "the model's settings", WEIGHTS: "its weights"}, KEY)
    digest = base_digest(folder)
    base = _with_same_tensors(_base(folder, digest), {})
    settings: Any = base.config
    if classes > settings.vocab_size:
        raise ConfigError(
            f"model.pretrained is {config.pretrained!r}, which knows {settings.vocab_size} tokens, and the data are written in "
            f"{classes}; leave data.tokenizer out, so that they are written in the model's own"
        )
    longest = getattr(settings, "max_position_embeddings", None) or input_shape[0]
    if input_shape[0] > longest:
        raise ConfigError(
            f"data.sequence_length is {input_shape[0]}, and the model {config.pretrained!r} reads at most {longest} tokens; "
            "give a smaller length"
        )
    return LowRank(_adapted(base, config), classes, digest, config.pretrained)


def _adapted(base: nn.Module, config: ModelConfig) -> nn.Module:
    """The base with PEFT's layers in it; their weights are drawn from torch's generator, as initial weights are."""
    with text_extra(KEY):
        from peft import LoraConfig, inject_adapter_in_model
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOSEN
    kind = getattr(base.config, "model_type", "")
    targets = CHOSEN.get(kind) if config.adapted == "default" else None
    options: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0, "bias": "none"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # of GPT-2's layers, which PEFT then sets right
        made = inject_adapter_in_model(LoraConfig(target_modules=targets or _linear_layers(base), **options), base)
    for name, value in made.named_parameters():
        value.requires_grad_("lora_" in name)
    return made


def _linear_layers(base: nn.Module) -> list[str]:
    """The names of all linear layers but the last one, which says the tokens."""
    from transformers.pytorch_utils import Conv1D

    model: Any = base
    last = model.get_output_embeddings()
    return [name for name, part in base.named_modules() if isinstance(part, (nn.Linear, Conv1D)) and part is not last]
