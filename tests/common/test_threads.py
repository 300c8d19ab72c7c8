"""How OpenMP's threads wait is chosen by who else is busy, again in every child, and never against the user."""

import os
import subprocess
import sys

import pytest

IDLE, BUSY = "0.1 0.2 0.3 1/110 99\n", "3.1 0.2 0.3 5/110 99\n"
SHOW = (
    "import os, sys; from pathlib import Path; from common.threads import settle_threads; "
    "settle_threads(Path(sys.argv[1])); "
    "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
)
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CHARTER_THREADS")
PARENT_WAS_BUSY = {"OMP_WAIT_POLICY": "PASSIVE", "CHARTER_THREADS": "OMP_WAIT_POLICY"}


def said(program, *arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("load", "environment", "chosen"),
    [
        (BUSY, {}, "PASSIVE None"),
        (IDLE, {}, "None 3000"),
        ("not Linux's", {}, "None 3000"),
        (IDLE, PARENT_WAS_BUSY, "None 3000"),
        (BUSY, {"GOMP_SPINCOUNT": "3000", "CHARTER_THREADS": "GOMP_SPINCOUNT"}, "PASSIVE None"),
        (BUSY, {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        (BUSY, {"GOMP_SPINCOUNT": "7"}, "None 7"),
    ],
)
def test_threads_sleep_beside_others_and_spin_alone(tmp_path, load, environment, chosen):
    (tmp_path / "loadavg").write_text(load)
    assert said(SHOW, str(tmp_path / "loadavg"), **environment) == chosen


@pytest.mark.parametrize("package", ["training", "engines", "microworld"])
def test_it_is_settled_before_torch_loads(package):
    show = (
        f"import sys, {package}, os; assert 'torch' not in sys.modules; print(os.environ['CHARTER_THREADS'])"
    )
    assert said(show) in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
