"""Schemathesis on our own document: whatever fits it, and much that doesn't, gets no 5xx and an answer in its form."""

from unittest import SkipTest

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from media.small import write_small
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from server.live import serving

from ayllu.server.start import attach_senses
from ayllu.server.workspace import Workspace

HELD = settings(max_examples=12, deadline=None, derandomize=True, database=None,
                phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_no_request_breaks_the_server(chat_checkpoint, mode, tmp_path):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path / "data")) as live:
        attach_senses(live.served, "tiny", write_small(tmp_path / "senses"), "cpu")
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        n_called = 0
        for result in schema.get_all_operations():

            @HELD
            @given(result.ok().as_strategy(generation_mode=mode))
            def check(case):
                nonlocal n_called
                n_called += 1
                case.validate_response(case.call(timeout=60), checks=CHECKS)

            try:
                check()
            except (Unsatisfiable, SkipTest):            # nothing can be wrong with a GET that takes nothing
                continue
        assert n_called > 100


def test_the_document_names_what_there_is(chat_checkpoint):
    from ayllu.server.app import routes
    from ayllu.server.start import load_served

    document = routes(load_served(str(chat_checkpoint))).openapi()
    wanted = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/models",
              "/v1/audio/transcriptions",
              "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/tokenizer_info",
              "/apply-template", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/health", "/metrics", "/version",
              "/v1/collections", "/v1/collections/{collection}/search", "/v1/ask",
              "/v1/collections/{collection}/documents/{document}",
              "/v1/support", "/v1/support/messages", "/v1/support/conversations/{number}/reply", "/v1/support/overview",
              "/v1/translate", "/v1/translate/memory", "/v1/analyse",
              "/v1/workspace", "/v1/files", "/v1/files/{file_id}/content", "/v1/jobs", "/v1/jobs/{job_id}",
              "/api/chat", "/api/generate", "/api/tags", "/api/show", "/api/ps", "/api/embed", "/api/version"}
    assert wanted <= set(document["paths"])
    assert "422" not in str(document)
    chat = document["components"]["schemas"]["ChatRequest"]
    assert chat["additionalProperties"] is False
    assert chat["properties"]["store"]["enum"] == [None, False]
