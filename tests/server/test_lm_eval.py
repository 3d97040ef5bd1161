"""lm-eval's client `local-completions` against our server, beside lm-eval running the same model in transformers."""

import pytest
from server.live import serving

from ayllu.checkpoint.convert import convert

pytest.importorskip("lm_eval", reason="lm-eval isn't installed: pip install '.[test]'")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

CONTINUED = [("Once upon a time", " there was a king"), ("从前有一个", "小女孩"),
             ("The king said", " to his wife, “no”"), ("She went to the", " zxq 17"), ("A", " b c d e f g")]
WHOLE = ["Once upon a time there was a king who had three daughters.", "从前有一个小女孩，她住在森林里。"]
BEGUN = [("Once upon a time", {"until": ["\n"], "max_gen_toks": 24, "do_sample": False}),
         ("从前有一个", {"until": ["。"], "max_gen_toks": 24, "do_sample": False}),
         ("The king said", {"until": [".", "\n"], "max_gen_toks": 24, "do_sample": False})]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_eval") / "mini"
    convert("ayllu-mini", folder, to="hf", dtype="float32")
    with serving(folder, engine={"cache_mib": 32}, dtype="float32") as live:
        ours = LocalCompletionsAPI(base_url=f"{live.url}/v1/completions", model="tiny", tokenizer=str(folder),
                                   tokenizer_backend="huggingface", batch_size=3, num_concurrent=1,
                                   add_bos_token=True)   # as HFLM does by the tokenizer's own setting
        yield ours, HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)


def instances(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_log_probabilities_are_those_of_transformers(both):
    found = [model.loglikelihood(instances("loglikelihood", CONTINUED), disable_tqdm=True) for model in both]
    for (ours, our_greedy), (theirs, their_greedy) in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)
        assert our_greedy == their_greedy
    assert len({round(ours, 1) for ours, _ in found[0]}) == len(CONTINUED)


def test_whole_texts_have_the_same_log_probability(both):
    kind = "loglikelihood_rolling"
    ours, theirs = [model.loglikelihood_rolling(instances(kind, [(text,) for text in WHOLE]), disable_tqdm=True)
                    for model in both]
    assert ours == pytest.approx(theirs, abs=0.01)


def test_greedy_texts_are_those_of_transformers(both):
    ours, theirs = [model.generate_until(instances("generate_until", BEGUN), disable_tqdm=True) for model in both]
    assert ours == theirs
    assert len("".join(ours)) > 20
