"""What Debian's and the rpm world's checkers say of the packages; they run here, in no machine."""

import subprocess
from pathlib import Path

from machine import PACKAGES

RPMLINT = Path(__file__).resolve().parents[2] / "packaging/rpm/rpmlint.toml"


def said_of(kind, *words):
    (package,) = PACKAGES.glob(f"*.{kind}")
    return subprocess.run([*words, package], text=True, capture_output=True)


def test_lintian_has_no_error_and_no_warning_that_is_not_overridden_with_a_reason():
    said = said_of("deb", "lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0")
    assert (said.returncode, said.stdout) == (0, ""), said


def test_rpmlint_has_no_error_and_no_warning_that_is_not_filtered_with_a_reason():
    said = said_of("rpm", "rpmlint", "--config", RPMLINT)
    assert said.returncode == 0 and " 0 errors, 0 warnings" in said.stdout, said
