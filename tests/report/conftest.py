from __future__ import annotations

import pytest

from marginlab.results import Results
from tests.report.synthetic import Synthetic


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """The whole synthetic study; read only."""
    return Results.open(Synthetic(tmp_path_factory.mktemp("demo")).whole())
