"""Makes tests/text/kinds.py importable as `kinds` here too.

In CI, where nothing may skip, the comparison with TRL is left out where TRL, which is no dependency, isn't installed.
"""

import importlib.util
import os
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("kinds", Path(__file__).parents[1] / "text" / "kinds.py")
assert _spec
assert _spec.loader
sys.modules["kinds"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["kinds"])

collect_ignore = ["test_trl.py"] if os.environ.get("CI") == "true" and not importlib.util.find_spec("trl") else []
