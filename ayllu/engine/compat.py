"""`LlamaForCausalLM` by the names that scripts for transformers use: only the import line changes.

    from ayllu import LlamaForCausalLM, LlamaTokenizer

What differs is told when it happens: several sequences without sampling or beams are sampled; nothing past the
model's context is computed; an unknown keyword is an error that names the nearest known one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from ayllu.checkpoint.generation import warn_of_unsupported
from ayllu.checkpoint.hf import write_hf
from ayllu.checkpoint.hf_config import config_to_hf
from ayllu.checkpoint.load import Checkpoint, load_checkpoint, open_checkpoint
from ayllu.checkpoint.source import Entry
from ayllu.config import Settings, validate
from ayllu.device import pick_device
from ayllu.engine.compat_keywords import FORWARD, GENERATE, drop_neutral, generation_settings
from ayllu.engine.compat_tokenizer import LlamaTokenizer, check_keywords
from ayllu.engine.runner import Runner, make_runner
from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.log import say, warn
from ayllu.model.attend import padded
from ayllu.model.generate import Generation, generate
from ayllu.model.params import SamplingParams

__all__ = ["CausalLMOutput", "LlamaForCausalLM", "LlamaTokenizer"]

NEW_TOKENS = 20                                          # where nobody says how many, as in transformers
TOP_K = 50                                               # what transformers samples from where nobody says
IGNORED = {"low_cpu_mem_usage", "use_safetensors", "attn_implementation", "trust_remote_code"}


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is meant, not True or False")
    return value


Count = Annotated[int | None, Field(ge=1), BeforeValidator(_no_bool)]


class _Generate(Settings):
    """The keywords of `model.generate`. None: what generation_config.json says, else transformers' own default."""

    max_length: Count = None
    max_new_tokens: Count = None
    num_return_sequences: Count = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    num_beams: Count = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    eos_token_id: int | list[int] | None = None          # -1: never stop
    pad_token_id: int | None = None
    seed: int | None = None                              # Ayllu's own; None: drawn from torch's generator
    use_cache: bool | None = None                        # the ids are the same; Ayllu always keeps a cache


_SAMPLED = ("temperature", "top_k", "top_p", "min_p", "typical_p")


@dataclass
class CausalLMOutput:
    """Logits (B, T, V), and the mean loss where labels were given; [0] is the first of them that there is."""

    logits: Tensor
    loss: Tensor | None = None

    def __getitem__(self, index: int) -> Tensor:
        return [x for x in (self.loss, self.logits) if x is not None][index]


