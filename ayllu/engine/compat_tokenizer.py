"""`LlamaTokenizer` by the names that scripts for transformers use, over Ayllu's own tokenizer.

Two things differ on purpose. Text never yields special ids ("<s>" typed by a user is text): pass
split_special_tokens=False to have them. And a missing padding token is no error: padding has an attention mask, so
which id fills it changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ayllu.checkpoint.load import open_checkpoint
from ayllu.config import Settings, validate
from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.log import warn
from ayllu.text.tokenizer import Tokenizer

Ids = list[int]
IGNORED = {"use_fast", "legacy", "clean_up_tokenization_spaces", "trust_remote_code"}
_TEMPLATE_OPTIONS = {"continue_final_message", "padding", "truncation", "max_length", "return_assistant_tokens_mask",
                     "tokenizer_kwargs"}


class Encoding(dict[str, Any]):
    """input_ids and attention_mask, as a dict whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} here; there are: {', '.join(self)}") from None

    def to(self, device: Any) -> "Encoding":
        """The same with its tensors on a device."""
        return Encoding({key: value.to(device) if isinstance(value, Tensor) else value for key, value in self.items()})


class _Call(Settings):
    """The keywords of `tokenizer(...)` and `tokenizer.encode(...)`."""

    add_special_tokens: bool = True
    padding: bool | Literal["longest", "max_length", "do_not_pad"] = False
    truncation: bool | None = None
    max_length: int | None = None
    padding_side: Literal["left", "right"] | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: Literal["pt"] | None = None
    return_attention_mask: bool = True
    return_token_type_ids: Literal[False] | None = None  # Llama has none
    split_special_tokens: bool = True


