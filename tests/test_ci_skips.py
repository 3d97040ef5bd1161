"""The rule about skips, tried on small test files in a pytest of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MARKED = "import pytest\n@pytest.mark.gpu\ndef test_a():\n    pytest.skip('no GPU here')\n"
PLAIN = "import pytest\ndef test_a():\n    pytest.skip('no data here')\n"
DECORATED = "import pytest\n@pytest.mark.skipif(True, reason='no data here')\ndef test_a():\n    pass\n"
WHOLE = "import pytest\npytest.importorskip('no_such_module')\ndef test_a():\n    pass\n"
XFAIL = "import pytest\n@pytest.mark.xfail\ndef test_a():\n    raise ValueError\n"


SOURCES = {"marked": MARKED, "plain": PLAIN, "decorated": DECORATED, "whole": WHOLE, "xfail": XFAIL}


@pytest.mark.parametrize(("ci", "failures"), [("true", {"plain", "decorated", "whole"}), ("", set())])
def test_only_gpu_and_amx_tests_may_skip_in_ci(tmp_path, ci, failures):
    for name, source in SOURCES.items():
        (tmp_path / f"test_{name}.py").write_text(source, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "ci_skips", "-p", "no:cacheprovider", "-rfE",
                           "--continue-on-collection-errors", "."],
                          cwd=tmp_path, env={**os.environ, "CI": ci, "PYTHONPATH": str(TESTS)}, capture_output=True,
                          text=True, timeout=120, check=False)
    assert (done.returncode == 0) is (not failures), done.stdout
    found = re.findall(r"^(?:FAILED|ERROR) test_(\w+)\.py", done.stdout, re.MULTILINE)
    assert sorted(found) == sorted(failures), done.stdout
    assert done.stdout.count("only gpu and amx tests may skip in CI") >= len(failures)
