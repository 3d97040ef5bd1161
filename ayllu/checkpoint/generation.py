"""What a checkpoint says about generating with it: generation_config.json, with Hugging Face's meaning of each key."""

from typing import Any

from pydantic import Field

from ayllu.config import Settings
from ayllu.errors import CheckpointError
from ayllu.log import warn

# Hugging Face's name -> the field of SamplingParams that means the same
_SAMPLING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
             "typical_p": "typical_p", "repetition_penalty": "repetition_penalty", "max_new_tokens": "max_tokens"}

# what transformers would do and Ayllu does not -> the values that ask for nothing
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,), "min_length": (0,), "min_new_tokens": (0,),
    "bad_words_ids": (), "force_words_ids": (), "suppress_tokens": ([],), "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "sequence_bias": (), "guidance_scale": (1, 1.0),
    "exponential_decay_length_penalty": (), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "diversity_penalty": (0,),
    "num_beam_groups": (1,), "penalty_alpha": (0,), "top_h": (), "stop_strings": (), "watermarking_config": ()}


class GenerationDefaults(Settings):
    """Special ids and sampling defaults. `raw` is the file as it was, so that it travels unchanged."""

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    do_sample: bool | None = None                        # None: the file does not say
    raw: dict[str, Any] = Field(default_factory=dict)

    def sampling(self) -> dict[str, Any]:
        """Keyword arguments for SamplingParams: only what the file states; `do_sample: false` is temperature 0.

        The temperature and its like of a file that does not sample are left out, as Hugging Face ignores them too.
        """
        found = {ours: self.raw[theirs] for theirs, ours in _SAMPLING.items() if self.raw.get(theirs) is not None}
        if not self.do_sample:
            kept = {key: value for key, value in found.items() if key in ("repetition_penalty", "max_tokens")}
            return kept if self.do_sample is None else kept | {"temperature": 0.0}
        return found


def warn_of_unsupported(table: dict[str, Any]) -> None:
    """Say which settings of a generation config ask for something that is not done here."""
    asked = {key: table[key] for key, neutral in _UNSUPPORTED.items()
             if table.get(key) is not None and table[key] not in neutral}
    if asked:
        warn(f"the generation config asks for {', '.join(f'{key}={value!r}' for key, value in asked.items())}, which "
             "Ayllu does not do: texts come without it")


def generation_from_hf(generation: dict[str, Any] | None, config: dict[str, Any], where: str) -> GenerationDefaults:
    """From generation_config.json (or None) with config.json's ids where the former has none."""
    raw = dict(generation or {})

    def ids(key: str) -> tuple[int, ...]:
        value = raw[key] if raw.get(key) is not None else config.get(key)
        if value is None:
            return ()
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise CheckpointError(f"{where}: {key} should be an id or a list of ids, found {value!r}")
        return tuple(v for v in values if v >= 0)        # -1 stands for "none" in some files

    bos, pad = ids("bos_token_id"), ids("pad_token_id")
    sample = raw.get("do_sample")
    return GenerationDefaults(bos_id=bos[0] if bos else None, eos_ids=ids("eos_token_id"),
                              pad_id=pad[0] if pad else None,
                              do_sample=sample if isinstance(sample, bool) else None, raw=raw)


def generation_to_hf(defaults: GenerationDefaults) -> dict[str, Any]:
    """The content of generation_config.json: the file as it was, or one made from the special ids."""
    made: dict[str, Any] = dict(defaults.raw)
    if "bos_token_id" not in made and defaults.bos_id is not None:
        made["bos_token_id"] = defaults.bos_id
    if "eos_token_id" not in made and defaults.eos_ids:
        made["eos_token_id"] = defaults.eos_ids[0] if len(defaults.eos_ids) == 1 else list(defaults.eos_ids)
    if "pad_token_id" not in made and defaults.pad_id is not None:
        made["pad_token_id"] = defaults.pad_id
    return made
