"""What the system tests share: machines, and their journals when a test fails."""

import pytest
from machine import Machine
from slots import nothing_failed


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


@pytest.fixture
def load(machine, app):
    """Requests to the app of a file all the time, none of which may fail."""
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        yield load
        nothing_failed(load.stop(), reconnects=8)
