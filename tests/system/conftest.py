"""What the system tests share: machines, and their journals when a test fails."""

import pytest
from machine import Machine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Machine) and value.nspawn is not None:
                report.sections.append((f"journal of {value.name}", value.journal()))


@pytest.fixture(scope="module")
def machine():
    """A machine with the package installed, which the tests of one file share."""
    with Machine() as booted:
        booted.install()
        yield booted


@pytest.fixture
def fresh():
    """A machine with the package installed, for one test alone."""
    with Machine() as booted:
        booted.install()
        yield booted
