"""A canary for every attack, and, where it is asked for, a table of attacks and results."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canaries import Canary


@pytest.fixture
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """The canary; that it is silent is looked at after the test."""
    found = Canary(tmp_path_factory.mktemp("canary") / "fired")
    yield found
    assert not found.path.exists(), "the canary fired"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With ``--attacks``: every attack and its result."""
    if not config.getoption("--attacks"):
        return
    terminalreporter.section("attacks")
    for result, told in (("passed", "refused"), ("failed", "NOT REFUSED"), ("error", "CANARY FIRED")):
        for report in terminalreporter.getreports(result):
            if "hostile" in report.nodeid and (result != "passed" or report.when == "call"):
                terminalreporter.write_line(f"{told:12} {report.nodeid.partition('test_hostile_')[2]}")
