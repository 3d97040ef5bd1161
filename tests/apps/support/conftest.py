"""The sample shop, read once."""

import pytest

from ayllu.apps.collection import Collection
from ayllu.apps.support.pages import RULES, Pages, sample
from ayllu.apps.support.rules import load_rules


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """(rules, pages) of the sample."""
    rules = load_rules(sample() / RULES)
    with Collection(tmp_path_factory.mktemp("shop") / "support.sqlite") as collection:
        yield rules, Pages.read(sample(), collection, rules)
