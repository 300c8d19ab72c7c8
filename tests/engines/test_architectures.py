"""Sampling in process equals transformers' own `generate`, whatever layers and attention a model has."""

import pytest
import torch

from common.chat import encode_prompt
from engines import Sampling
from engines.in_process import generate_ids
from engines.in_process.generate import fits_slots

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
GEMMA = {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}
KINDS = {
    "llama": ({"intermediate_size": 64}, True),
    "mistral": ({"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 4}, False),
    "gemma2": (GEMMA | {"attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 8}, False),
    "bloom": ({"n_layer": 2, "n_head": 4}, None),
    "mamba": ({"state_size": 4}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_and_their_log_probabilities_are_the_models(kind, tiny_tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    more, in_slots = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tiny_tokenizer), initializer_range=0.3, **SIZES | more, bos_token_id=None
    )
    model = AutoModelForCausalLM.from_config(
        config, **({"attn_implementation": "eager"} if kind == "gemma2" else {})
    ).eval()
    texts = ("egg", "a cat and a dog", "What is the capital of France?", "a red dog and a cat")
    prompts = [encode_prompt(tiny_tokenizer, [{"role": "user", "content": text}]) for text in texts]
    found = generate_ids(model, tiny_tokenizer, prompts, sampling=Sampling(max_new_tokens=12, temperature=0))
    if in_slots is not None:
        assert fits_slots(model, 40) == in_slots
    for prompt, done in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            own = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=0)
            logits = model(torch.tensor([[*prompt, *done.token_ids]])).logits[0, len(prompt) - 1 : -1]
        assert list(done.token_ids) == own[0, len(prompt) :].tolist()
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(done.token_ids)[:, None])[:, 0]
        assert torch.tensor(done.logprobs) == pytest.approx(chosen, abs=1e-4)
    drawn = [
        generate_ids(
            model, tiny_tokenizer, prompts, sampling=Sampling(max_new_tokens=6), seed=3, batch_size=n
        )
        for n in (1, 8)
    ]
    assert [c.token_ids for c in drawn[0]] == [c.token_ids for c in drawn[1]]
