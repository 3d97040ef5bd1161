"""The kinds of jobs. A line for each: the schema of its payload, and the function that does the work.

The function gets a `Work` (server/work.py), calls `work.beat(progress, resume)` often, and gives a JSON value. It may
be called again with what it saved as `work.resume`, after a crash in the midst of anything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ayllu.server import analyse, documents, translate, write
from ayllu.server.schema.analyse import AnalyseJob
from ayllu.server.schema.base import Body
from ayllu.server.schema.documents import IndexRequest
from ayllu.server.schema.translate import TranslateFiles
from ayllu.server.schema.write import BatchRequest
from ayllu.server.work import Work


class Kind(NamedTuple):
    """What a job of this kind takes, and what does it."""

    payload: type[Body]
    run: Callable[[Work], Any]


KINDS: dict[str, Kind] = {
    "analyse": Kind(AnalyseJob, analyse.run_job),
    "translate": Kind(TranslateFiles, translate.run_files),
    "index": Kind(IndexRequest, documents.run_index),
    "write": Kind(BatchRequest, write.run_batch),
}