class LlamaForCausalLM(nn.Module):
    """A model of any kind that Ayllu reads; the name is the one that scripts import."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.model = checkpoint.model
        self.name_or_path = str(checkpoint.path)
        ids = checkpoint.generation
        eos = ids.eos_ids or (checkpoint.tokenizer.eos_ids if checkpoint.tokenizer else ())
        special = {"bos_token_id": ids.bos_id, "eos_token_id": list(eos) if len(eos) > 1 else (*eos, None)[0],
                   "pad_token_id": ids.pad_id}
        self.config = SimpleNamespace(**{**config_to_hf(checkpoint.config), **special})
        self.generation_config = SimpleNamespace(**{**ids.raw, **special})
        self.eval()

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "LlamaForCausalLM":
        """Load a folder, a file of any format, a hub name or "ayllu-mini". Takes dtype (torch_dtype), device_map."""
        known = {"dtype", "torch_dtype", "device", "device_map"}
        check_keywords(options, known | IGNORED, "LlamaForCausalLM.from_pretrained")
        if options.get("trust_remote_code"):
            raise ConfigError("trust_remote_code=True: Ayllu never runs code from a checkpoint; leave it out")
        dtype = options.get("dtype", options.get("torch_dtype"))
        place = options.get("device", options.get("device_map"))
        if isinstance(place, dict):
            raise ConfigError(f"device_map={place}: Ayllu puts a model on one device; give its name, or \"auto\"")
        if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
            raise ConfigError(f"dtype={dtype}: weights are float numbers; use float32, bfloat16 or float16")
        device = None if place is None else pick_device(str(place))
        return cls(load_checkpoint(name, dtype=None if dtype == "auto" else dtype, device=device))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None,
                labels: Tensor | None = None, **options: Any) -> CausalLMOutput:
        """Logits of each next token; with `labels` (-100: not counted) the mean loss, shifted as transformers does."""
        check_keywords(options, FORWARD, "model()")
        drop_neutral(options, FORWARD, "model()")
        self._check_range("input_ids", input_ids)
        if attention_mask is None or bool(attention_mask.all()):
            logits = self.model(input_ids)
        else:
            is_token = attention_mask.bool()
            positions = (is_token.cumsum(-1) - 1).clamp(min=0)
            config = self.model.config
            attends = [padded(is_token, config.window(i)) for i in range(config.n_layers)]
            logits = self.model(input_ids, positions, attends)
        if labels is None:
            return CausalLMOutput(logits)
        self._check_range("labels", labels[labels != -100])
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten().to(logits.device))
        return CausalLMOutput(logits, loss)

    @torch.inference_mode()
    def generate(self, input_ids: Any = None, *, inputs: Any = None, attention_mask: Any = None,
                 streamer: Any = None, **options: Any) -> Tensor:
        """Prompts and what follows them, (B * n, T), filled on the right with the padding id."""
        input_ids = inputs if input_ids is None else input_ids
        if isinstance(input_ids, Mapping):               # what apply_chat_template gives in transformers 5
            attention_mask = input_ids.get("attention_mask") if attention_mask is None else attention_mask
            input_ids = input_ids["input_ids"]
        options = drop_neutral(options, GENERATE, "generate()")
        config = options.pop("generation_config", None)
        call = self._with_defaults(validate(_Generate, options, where="generate()"), config)
        for name in ("pad_token_id", "eos_token_id"):
            self._check_ids(name, getattr(call, name))
        ids = _as_rows(input_ids)
        prompts = _prompts(ids, attention_mask, call)
        params = self._params(call, set(options), ids.shape[1])
        if streamer is not None:
            outputs = [[self._streamed(ids, prompts, params, streamer)]]
        else:                                            # equal prompts of one call shall not give equal samples
            each = [params.model_copy(update={"seed": ((params.seed or 0) + i) % 2**64}) for i in range(len(prompts))]
            outputs = [[output.ids for output in n] for n in generate(self._runner(), prompts, each)]
        fill = next((i for i in (call.pad_token_id, *params.stop_ids) if i is not None and i >= 0), 0)
        rows = [row + new for row, each in zip(ids.tolist(), outputs, strict=True) for new in each]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], device=self.device)

    def _runner(self) -> Runner:
        """Made for each call, since a script may change, train or move the model between two; it copies nothing."""
        return make_runner(self.model, shares=True)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and safetensors, with the licence record that came with the weights."""
        weights = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        entries = {name: Entry(tuple(t.shape), t.dtype, lambda t=t: t.cpu(), Path(folder), str(t.dtype))  # type: ignore[misc]
                   for name, t in weights.items()}
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_hf(Path(folder), replace(open_checkpoint(self.name_or_path), entries=entries, format="memory"))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.tok_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.model.tok_embeddings.weight.dtype

    def num_parameters(self) -> int:
        """Trainable numbers, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def _with_defaults(self, call: _Generate, config: Any) -> _Generate:
        """What the call leaves open is taken from `config`, else from `generation_config`, which a script may change.

        Special ids that `config` leaves open stay the model's, as in transformers.
        """
        given = vars(self.generation_config)
        if config is not None:
            own = {name: value for name, value in generation_settings(config).items() if value is not None}
            stated = {name: value for name, value in own.items() if name in _Generate.model_fields}
            validate(_Generate, stated, where="generation_config")
            given = {"eos_token_id": given.get("eos_token_id"), "pad_token_id": given.get("pad_token_id"), **own}
        names = [name for name in _Generate.model_fields if getattr(call, name) is None and given.get(name) is not None]
        if call.max_length is not None:
            names = [name for name in names if name != "max_new_tokens"]
        found = {name: given[name] for name in names}
        if call.pad_token_id is None and "pad_token_id" not in found:
            found["pad_token_id"] = self.config.pad_token_id
        warn_of_unsupported(given)
        return call.model_copy(update=found)

    def _check_ids(self, name: str, value: int | list[int] | None) -> None:
        size = self.model.config.vocab_size
        if value is not None and max(_as_list(value), default=0) >= size:
            raise RequestError(f"{name}={value}, but the model's vocabulary has ids 0 to {size - 1}")

    def _check_range(self, name: str, ids: Tensor) -> None:
        """An id that the vocabulary lacks stops a GPU for good, so it is found before it gets there."""
        if torch.compiler.is_compiling() or ids.numel() == 0:
            return
        size = self.model.config.vocab_size
        for id in torch.stack(ids.aminmax()).tolist():
            if not 0 <= id < size:
                raise RequestError(f"{name} holds {id}, but the model's vocabulary has ids 0 to {size - 1}")

    def _params(self, call: _Generate, stated: set[str], width: int) -> SamplingParams:
        """The same request in Ayllu's terms. `width` is the padded length of the prompts, which max_length counts."""
        n = 1 if call.num_return_sequences is None else call.num_return_sequences
        beams = 1 if call.num_beams is None else call.num_beams
        do_sample = bool(call.do_sample)
        if n > 1 and beams == 1 and not do_sample:
            if call.do_sample is False and "do_sample" in stated:
                raise ConfigError(f"num_return_sequences={n} with do_sample=False would give one text {n} times: "
                                  "set do_sample=True or num_beams")
            warn(f"num_return_sequences={n} without do_sample or num_beams: the {n} texts are sampled; "
                 "pass do_sample=True to say so yourself")
            do_sample = True
        if do_sample and beams > 1:
            raise ConfigError(f"do_sample=True with num_beams={beams}: Ayllu's beam search does not sample; "
                              "leave out one of them")
        unused = [name for name in _SAMPLED if name in stated and getattr(call, name) is not None]
        if unused and not do_sample:
            warn(f"{', '.join(unused)} changes nothing without do_sample=True")
        unused = [name for name in ("length_penalty", "early_stopping") if name in stated and getattr(call, name)]
        if unused and beams == 1:
            warn(f"{', '.join(unused)} changes nothing without num_beams")
        sampled = {name: getattr(call, name) for name in _SAMPLED if getattr(call, name) is not None}
        table: dict[str, Any] = {"temperature": 0.0} if not do_sample else {"top_k": TOP_K, **sampled}
        if beams > 1:
            table = {"num_beams": beams, "length_penalty": 1.0 if call.length_penalty is None else call.length_penalty,
                     "early_stopping": None if call.early_stopping == "never" else bool(call.early_stopping)}
        seed = int(torch.randint(2**31, ())) if call.seed is None else call.seed    # follows torch.manual_seed
        ends = [] if call.eos_token_id is None else _as_list(call.eos_token_id)
        table |= {"n": n, "seed": seed, "max_tokens": self._max_tokens(call, width),
                  "stop_ids": tuple(i for i in ends if i >= 0)}
        if call.repetition_penalty is not None:
            table["repetition_penalty"] = call.repetition_penalty
        return validate(SamplingParams, table, where="generate()")

    def _max_tokens(self, call: _Generate, width: int) -> int:
        limit = self.model.config.max_context
        if call.max_new_tokens is not None:
            return call.max_new_tokens
        if call.max_length is None:
            say(f"neither max_new_tokens nor max_length is given: {NEW_TOKENS} new tokens are written")
            return max(1, min(NEW_TOKENS, limit - width))
        if call.max_length <= width:
            raise RequestError(f"the prompt has {width} tokens, so max_length={call.max_length} leaves no room: it "
                               "counts prompt and answer; raise it, or use max_new_tokens")
        if call.max_length > limit:
            raise ContextTooLong(f"max_length={call.max_length} goes past the model's context of {limit}: "
                                 f"set it to at most {limit}")
        return call.max_length - width

    def _streamed(self, ids: Tensor, prompts: list[list[int]], params: SamplingParams, streamer: Any) -> list[int]:
        """One sequence, each token given to `streamer.put` as it comes, the prompt first, as transformers does."""
        if len(prompts) > 1 or params.n > 1 or params.num_beams > 1:
            raise ConfigError("a streamer takes one sequence: one prompt, num_return_sequences=1 and no beams")
        streamer.put(ids.cpu())
        generation, new = Generation(self._runner(), prompts, params), list[int]()
        while tokens := generation.step():
            new.append(tokens[0].id)
            streamer.put(torch.tensor([tokens[0].id]))
        streamer.end()
        return new


