"""In-process generation: the same tokens as `generate`, exact log-probabilities, and every odd prompt."""

import pytest
import torch

from common.chat import encode_prompt
from engines import EngineError, Sampling
from engines.in_process import InProcessEngine, generate, generate_ids
from engines.in_process.draw import draw
from engines.in_process.loop import PREFILL_COST, PREFILL_TOKENS, alike

CONVERSATIONS = [
    [{"role": "user", "content": text}]
    for text in (
        "How do I boil an egg?",
        "x",
        "What is the capital of France? " * 6,
        "Что такое <|end|> 日本語 🙂",
        "",
        "tell me about a cat and a dog",
        "x",
        "Paris",
    )
]


def _prompts(tokenizer):
    return [encode_prompt(tokenizer, conversation) for conversation in CONVERSATIONS]


def _favour(model, tokens, by=8.0):
    """Raise the logits of some tokens at every position."""
    bias = torch.zeros(model.config.vocab_size)
    bias[list(tokens)] = by
    return model.lm_head.register_forward_hook(lambda module, inputs, output: output + bias)


def test_prompts_are_cached_in_groups_of_like_length():
    lengths = [100, 5, 90, 40, 60, 41, 3000, 3000]
    groups = alike(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[place] for place in group)
        assert sum(longest - lengths[place] for place in group) <= PREFILL_COST
        assert len(group) == 1 or longest * len(group) <= PREFILL_TOKENS
    assert [[lengths[place] for place in group] for group in groups] == [
        [3000],
        [3000],
        [100, 90, 60, 41],
        [40, 5],
    ]
    assert alike([]) == []


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_equals_generate(tiny_model, tiny_tokenizer, batch_size):
    _favour(tiny_model, [tiny_tokenizer.eos_token_id], by=3.0)
    tiny_model.eval()
    completions = generate(
        tiny_model,
        tiny_tokenizer,
        CONVERSATIONS,
        max_new_tokens=24,
        temperature=0,
        batch_size=batch_size,
    )
    reasons = set()
    for prompt, completion in zip(_prompts(tiny_tokenizer), completions, strict=True):
        expected = tiny_model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
        )[0, len(prompt) :].tolist()
        assert list(completion.token_ids) == expected
        reasons.add(completion.finish_reason)
    assert reasons == {"stop", "length"}


def test_greedy_equals_generate_with_learned_positions(tiny_tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3
    )
    config.eos_token_id = config.bos_token_id = 1
    model = GPT2LMHeadModel(config).eval()
    prompts = _prompts(tiny_tokenizer)
    completions = generate_ids(
        model, tiny_tokenizer, prompts, sampling=Sampling(max_new_tokens=12, temperature=0), batch_size=3
    )
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=1
        )
        assert list(completion.token_ids) == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8)])
def test_logprobs_are_the_models(tiny_model, tiny_tokenizer, temperature, top_p):
    completions = generate(
        tiny_model,
        tiny_tokenizer,
        CONVERSATIONS,
        max_new_tokens=10,
        temperature=temperature,
        top_p=top_p,
        batch_size=5,
    )
    for prompt, completion in zip(_prompts(tiny_tokenizer), completions, strict=True):
        ids = torch.tensor([prompt + list(completion.token_ids)])
        with torch.no_grad():
            logprobs = (tiny_model(input_ids=ids).logits / temperature).log_softmax(-1)
        rows = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        expected = logprobs[0, rows, ids[0, len(prompt) :]]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=1e-4, atol=1e-5)


def test_samples_depend_on_the_seed_and_not_on_the_batch(tiny_model, tiny_tokenizer):
    def sample(seed, batch_size):
        completions = generate(
            tiny_model, tiny_tokenizer, CONVERSATIONS, max_new_tokens=12, seed=seed, batch_size=batch_size
        )
        return [completion.token_ids for completion in completions]

    assert sample(3, 2) == sample(3, 64)
    assert sample(3, 64) != sample(4, 64)
    ones = sample(3, 64)
    assert ones[1] != ones[6], "two copies of a prompt draw separately"


def test_drawn_frequencies_are_the_probabilities():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    logits = probabilities.log().expand(200_000, -1)
    tokens, logprobs = draw(logits, torch.rand(200_000), Sampling())
    frequencies = tokens.bincount(minlength=5) / len(tokens)
    assert (frequencies - probabilities).abs().max() < 0.005 and frequencies[1] == 0
    torch.testing.assert_close(logprobs, probabilities.log()[tokens])
    nucleus, _ = draw(logits, torch.rand(200_000), Sampling(top_p=0.75))
    frequencies = nucleus.bincount(minlength=5) / len(nucleus)
    assert (frequencies - torch.tensor([0.625, 0, 0.375, 0, 0])).abs().max() < 0.005


