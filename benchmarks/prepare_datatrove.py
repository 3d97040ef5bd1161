"""datatrove as a worker of benchmarks/prepare.py, in an environment of its own: imports no ayllu.

The stages of its own example for MinHash: filter and write, signatures, buckets, clusters, and the documents that stay.
"""

import gzip
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.word_tokenizers import load_word_tokenizer
from lines import serve

LANGUAGES = {"english": "eng", "chinese": "cmn_Hani"}
CHINESE = {"min_avg_word_length": None, "max_avg_word_length": None, "min_stop_words": None,      # of English words
           "max_non_alpha_words_ratio": 0.6}             # with jieba, every punctuation mark is a word


def load(texts: str) -> dict[str, Any]:
    """The word tokenizer, so that forked processes have it."""
    load_word_tokenizer(LANGUAGES[texts]).word_tokenize("一 word")
    return {"version": version("datatrove")}


def run(source: str, out: str, texts: str, processes: int, everything: bool) -> dict[str, Any]:
    """Clean documents from the raw files."""
    place, language, config = Path(out), LANGUAGES[texts], MinhashConfig()
    quality = CHINESE if texts == "chinese" else {}
    stages = [
        (processes, [JsonlReader(source), GopherRepetitionFilter(language=language),
                     GopherQualityFilter(language=language, **quality), JsonlWriter(str(place / "filtered"))]),
        (processes, [JsonlReader(str(place / "filtered")),
                     MinhashDedupSignature(str(place / "signatures"), config, language=language)]),
        (processes, [MinhashDedupBuckets(str(place / "signatures"), str(place / "buckets"), config=config)]),
        (1, [MinhashDedupCluster(str(place / "buckets"), str(place / "remove"), config=config)]),
        (processes, [JsonlReader(str(place / "filtered")), MinhashDedupFilter(str(place / "remove")),
                     JsonlWriter(str(place / "kept"))]),
    ]
    start = time.perf_counter()
    for number, (tasks, steps) in enumerate(stages):
        tasks = config.num_buckets if number == 2 else tasks
        LocalPipelineExecutor(steps, tasks=tasks, workers=processes, start_method="fork",
                              logging_dir=str(place / f"logs{number}")).run()
    seconds = time.perf_counter() - start
    kept = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in (place / "kept").glob("*.gz"))
    documents = sum(path.read_bytes().count(b"\n") for path in Path(source).glob("*.jsonl"))
    shutil.rmtree(place)
    return {"seconds": seconds, "documents": documents, "kept": kept}


if __name__ == "__main__":
    serve({"load": load, "run": run})