class LlamaTokenizer:
    """A tokenizer of any kind that Ayllu reads; the name is the one that scripts import."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None = None, name: str = "") -> None:
        self.tokenizer, self.chat_template, self.name_or_path = tokenizer, chat_template, name
        side = tokenizer.settings.get("padding_side")
        self.padding_side: str = side if side in ("left", "right") else "left"
        self.bos_token_id, self.unk_token_id = tokenizer.bos_id, tokenizer.unk_id
        self.eos_token_id = tokenizer.eos_ids[0] if tokenizer.eos_ids else None
        self.pad_token_id = tokenizer.pad_id
        self.add_bos_token, self.add_eos_token = tokenizer.named.add_bos, tokenizer.named.add_eos
        self.model_max_length: int | None = None         # where truncation cuts, if a call does not say

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "LlamaTokenizer":
        """The tokenizer of a folder, a file or a name, as LlamaForCausalLM.from_pretrained takes it."""
        known = {"padding_side", "pad_token", "add_bos_token", "add_eos_token", "model_max_length"}
        check_keywords(options, known | IGNORED, "LlamaTokenizer.from_pretrained")
        source = open_checkpoint(name)
        tokenizer = source.open_tokenizer()
        if tokenizer is None:
            raise RequestError(f"{name} has no tokenizer: put its tokenizer.model or tokenizer.json beside the weights")
        if options.get("trust_remote_code"):
            raise ConfigError("trust_remote_code=True: Ayllu never runs code from a checkpoint; leave it out")
        if options.get("padding_side", "left") not in ("left", "right"):
            raise ConfigError(f"padding_side={options['padding_side']!r}: use left or right")
        made = cls(tokenizer, source.chat_template, str(name))
        for key in known & set(options):
            setattr(made, key, options[key])
        return made

    def __call__(self, text: str | Sequence[str], **options: Any) -> Encoding:
        """Ids and attention mask of a text, or of many (padded where asked)."""
        call = validate(_Call, options, where="tokenizer()")
        if not isinstance(text, str | list | tuple):
            raise RequestError(f"a text should be a string, or a list of strings; found {type(text).__name__}")
        if call.truncation is None and call.max_length is not None and call.padding is False:
            warn("max_length without truncation: longer texts are cut; pass truncation=True to say so yourself")
            call = call.model_copy(update={"truncation": True})
        rows = [self._ids(one, call) for one in ([text] if isinstance(text, str) else text)]
        side = call.padding_side or self.padding_side
        masks = [[1] * len(row) for row in rows]
        length = self._padded_length(rows, call)
        if length is not None:
            masks = [pad(mask, length, 0, side) for mask in masks]
            rows = [pad(row, length, self._fill(), side) for row in rows]
        data: dict[str, Any] = {"input_ids": rows}
        if call.return_attention_mask:
            data["attention_mask"] = masks
        if call.return_tensors is None:
            return Encoding({key: value[0] for key, value in data.items()} if isinstance(text, str) else data)
        if len({len(row) for row in rows}) > 1:
            raise RequestError("the texts have different numbers of tokens, which one tensor can't hold: "
                               "pass padding=True")
        return Encoding({key: torch.tensor(value, dtype=torch.long) for key, value in data.items()})

    def encode(self, text: str, **options: Any) -> Any:
        """Ids of one text: a list, or with return_tensors="pt" a tensor (1, T)."""
        return self(text, **options)["input_ids"]

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """The text of ids; of several rows, a list of texts."""
        check_keywords(options, {"clean_up_tokenization_spaces"}, "tokenizer.decode")
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        if isinstance(ids, list | tuple) and ids and isinstance(ids[0], list | tuple):
            return [self.decode(row, skip_special_tokens) for row in ids]
        rows = [ids] if isinstance(ids, int) else ids
        if not isinstance(rows, Sequence) or not all(isinstance(i, int) for i in rows):
            raise RequestError(f"decode takes ids, whole numbers; found {str(token_ids)[:60]!r}")
        fill = {self.pad_token_id} if skip_special_tokens else set()
        return self.tokenizer.decode([i for i in rows if i not in fill], skip_special=skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """The texts of several rows of ids."""
        return [self.decode(row, skip_special_tokens, **options) for row in sequences]

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text as the vocabulary spells them, without BOS and EOS."""
        return self.convert_ids_to_tokens(self.tokenizer.encode(text))

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The vocabulary's spelling of one id or several."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(ids, int):
            return self.tokenizer.id_to_piece(ids)
        return [self.tokenizer.id_to_piece(i) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of one piece or several; unknown pieces give the unknown id."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = self.tokenizer.piece_to_id(tokens)
        return self.unk_token_id if found is None else found

    def apply_chat_template(self, conversation: Sequence[Any], tokenize: bool = True,
                            add_generation_prompt: bool = False, return_tensors: str | None = None,
                            return_dict: bool = False, chat_template: str | None = None, **options: Any) -> Any:
        """Ids of a conversation (transformers 5 wraps them in a dict by default; here return_dict=True does), or of
        several where no tensor is asked for. What else a template reads (tools, ...) may be given by name."""
        from ayllu.text.chat import ChatTemplate

        template = chat_template or self.chat_template
        if template is None:
            raise ConfigError(f"{self.name_or_path or 'this tokenizer'} has no chat template: it was not made for "
                              "conversations; pass chat_template=..., or write the prompt as plain text")
        if return_tensors not in (None, "pt"):
            raise ConfigError(f"return_tensors={return_tensors!r}: use \"pt\", or leave it out for lists")
        unsupported = _TEMPLATE_OPTIONS & {key for key, value in options.items() if value}
        if unsupported:
            raise ConfigError(f"apply_chat_template does not do {', '.join(sorted(unsupported))}: render first, then "
                              "pad or cut the ids yourself")
        if conversation and all(isinstance(chat, list | tuple) for chat in conversation):
            if return_tensors or return_dict:
                raise ConfigError("several conversations at once give lists of ids: leave out return_tensors and "
                                  "return_dict, or render them one by one")
            return [self.apply_chat_template(chat, tokenize, add_generation_prompt, chat_template=template, **options)
                    for chat in conversation]
        if not all(isinstance(message, Mapping) for message in conversation):
            raise RequestError("a conversation is a list of messages: [{\"role\": \"user\", \"content\": \"Hello\"}]")
        options = {key: value for key, value in options.items() if key not in _TEMPLATE_OPTIONS}
        rendered = ChatTemplate(template).render([dict(m) for m in conversation], self.tokenizer, with_spans=False,
                                                 add_generation_prompt=add_generation_prompt, **options)
        if not tokenize:
            return rendered.text
        data: dict[str, Any] = {"input_ids": rendered.ids, "attention_mask": [1] * len(rendered.ids)}
        if return_tensors is not None:
            data = {key: torch.tensor([value]) for key, value in data.items()}
        return Encoding(data) if return_dict else data["input_ids"]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder)

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        return {self.tokenizer.id_to_piece(i): i for i in range(len(self))}

    def __len__(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def vocab_size(self) -> int:
        """Ids are 0 .. vocab_size - 1."""
        return self.tokenizer.vocab_size

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that are no text."""
        return sorted(self.tokenizer.special_ids)

    @property
    def bos_token(self) -> str | None:
        """The piece that begins a text."""
        return self._piece(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """The piece that ends a text."""
        return self._piece(self.eos_token_id)

    @property
    def unk_token(self) -> str | None:
        """The piece for what the vocabulary can't spell."""
        return self._piece(self.unk_token_id)

    @property
    def pad_token(self) -> str | None:
        """The piece that fills batches; may be set, to the end token for example."""
        return self._piece(self.pad_token_id)

    @pad_token.setter
    def pad_token(self, piece: str) -> None:
        found = self.tokenizer.piece_to_id(piece)
        if found is None:
            raise ConfigError(f"pad_token={piece!r} is not in the vocabulary: use one of its pieces, such as eos_token")
        self.pad_token_id = found

    def _piece(self, token: int | None) -> str | None:
        return None if token is None else self.tokenizer.id_to_piece(token)

    def _ids(self, text: str, call: _Call) -> Ids:
        if not isinstance(text, str):
            raise RequestError(f"a text should be a string, found {type(text).__name__}")
        special = call.add_special_tokens
        ids = self.tokenizer.encode(text, bos=special and self.add_bos_token, eos=special and self.add_eos_token,
                                    allow_special=not call.split_special_tokens)
        if not call.truncation:
            return ids
        length = self.model_max_length if call.max_length is None else call.max_length
        if length is None:
            raise ConfigError("truncation=True without max_length: say how many tokens to keep")
        end = ids[-1:] if special and self.add_eos_token and len(ids) > length > 0 else []
        return ids[:length - len(end)] + end             # what is cut is text: the end id stays

    def _padded_length(self, rows: list[Ids], call: _Call) -> int | None:
        if call.padding in (False, "do_not_pad"):
            return None
        longest = max((len(row) for row in rows), default=0)
        length = longest
        if call.padding == "max_length":
            if call.max_length is None:
                raise ConfigError("padding='max_length' without max_length: say how long the rows should be")
            if longest > call.max_length:
                raise ContextTooLong(f"a text has {longest} tokens and max_length={call.max_length}: raise max_length, "
                                     "or pass truncation=True to cut it")
            length = call.max_length
        step = call.pad_to_multiple_of or 1
        return -(-length // step) * step

    def _fill(self) -> int:
        return next((i for i in (self.pad_token_id, self.eos_token_id, self.unk_token_id) if i is not None), 0)


def pad(row: Ids, length: int, fill: int, side: str) -> Ids:
    """A row filled up to a length on one side."""
    gap = [fill] * (length - len(row))
    return gap + row if side == "left" else row + gap


def check_keywords(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """An unknown keyword is an error that names the nearest known one, as in all settings."""
    import difflib

    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keywords: {', '.join(sorted(known))}"
            raise ConfigError(f"{where}: unknown keyword {key!r}; {hint}")
