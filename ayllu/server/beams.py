"""Beam search in OpenAI's completions, as vLLM's server takes it: `use_beam_search` with n beams, of which all are
given, best first. For texts `best_of` may be more than n: so many beams are carried on."""

from typing import Any

from ayllu.errors import ConfigError
from ayllu.model.beam import n_candidates
from ayllu.model.params import SamplingParams
from ayllu.server.asking import Form
from ayllu.server.faults import FieldError
from ayllu.server.schema.sampling import Sampling
from ayllu.server.served import Served

# what a search can't honour (or only a search can), with the values that ask for nothing
DRAWING: dict[str, tuple[Any, ...]] = {"temperature": (0, 1), "top_p": (1,), "top_k": (0, -1), "min_p": (0,),
                                       "typical_p": (1,), "stop": ([],), "stream": (False,), "tools": ([],)}
SEARCHING: dict[str, tuple[Any, ...]] = {"length_penalty": (1,), "early_stopping": (False,)}


def with_search(served: Served, body: Sampling, params: SamplingParams, form: Form | None, width: int,
                field: str) -> SamplingParams:
    """The settings of a call, with those of its search if it asks for one. `field` is the one that says the width."""
    if not body.use_beam_search:
        _check(body, SEARCHING, "only a beam search uses it")
        return params
    _check(body, DRAWING, "a beam search draws nothing and gives plain texts, when all are complete")
    if form is not None:
        raise FieldError(form.param, f"{form.param}: a beam search can't follow a form; ask for one of the two")
    most = min(served.limits.n, served.service.engine.settings.max_rows)
    if width > most:
        raise FieldError(field, f"{field}={width}, but this server carries on at most {most} beams")
    if width == 1:
        return params.model_copy(update={"temperature": 0.0})                # the likeliest id each time
    found = params.model_copy(update={
        "num_beams": width, "temperature": 1.0,
        "length_penalty": 1.0 if body.length_penalty is None else body.length_penalty,
        "early_stopping": None if body.early_stopping == "never" else bool(body.early_stopping)})
    try:
        ends = () if found.ignore_eos else served.eos_ids
        n_candidates(found, frozenset({*found.stop_ids, *ends}), served.vocab_size)
    except ConfigError as error:
        raise FieldError(field, str(error)) from error
    return found


def _check(body: Sampling, fields: dict[str, tuple[Any, ...]], why: str) -> None:
    for name, neutral in fields.items():
        value = getattr(body, name, None)                # the two kinds of completions have not all of them
        if value is not None and value not in neutral:
            raise FieldError(name, f"{name} can't be honoured here, since {why}: leave it out")