def _as_rows(input_ids: Any) -> Tensor:
    if input_ids is None:
        raise RequestError("generate() needs input_ids: the tensor of tokenizer.encode(text, return_tensors=\"pt\")")
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"input_ids should be a tensor of ids (B, T), found {type(input_ids).__name__} ({error}): "
                           "tokenizer(texts, padding=True, return_tensors=\"pt\") makes one") from error
    ids = ids[None] if ids.dim() == 1 else ids
    if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool or ids.numel() == 0:
        raise RequestError(f"input_ids should be whole numbers of shape (B, T), at least one in each row, "
                           f"found {ids.dtype} {tuple(ids.shape)}")
    return ids


def _prompts(ids: Tensor, attention_mask: Any, call: _Generate) -> list[list[int]]:
    """Each row without its padding, on whichever side. Without a mask, padding ids at the ends are padding."""
    if attention_mask is not None:
        mask = torch.as_tensor(attention_mask).bool().cpu()
        if mask.numel() != ids.numel():
            raise RequestError(f"attention_mask has shape {tuple(mask.shape)}, input_ids {tuple(ids.shape)}: it needs "
                               "one number for each id")
        mask = mask.reshape(ids.shape)
    else:
        fill = call.pad_token_id
        ends = [] if call.eos_token_id is None else _as_list(call.eos_token_id)
        mask = torch.ones_like(ids, dtype=torch.bool).cpu() if fill is None or fill in ends else _not_padding(ids, fill)
    for number, row in enumerate(mask):
        if bool((row[1:] & ~row[:-1]).sum() + row[0] > 1):
            raise RequestError(f"row {number} of attention_mask has a gap: padding stands before or after a prompt")
    return [row[keep].tolist() for row, keep in zip(ids.cpu(), mask, strict=True)]


def _not_padding(ids: Tensor, fill: int) -> Tensor:
    real = (ids.cpu() != fill).int()
    return (real.cummax(-1).values & real.flip(-1).cummax(-1).values.flip(-1)).bool()


def _as_list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