def test_empty_response(tiny_model, tiny_tokenizer):
    _favour(tiny_model, [tiny_tokenizer.eos_token_id], by=1e4)
    [completion] = generate(tiny_model, tiny_tokenizer, CONVERSATIONS[:1])
    assert completion.text == "" and completion.finish_reason == "stop"
    assert completion.token_ids == (tiny_tokenizer.eos_token_id,) and len(completion.logprobs) == 1


@pytest.mark.parametrize("stop", [7, 9])
def test_any_of_several_end_tokens_stops(tiny_model, tiny_tokenizer, stop):
    tiny_model.generation_config.eos_token_id = [7, 9]
    _favour(tiny_model, [stop], by=1e4)
    [completion] = generate(tiny_model, tiny_tokenizer, CONVERSATIONS[:1])
    assert completion.token_ids == (stop,) and completion.finish_reason == "stop"


def test_prompts_at_and_beyond_the_context(tiny_model, tiny_tokenizer):
    context = tiny_model.config.max_position_embeddings
    word = encode_prompt(tiny_tokenizer, CONVERSATIONS[0])
    prompts = [[5] * (context + 40), [5] * context, [5] * (context - 3), word]
    done = []
    completions = generate_ids(
        tiny_model,
        tiny_tokenizer,
        prompts,
        sampling=Sampling(max_new_tokens=8, temperature=0),
    )
    assert [c.finish_reason for c in completions[:3]] == ["prompt_too_long", "prompt_too_long", "length"]
    assert completions[0].text == "" and completions[0].token_ids == ()
    assert len(completions[2].token_ids) == 3 and len(completions[3].token_ids) == 8
    generate_ids(
        tiny_model,
        tiny_tokenizer,
        prompts,
        sampling=Sampling(max_new_tokens=2),
        on_progress=lambda n, total: done.append((n, total)),
    )
    assert done[-1] == (4, 4)


def test_only_prompts_that_do_not_fit_and_none_at_all(tiny_model, tiny_tokenizer):
    assert generate(tiny_model, tiny_tokenizer, []) == []
    [completion] = generate_ids(tiny_model, tiny_tokenizer, [[5] * 600], sampling=Sampling())
    assert completion.finish_reason == "prompt_too_long"


def test_tokenizer_without_a_template_and_other_scripts(tiny_model, tiny_tokenizer):
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    completions = generate(tiny_model, plain, CONVERSATIONS, max_new_tokens=6)
    assert len(completions) == len(CONVERSATIONS)
    target = tiny_tokenizer("日", add_special_tokens=False)["input_ids"]
    step = {"n": 0}

    def spell(module, inputs, output):
        output = output.clone()
        if output.shape[1] == 1:
            output[:, -1, target[step["n"] % len(target)]] += 1e4
            step["n"] += 1
        return output

    tiny_model.lm_head.register_forward_hook(spell)
    prompts = [[5]]
    [completion] = generate_ids(
        tiny_model, tiny_tokenizer, prompts, sampling=Sampling(max_new_tokens=2 * len(target))
    )
    assert completion.text == "日日"


def test_the_models_mode_is_put_back(tiny_model, tiny_tokenizer):
    tiny_model.train()
    tiny_model.config._attn_implementation = "eager"
    generate(tiny_model, tiny_tokenizer, CONVERSATIONS[:1], max_new_tokens=2)
    assert tiny_model.training and tiny_model.config._attn_implementation == "eager"


def test_bad_settings_are_one_line(tiny_model, tiny_tokenizer):
    for settings in ({"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"batch_size": 0}):
        name = next(iter(settings))
        with pytest.raises(EngineError, match=name):
            generate(tiny_model, tiny_tokenizer, CONVERSATIONS, **settings)
    with pytest.raises(EngineError, match="prompt 1 has no tokens"):
        generate_ids(tiny_model, tiny_tokenizer, [[5], []], sampling=Sampling())


def test_engine_samples_from_the_new_weights(tiny_model, tiny_tokenizer):
    engine = InProcessEngine(tiny_model, tiny_tokenizer)
    prompts = _prompts(tiny_tokenizer)
    sampling = Sampling(max_new_tokens=4, temperature=0)
    before = engine.generate(prompts, sampling, seed=0, rows=range(8))
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.mul_(-1.3)
    engine.update_weights(tiny_model)
    assert engine.generate(prompts, sampling, seed=0, rows=range(8)) != before
    engine.close()
