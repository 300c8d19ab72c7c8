"""Servers that a run starts, watches and ends: with a scripted server in vLLM's place, and the real one beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from harness.scripted_vllm import environment

from engines import EngineError, Sampling
from engines.fleet import Fleet, check_devices
from engines.samplers import InProcessSampler, VllmSampler
from engines.settings import VllmSettings
from engines.texts import Text
from training.models.load import load_causal_lm, load_tokenizer

ROOT = Path(__file__).parents[2]
TEXTS = (
    "How do I open a jar?",
    "What is the capital of France?",
    "Tell me a story.",
    "Что?",
    "Why is it so?",
)
CHATS = [[{"role": "user", "content": text}] for text in TEXTS * 4]


@pytest.fixture
def scripted(tmp_path, tiny_dir) -> tuple[Path, Path]:
    """A model folder, and an environment whose server is scripted."""
    model = tmp_path / "model"
    shutil.copytree(tiny_dir, model)
    return model, environment(tmp_path / "environment")


def drawn(sampler, conversations=CHATS, *, seed: int = 0, at_once: int = 8, **sampling) -> list[Text]:
    found: dict[int, Text] = {}
    sampler.draw(
        conversations,
        Sampling(max_new_tokens=24, **sampling),
        seed=seed,
        rows=range(len(conversations)),
        at_once=at_once,
        on_text=found.__setitem__,
        on_progress=lambda done: None,
    )
    return [found[n] for n in range(len(conversations))]


def everything(model: Path) -> list[int]:
    """Servers of a model that ever were, and what they started."""
    return [int(pid) for pid in (model / "workers").read_text().split()]


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_servers_start_side_by_side_answer_and_leave_nothing(scripted, tmp_path):
    model, place = scripted
    said: list[str] = []
    settings = VllmSettings(replicas=2, vllm_environment=place, max_model_len=256)
    sampler = VllmSampler(model, settings, logs=tmp_path / "logs", say=said.append)
    assert not (tmp_path / "logs").exists()  # nothing starts before it is asked
    assert {text.finish for text in drawn(sampler)} == {"stop"}
    assert any("starting 2 vLLM servers of model" in line for line in said)
    assert len(list((tmp_path / "logs").glob("vllm-model-?.log"))) == 2
    commands = " ".join(psutil.Process(everything(model)[0]).cmdline())
    assert "--max-model-len 256" in commands and "--host 127.0.0.1" in commands
    assert sampler._fleet.api_key not in commands
    sampler.close()
    assert gone(everything(model), 5)


def test_a_server_that_dies_is_started_once_more_and_nothing_is_lost(scripted, tmp_path):
    model, place = scripted
    (model / "behave.json").write_text('{"die_after": 6}')
    sampler = VllmSampler(model, VllmSettings(vllm_environment=place), logs=tmp_path / "logs")
    assert [text.finish for text in drawn(sampler)] == ["stop"] * len(CHATS)
    assert (tmp_path / "logs" / "vllm-model-0-again.log").exists()
    sampler.close()
    assert gone(everything(model), 5)


def test_a_server_that_dies_again_ends_the_work_with_one_line(scripted, tmp_path):
    model, place = scripted
    (model / "behave.json").write_text('{"die_after": 4, "die_always": true}')
    sampler = VllmSampler(model, VllmSettings(vllm_environment=place), logs=tmp_path / "logs")
    kept: dict[int, Text] = {}
    with pytest.raises(EngineError, match=r"model ended: RuntimeError.*ends here \(log: .*-again\.log\)"):
        sampler.draw(
            CHATS,
            Sampling(max_new_tokens=8),
            seed=0,
            rows=range(len(CHATS)),
            at_once=2,
            on_text=kept.__setitem__,
            on_progress=lambda done: None,
        )
    assert kept  # what was finished was told
    sampler.close()
    assert gone(everything(model), 5)


def test_a_server_that_does_not_start_is_one_line_with_its_log(scripted, tmp_path):
    model, place = scripted
    (model / "behave.json").write_text("not JSON")
    fleet = Fleet(model, VllmSettings(vllm_environment=place), logs=tmp_path)
    with pytest.raises(EngineError, match=r"vLLM ended while starting: .*JSONDecodeError.*\(log: .*0\.log\)"):
        fleet.start()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_run_is_killed_its_servers_end(scripted, tmp_path, kind):
    model, place = scripted
    program = f"""
        import time
        from pathlib import Path
        from engines.fleet import Fleet
        from engines.settings import VllmSettings
        fleet = Fleet(Path({str(model)!r}), VllmSettings(replicas=2, vllm_environment={str(place)!r}),
                      logs=Path({str(tmp_path)!r}))
        fleet.start()
        print("ready", flush=True)
        time.sleep(600)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=ROOT)
    assert run.stdout is not None and run.stdout.readline() == b"ready\n"
    left = everything(model)
    assert len(left) == 4 and all(map(alive, left))
    run.send_signal(kind)
    run.wait(10)
    assert gone(left, 10), [p for p in left if alive(p)]


def test_devices_are_counted_before_anything_starts(tmp_path, monkeypatch):
    place = environment(tmp_path / "cpu")
    with pytest.raises(EngineError, match="tensor_parallel: 2: vLLM's build here is for the CPU"):
        check_devices(VllmSettings(tensor_parallel=2, vllm_environment=place))
    (place / "lib").rename(place / "other")  # not the CPU's build
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert check_devices(VllmSettings(replicas=3, vllm_environment=place)) == ["0", "1", "2"]
    with pytest.raises(EngineError, match=r"replicas \(2\) of tensor_parallel \(2\) need 4 GPUs, .* shows 3"):
        check_devices(VllmSettings(replicas=2, tensor_parallel=2, vllm_environment=place))
    with pytest.raises(EngineError, match="no vLLM environment in"):
        check_devices(VllmSettings(vllm_environment=tmp_path / "none"))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_servers_answer_as_the_model_does_and_die_with_the_run(require, tmp_path):
    place = ROOT / ".venv-vllm"
    require("vLLM", (place / "bin" / "python").is_file(), "run `make vllm`")
    model = ROOT / "microworld" / "weights" / "base"
    settings = VllmSettings(vllm_environment=place)
    sampler = VllmSampler(model, settings, logs=tmp_path, dtype="float32")
    own = InProcessSampler(lambda: (load_causal_lm(str(model), trainable=False), load_tokenizer(str(model))))
    assert drawn(sampler, temperature=0.0) == drawn(own, temperature=0.0)
    drawn_twice = [drawn(sampler, seed=3, at_once=n) for n in (8, 3)]
    same = sum(a.text == b.text for a, b in zip(*drawn_twice, strict=True))
    assert same >= len(CHATS) - 2  # logits differ in the last bit with the batch
    assert len({text.text for text in drawn_twice[0]}) > len(TEXTS)
    server = sampler._fleet._servers[0]
    family = [server.pid, *(p.pid for p in psutil.Process(server.pid).children(recursive=True))]
    assert len(family) >= 3  # the watchdog, vLLM's front end and its engine
    os.kill(family[1], signal.SIGKILL)
    assert len(drawn(sampler, temperature=0.0)) == len(CHATS)
    sampler.close()
    assert gone(family, 10)
