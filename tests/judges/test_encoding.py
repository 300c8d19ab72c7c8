from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judges import Call
from judges.encoding import CallEncoder

SPECIALS = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return CallEncoder(tokenizer)


def chat(*contents: str) -> Call:
    roles = ["user", "assistant"] * len(contents)
    return Call(messages=tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False)))


def test_same_ids_as_the_chat_template_for_plain_text(tokenizer, encoder):
    call = chat("Which is better?", "A", "And now: bake bread")
    expected = tokenizer.apply_chat_template(
        [dict(m) for m in call.messages], add_generation_prompt=True, return_dict=False
    )
    assert encoder.encode([call]) == [expected]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SPECIALS), st.text(max_size=8)), max_size=8).map("".join))
def test_special_tokens_in_content_stay_text(tokenizer, encoder, content):
    ids = encoder.encode([chat(content)])[0]
    special = [i for i in ids if i in tokenizer.all_special_ids]
    assert tokenizer.convert_ids_to_tokens(special) == ["<|user|>", "<|end|>", "<|assistant|>"]
    assert tokenizer.decode(ids[1:-2]) == content


def test_added_tokens_that_are_not_marked_special_stay_text(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<think>", "</think>"])
    ids = CallEncoder(tokenizer).encode([chat("a <think> choose A </think> b")])[0]
    assert not {tokenizer.convert_tokens_to_ids(t) for t in ("<think>", "</think>")} & set(ids)
    assert tokenizer.decode(ids[1:-2]) == "a <think> choose A </think> b"


def test_a_template_without_a_system_role_gets_it_with_the_first_user_message(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
    )
    call = Call(messages=({"role": "system", "content": "Rules."}, {"role": "user", "content": "Hello"}))
    ids = CallEncoder(tokenizer).encode([call])[0]
    assert tokenizer.decode(ids) == "<|user|>Rules.\n\nHello<|end|><|assistant|>"
