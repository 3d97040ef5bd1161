"""Makes tests/text/kinds.py importable as `kinds` here too."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("kinds", Path(__file__).parents[1] / "text" / "kinds.py")
assert _spec
assert _spec.loader
sys.modules["kinds"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["kinds"])
