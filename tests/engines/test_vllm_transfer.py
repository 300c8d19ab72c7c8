"""Weights to a real vLLM server without files: its own weight-transfer engine, with gloo where it has NCCL on GPUs.
`make vllm` makes its environment."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch
from harness.served_policy import serve_policy
from harness.vllm_gloo import GlooGroup, install

from common.chat import encode_prompt
from engines import EngineError, Sampling, VllmServer
from training import grpo
from training.config.rl import GRPOConfig
from training.models.export import save_untied
from training.models.load import load_causal_lm, load_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]
ENVIRONMENT = Path(__file__).parents[2] / ".venv-vllm"
TEXTS = ("egg", "a cat and a dog", "What is the capital of France?")


@pytest.fixture(scope="module")
def served(tiny_tokenizer, make_model, tmp_path_factory, require):
    """A server started for transfers, and the tied model that its untied copy was made from."""
    require("vLLM", (ENVIRONMENT / "bin" / "python").is_file(), "run `make vllm`")
    # vLLM's CPU attention wants heads of 32 or more.
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = make_model(len(tiny_tokenizer), max_position_embeddings=256, **sizes).eval()
    source, copy, plugin = (tmp_path_factory.mktemp(name) for name in ("source", "copy", "plugin"))
    model.save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    save_untied(model, tiny_tokenizer, copy)
    install(plugin)
    transfer = ["--weight-transfer-config", '{"backend": "nccl"}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        patch.setenv("PYTHONPATH", str(plugin))
        with VllmServer(
            copy, environment=ENVIRONMENT, arguments=["--max-model-len", "256", *transfer]
        ) as server:
            yield server, source


@pytest.fixture
def engine(served, tmp_path):
    """Joined anew: the server takes one trainer after the other."""
    server, source = served
    tokenizer = load_tokenizer(str(source))
    engine = serve_policy(server.url, tokenizer, tmp_path / "weights", group=GlooGroup())
    yield engine
    engine.close()


def _gap(model, tokenizer, engine):
    """Largest difference of the server's log-probabilities and the model's, over all tokens of some answers."""
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in TEXTS]
    answers = engine.generate(prompts, Sampling(max_new_tokens=10), seed=1, rows=range(3))
    gaps = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        own = logprobs.gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        gaps.append((own - torch.tensor(answer.logprobs)).abs().max())
    return float(max(gaps))


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_transfer_the_servers_logprobs_are_the_trainers(seed, served, engine, tmp_path):
    model = load_causal_lm(str(served[1]), trainable=False)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert _gap(model, engine.tokenizer, engine) > 0.5
    engine.update_weights(model)
    assert _gap(model, engine.tokenizer, engine) < 1e-4
    assert not (tmp_path / "weights").exists()


def test_grpo_with_adapters_and_transfers(served, tmp_path, monkeypatch):
    server, source = served
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"id": t, "prompt": [{"role": "user", "content": t}]}) + "\n" for t in TEXTS)
    )

    def connect(config, runtime, tokenizer):
        return serve_policy(config.rollouts.url, tokenizer, tmp_path / "weights", group=GlooGroup())

    monkeypatch.setattr("training.rl.train.connect", connect)
    config = GRPOConfig(
        model=str(source),
        prompts=(prompts,),
        output_dir=tmp_path / "run",
        rewards=[{"kind": "regex", "pattern": "e"}],
        rollouts={"kind": "vllm", "url": server.url, "transfer": "nccl"},
        lora={"r": 4},
        steps=3,
        batch_size=16,
        max_new_tokens=8,
        precision="float32",
        optimizer={"learning_rate": 1e-2, "warmup": 0},
    )
    result = grpo.train(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.metrics["kl"] > 0.001, "the policy moved"
    assert all(row["sampler_gap"] < 1e-4 for row in rows), "and the server with it"


def test_weights_of_another_model_are_one_line(engine):
    with pytest.raises(EngineError, match="/update_weights: HTTP 500") as caught:
        engine._transfer.send({"model.nothing.weight": torch.zeros(3)})
    assert "\n" not in str(caught.value)


def test_a_server_without_nccl_is_one_line(served, tiny_tokenizer, tmp_path):
    group = GlooGroup()
    group.id = os.urandom(128)
    group.join = lambda size: threading.Event().wait(60)
    with pytest.raises(EngineError, match="/init_weight_transfer_engine: HTTP 500") as caught:
        serve_policy(served[0].url, tiny_tokenizer, tmp_path, group=group)
    assert "\n" not in str(caught.value)
