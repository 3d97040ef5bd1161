"""In CI only tests marked `gpu` or `amx` may skip; any other skip, of a test or a file, is a failure that says why."""

import os
from collections.abc import Generator
from typing import Any

import pytest
import torch


def _forbidden(report: Any) -> bool:
    return os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail")


def _fail(report: Any) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: only gpu and amx tests may skip in CI. {reason}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("amx") and not torch.cpu._is_amx_tile_supported():
        pytest.skip("this CPU has no AMX")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if _forbidden(report) and not (item.get_closest_marker("gpu") or item.get_closest_marker("amx")):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    if _forbidden(report):
        _fail(report)
    return report
