"""Rollouts from a real vLLM server whose weights follow the trainer's. `make vllm` makes its environment."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from harness.served_policy import serve_policy

from common.chat import encode_prompt
from engines import EngineError, Sampling, VllmServer
from engines.in_process import generate_ids
from engines.lent import LentSampler
from engines.samplers import InProcessSampler
from training import ppo
from training.config.rl import PPOConfig
from training.models.export import save_untied
from training.models.load import load_causal_lm, load_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]
ENVIRONMENT = Path(__file__).parents[2] / ".venv-vllm"
STEPS = 48
TEXTS = ("egg", "a cat and a dog", "What is the capital of France?", "Что?")


@pytest.fixture(scope="module")
def served(tiny_tokenizer, tmp_path_factory):
    """A running server, and the tied model that its untied copy was made from."""
    if not (ENVIRONMENT / "bin" / "python").is_file():
        (pytest.fail if os.environ.get("CHARTER_REQUIRE_ALL") == "1" else pytest.skip)(
            "vLLM is missing: run `make vllm`"
        )
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's CPU attention wants heads of 32 or more
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.2,
    )
    source = tmp_path_factory.mktemp("source")
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    copy = tmp_path_factory.mktemp("copy")
    save_untied(model, tiny_tokenizer, copy)
    # What the server would draw with, if it were left to its own defaults.
    defaults = {"top_k": 1, "min_p": 0.5, "repetition_penalty": 2.0, "eos_token_id": [1, *range(5, 200)]}
    (copy / "generation_config.json").write_text(json.dumps(defaults))
    before = os.environ.get("VLLM_SERVER_DEV_MODE")
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    try:
        with VllmServer(copy, environment=ENVIRONMENT, arguments=["--max-model-len", "256"]) as server:
            yield server, source
    finally:
        del os.environ["VLLM_SERVER_DEV_MODE"]
        if before is not None:
            os.environ["VLLM_SERVER_DEV_MODE"] = before


@pytest.fixture
def engine(served, tmp_path):
    server, source = served
    engine = serve_policy(server.url, load_tokenizer(str(source)), tmp_path / "weights")
    engine.update_weights(load_causal_lm(str(source), trainable=False))
    yield engine
    engine.close()


def _prompts(tokenizer):
    return [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in TEXTS]


def _largest_gap(model, prompts, completions):
    """Between the server's log-probabilities and the model's, over all tokens."""
    gaps = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        own = logprobs.gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        gaps.append((own - torch.tensor(completion.logprobs)).abs().max())
    return float(max(gaps))


def test_after_an_update_the_servers_logprobs_are_the_trainers(served, engine):
    _, source = served
    model = load_causal_lm(str(source), trainable=False)
    prompts, sampling = _prompts(engine.tokenizer), Sampling(max_new_tokens=10)
    before = engine.generate(prompts, sampling, seed=1, rows=range(4))
    assert _largest_gap(model, prompts, before) < 1e-4
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert _largest_gap(model, prompts, before) > 0.5
    engine.update_weights(model)
    after = engine.generate(prompts, sampling, seed=1, rows=range(4))
    assert _largest_gap(model, prompts, after) < 1e-4
    assert model.config.tie_word_embeddings


def test_greedy_answers_are_those_of_the_process(served, engine):
    model = load_causal_lm(str(served[1]), trainable=False)
    prompts = [*_prompts(engine.tokenizer), [5] * 300, [5] * 253]
    sampling = Sampling(max_new_tokens=10, temperature=0)
    theirs = engine.generate(prompts, sampling, seed=0, rows=range(6))
    ours = generate_ids(model, engine.tokenizer, prompts, sampling=sampling)
    for one, other in zip(theirs, ours, strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == (
            other.text,
            other.token_ids,
            other.finish_reason,
        )


def test_copies_of_a_prompt_draw_separately_and_seeds_repeat(engine):
    prompts = [_prompts(engine.tokenizer)[0]] * 4
    sampling = Sampling(max_new_tokens=8)

    def draw(seed, rows=range(4)):
        return [c.token_ids for c in engine.generate(prompts, sampling, seed=seed, rows=rows)]

    assert len(set(draw(1))) == 4
    assert draw(1) == draw(1) and draw(1) != draw(2) and draw(1) != draw(1, range(4, 8))


def test_stopping(served, engine):
    model = load_causal_lm(str(served[1]), trainable=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[1] *= 6  # the end-of-turn token becomes likely, now and then
    engine.update_weights(model)
    prompts = _prompts(engine.tokenizer) * 6
    completions = engine.generate(prompts, Sampling(max_new_tokens=16), seed=0, rows=range(24))
    stopped = [c for c in completions if c.finish_reason == "stop"]
    assert stopped and all(c.token_ids[-1] == 1 and len(c.logprobs) == len(c.token_ids) for c in stopped)
    assert all("<|end|>" not in c.text for c in completions)


def test_the_prompts_of_a_step_draw_independently(served, engine):
    """The variance of a step's mean length is that of independent draws; under one seed a request it was five times."""
    model = load_causal_lm(str(served[1]), trainable=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[1] *= 6
    engine.update_weights(model)
    # Prompts that begin alike draw alike under shared noise.
    words = "egg cat dog house Paris water story red nine safe help ask".split()
    texts = [f"{words[n % 12]} {words[n * 5 % 11]}" for n in range(32)]
    prompts = [encode_prompt(engine.tokenizer, [{"role": "user", "content": t}]) for t in texts]
    sampling = Sampling(max_new_tokens=12)
    lengths_SP = torch.tensor(
        [
            [float(len(c.token_ids)) for c in engine.generate(prompts, sampling, seed=step, rows=range(32))]
            for step in range(STEPS)
        ]
    )
    independent = float(lengths_SP.var(0).mean()) / 32
    assert independent > 0.01, "lengths vary"
    ratio = float(lengths_SP.mean(1).var()) / independent
    assert ratio < 1.3, ratio


def test_ppo_with_a_server(served, tmp_path):
    server, source = served
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(
            json.dumps({"id": text, "prompt": [{"role": "user", "content": text}]}) + "\n" for text in TEXTS
        )
    )
    config = PPOConfig(
        model=str(source),
        prompts=(prompts,),
        output_dir=tmp_path / "run",
        rewards=[{"kind": "regex", "pattern": "e"}],
        rollouts={"kind": "vllm", "url": server.url},
        value={"start_from": "policy"},
        steps=3,
        batch_size=16,
        max_new_tokens=8,
        precision="float32",
        optimizer={"learning_rate": 1e-2, "warmup": 0},
    )
    result = ppo.train(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.metrics["kl"] > 0.01, "the policy moved"
    assert all(row["sampler_gap"] < 1e-4 for row in rows), "and the server with it"


def test_a_server_that_was_not_started_for_transfers_is_one_line(served, tiny_tokenizer, tmp_path):
    with pytest.raises(EngineError, match="weight transfer is None; start it with --weight-transfer-config"):
        serve_policy(served[0].url, tiny_tokenizer, tmp_path, group=SimpleNamespace(id=bytes(128)))


def test_no_server_is_one_line(tiny_tokenizer, tmp_path):
    with pytest.raises(EngineError, match="no server answers at"):
        serve_policy("http://127.0.0.1:9", tiny_tokenizer, tmp_path)


def test_lent_servers_sample_with_the_weights_they_are_given(served, tiny_tokenizer, tmp_path):
    server, source = served
    folder, chats = tmp_path / "other", [[{"role": "user", "content": text}] for text in TEXTS]
    model = load_causal_lm(str(source), trainable=False)
    torch.manual_seed(5)
    for weight in model.parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)

    def load():
        return load_causal_lm(str(folder), trainable=False), load_tokenizer(str(folder))

    def drawn(sampler):
        found = {}
        sampler.draw(
            chats,
            Sampling(max_new_tokens=12, temperature=0.0),
            seed=0,
            rows=range(len(chats)),
            at_once=4,
            on_text=found.__setitem__,
            on_progress=lambda done: None,
        )
        return [found[n] for n in range(len(chats))]

    lent = LentSampler(folder, [server.url], load=load, export=save_untied, weights=tmp_path / "weights")
    assert drawn(lent) == drawn(InProcessSampler(load))
    # Another run takes the server meanwhile: the texts that are drawn then are not believed.
    thief = serve_policy(server.url, load_tokenizer(str(source)), tmp_path / "theirs")
    thief.update_weights(load_causal_lm(str(source), trainable=False))
    with pytest.raises(EngineError, match="answers with other weights than at the start"):
        drawn(lent)
    lent.close()
    thief.close()
