"""Weights to a vLLM server by NCCL: what is asked, what is sent, and every refusal as one line. The server and the
group are made up here; tests/training/test_vllm_transfer.py has vLLM's own."""

import base64
import contextlib
import threading
from types import SimpleNamespace

import pytest
import torch
from harness.served_policy import serve_policy
from safetensors import safe_open

from engines import EngineError
from engines.client import Client
from engines.in_process.nccl import NCCLGroup
from training import TrainingError
from training.config.base import LoraConfig, load_config
from training.config.rl import GRPOConfig
from training.models.adapters import add_lora
from training.models.export import save_untied
from training.models.policy import without_adapter
from training.rl.rollout import connect


class Group:
    """What would be sent, kept."""

    id = bytes(range(128))

    def __init__(self):
        self.sent, self.size = [], None

    def join(self, size):
        self.size = size

    def broadcast(self, tensors):
        self.sent.append([tensor.detach().clone() for tensor in tensors])


@pytest.fixture
def server(monkeypatch):
    """`server.asked` has the requests; `server.answers[path]` is what a path answers, or raises."""
    server = SimpleNamespace(
        asked=[],
        answers={
            "/server_info?config_format=json": {
                "vllm_config": {"weight_transfer_config": {"backend": "nccl"}}
            },
            "/get_world_size": {"world_size": 4},
        },
    )

    def control(self, method, path, body=None):
        server.asked.append((path, body))
        answer = server.answers.get(path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Client, "page", lambda self, url: {"data": [{"id": "policy", "max_model_len": 64}]})
    monkeypatch.setattr(Client, "control", control)
    return server


def engine(tokenizer, tmp_path, group):
    return serve_policy("http://127.0.0.1:9", tokenizer, tmp_path / "weights", group=group)


def test_the_server_joins_before_the_first_step(server, tiny_tokenizer, tmp_path):
    group = Group()
    engine(tiny_tokenizer, tmp_path, group).close()
    told = server.asked[-2][1]["init_info"]
    assert group.size == 5
    assert base64.b64decode(told.pop("nccl_unique_id_b64")) == group.id
    assert told == {"rank_offset": 1, "world_size": 5, "packed": False}
    assert server.asked[-1] == ("/shutdown_weight_transfer_engine", None)


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_sent_is_what_files_would_hold(lora, server, tiny_model, tiny_tokenizer, tmp_path):
    model = tiny_model
    if lora:
        model = add_lora(model, LoraConfig(r=2), task="CAUSAL_LM", seed=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    group = Group()
    there = engine(tiny_tokenizer, tmp_path, group)
    there.update_weights(without_adapter(model))
    paths = [path for path, _ in server.asked[-4:]]
    assert paths == [
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/reset_prefix_cache",
    ]
    told = server.asked[-3][1]["update_info"]
    assert not (tmp_path / "weights").exists()

    save_untied(without_adapter(model), tiny_tokenizer, tmp_path / "files")
    with safe_open(tmp_path / "files" / "model.safetensors", "pt") as files:
        assert sorted(told["names"]) == sorted(files.keys())
        assert "lm_head.weight" in told["names"], "the server's head is its own"
        for name, dtype, shape, sent in zip(
            told["names"], told["dtype_names"], told["shapes"], group.sent[0], strict=True
        ):
            weight = files.get_tensor(name)
            assert torch.equal(sent, weight), name
            assert (getattr(torch, dtype), shape) == (weight.dtype, list(weight.shape))


def test_ranks_and_calls_of_nccl_are_those_that_vllm_expects(monkeypatch):
    calls = []
    for name in ("init_rank", "all_reduce", "broadcast"):

        def record(*arguments, _name=name, **keywords):
            calls.append((_name, arguments, keywords))
            return "communicator"

        monkeypatch.setattr(f"torch.cuda.nccl.{name}", record)
    monkeypatch.setattr("torch.cuda.nccl.unique_id", lambda: b"x" * 128)
    monkeypatch.setattr("torch.cuda.device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda: SimpleNamespace(synchronize=lambda: None))
    group = NCCLGroup(torch.device("cpu"))
    group.join(3)
    wide = torch.arange(6.0).view(2, 3)
    group.broadcast([wide.T, torch.ones((), dtype=torch.bfloat16)])
    assert calls[0] == ("init_rank", (3, b"x" * 128, 0), {})
    (_, ((one,),), comms), first, second = calls[1:]
    assert (one.numel(), one.dtype, comms) == (1, torch.float32, {"comms": ["communicator"]})
    (weight,) = first[1][0]
    assert first[0] == second[0] == "broadcast" and "root" not in first[2], "from rank 0"
    assert weight.is_contiguous() and torch.equal(weight, wide.T)


@pytest.mark.parametrize("config", [None, {"backend": "ipc"}])
def test_a_server_that_was_not_started_for_it_is_one_line(config, server, tiny_tokenizer, tmp_path):
    server.answers["/server_info?config_format=json"] = {"vllm_config": {"weight_transfer_config": config}}
    with pytest.raises(EngineError, match="start it with --weight-transfer-config") as caught:
        engine(tiny_tokenizer, tmp_path, Group())
    assert "\n" not in str(caught.value)


def test_a_server_that_refuses_is_not_waited_for(server, tiny_model, tiny_tokenizer, tmp_path):
    never = threading.Event()
    group = Group()
    there = engine(tiny_tokenizer, tmp_path, group)
    group.broadcast = lambda tensors: never.wait()
    server.answers["/update_weights"] = EngineError("HTTP 500: no such weight")
    with pytest.raises(EngineError, match="no such weight"):
        there.update_weights(tiny_model)
    there.close()
    assert server.asked[-1][0] == "/update_weights", "a stuck server is left alone"
    never.set()


def test_what_nccl_says_is_one_line(server, tiny_tokenizer, tmp_path, monkeypatch):
    group = Group()

    def fail(size):
        raise RuntimeError("NCCL Error 5:\n invalid usage")

    monkeypatch.setattr(group, "join", fail)
    with pytest.raises(
        EngineError, match="nccl: NCCL Error 5: invalid usage; the server needs GPUs of its own"
    ):
        engine(tiny_tokenizer, tmp_path, group)


def test_a_group_that_nobody_joins_is_one_line(server, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("engines.update.PATIENCE_S", 0.05)
    group = Group()
    monkeypatch.setattr(group, "join", lambda size: threading.Event().wait(5))
    with pytest.raises(EngineError, match="nothing moved for 0 s"):
        engine(tiny_tokenizer, tmp_path, group)


def test_without_a_gpu_here_it_is_refused_before_anything_loads(tiny_tokenizer, tmp_path):
    config = GRPOConfig(
        model="m",
        prompts=["p.jsonl"],
        output_dir=tmp_path,
        rewards=[{"kind": "length"}],
        rollouts={"kind": "vllm", "url": "http://127.0.0.1:9", "transfer": "nccl"},
    )
    runtime = SimpleNamespace(device=torch.device("cpu"), is_main=True)
    with pytest.raises(
        TrainingError, match="nccl sends from a GPU, and training runs on cpu here; use files"
    ):
        connect(config, runtime, tiny_tokenizer)


def test_a_transfer_without_a_server_contradicts_itself(tmp_path):
    path = tmp_path / "grpo.yaml"
    path.write_text(
        "model: m\nprompts: [p.jsonl]\noutput_dir: o\nreward_model: r\nrollouts: {transfer: nccl}\n"
    )
    with pytest.raises(TrainingError, match="transfer: nccl belongs to kind: vllm"):
        load_config(path, GRPOConfig)
