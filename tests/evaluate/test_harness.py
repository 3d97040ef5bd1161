"""The bridge against lm-eval's own transformers backend over the bundled model, and a task over a local file."""

import json

import pytest

from ayllu.checkpoint.convert import convert
from ayllu.cli.main import run as ayllu
from ayllu.errors import ConfigError

pytest.importorskip("lm_eval", reason="lm-eval isn't installed: pip install '.[test]'")
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ayllu.evaluate.harness import HarnessModel
from ayllu.evaluate.subject import Subject

pytestmark = pytest.mark.slow                            # transformers, datasets and the harness take long to import

CONTINUED = [("Once upon a time", " there was a king"), ("从前有一个", "小女孩"),
             ("The king said ", "to his wife, “no”"), ("", "She went home"), ("The king said", " to his wife"),
             ("A", " b c d e f g")]
WHOLE = ["Once upon a time there was a king who had three daughters.", "从前有一个小女孩，她住在森林里。",
         "The king and the fox walked. " * 400]           # longer than the context of 2,048
BEGUN = [("Once upon a time", {"until": ["\n"], "max_gen_toks": 24, "do_sample": False}),
         ("从前有一个", {"until": ["。"], "max_gen_toks": 24}), ("The king said", {"until": [".", "\n"],
                                                                          "max_gen_toks": 24, "temperature": 0.0})]
TASKS = {
    "fox_choice": """
task: fox_choice
dataset_path: json
dataset_kwargs: {data_files: FILE}
test_split: train
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_target: a
doc_to_choice: o
num_fewshot: 2
metric_list: [{metric: acc, aggregation: mean}, {metric: acc_norm, aggregation: mean}]
""",
    "fox_text": """
task: fox_text
dataset_path: json
dataset_kwargs: {data_files: FILE}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}} {{o[0]}}"
metric_list: [{metric: bits_per_byte}]
""",
    "fox_said": """
task: fox_said
dataset_path: json
dataset_kwargs: {data_files: FILE}
test_split: train
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{o[0]}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean}]
"""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness") / "mini"
    convert("ayllu-mini", folder, to="hf", dtype="float32")
    return folder


@pytest.fixture(scope="module")
def both(folder):
    """Ours first."""
    return (HarnessModel(Subject.load(str(folder), batch=3)),
            HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1))


def instances(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_log_probabilities_are_those_of_transformers(both):
    """float32 on both sides, sums in another order: 0.01 of sums of about -30, as for the server's client."""
    found = [model.loglikelihood(instances("loglikelihood", CONTINUED), disable_tqdm=True) for model in both]
    for (ours, our_greedy), (theirs, their_greedy) in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)
        assert our_greedy == their_greedy
    assert len({round(ours, 1) for ours, _ in found[0]}) == len(CONTINUED)


def test_whole_texts_have_the_same_log_probability_also_in_windows(both):
    """The long one is a sum of 3,000 terms."""
    ours, theirs = [m.loglikelihood_rolling(instances("loglikelihood_rolling", [(t,) for t in WHOLE]),
                                            disable_tqdm=True) for m in both]
    assert ours[:2] == pytest.approx(theirs[:2], abs=0.01)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-4)


def test_greedy_texts_are_those_of_transformers(both):
    ours, theirs = [m.generate_until(instances("generate_until", BEGUN), disable_tqdm=True) for m in both]
    assert ours == theirs
    assert len("".join(ours)) > 20
    with pytest.raises(ConfigError, match="asks for num_beams"):
        both[0].generate_until(instances("generate_until", [("x", {"num_beams": 2})]))


def test_a_prompt_too_long_is_cut_on_the_left_and_counted(both):
    long = [("The king and the fox walked. " * 400, " home")]
    found = [model.loglikelihood(instances("loglikelihood", long), disable_tqdm=True) for model in both]
    assert found[0][0][0] == pytest.approx(found[1][0][0], abs=0.01)
    assert both[0].n_cut == 1


def test_tasks_over_a_local_file_give_the_same_numbers(both, folder, tmp_path, capsys):
    rows = [{"q": f"Once upon a time the fox number {i} saw", "o": ["a bird.", "the king and", "书"], "a": i % 3}
            for i in range(14)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("FILE", str(file)), encoding="utf-8")
    line = ["evaluate", str(folder), "--harness", ",".join(TASKS), "--include-path", str(tmp_path), "--out",
            str(tmp_path / "out"), "--json"]
    assert ayllu(line) == 0
    ours = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)                 # reads only ours
    theirs = simple_evaluate(model=both[1], tasks=list(TASKS), task_manager=manager, bootstrap_iters=0,
                             fewshot_random_seed=0)["results"]
    for task, metric in (("fox_choice", "acc"), ("fox_choice", "acc_norm"), ("fox_said", "exact_match")):
        assert ours[task]["metrics"][metric]["value"] == theirs[task][f"{metric},none"]
        assert ours[task]["n"] == 14
    assert ours["fox_text"]["metrics"]["bits_per_byte"]["value"] == pytest.approx(
        theirs["fox_text"]["bits_per_byte,none"], rel=1e-4)
    accuracy = ours["fox_choice"]["metrics"]["acc"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert len(json.loads((tmp_path / "out" / "harness.json").read_text(encoding="utf-8"))["samples"]["fox_said"]) == 14
    assert ayllu(["evaluate", str(folder), "--harness", "no_such_task", "--out", str(tmp_path / "out")]) == 2
