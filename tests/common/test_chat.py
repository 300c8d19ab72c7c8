"""Conversations to token ids: what the model's own template gives, in every room, and no text lost."""

from __future__ import annotations

import datetime
import logging
from functools import cache

import pytest
from harness.chat_tokenizers import HARMONY, KINDS, QWEN3, R1, SPECIALS, TEMPLATES, make
from hypothesis import given, settings
from hypothesis import strategies as st

from common.chat import ChatError, ChatRenderer, renderer_of
from judges import Call
from judges.encoding import CallEncoder

CONVERSATION = [
    {"role": "user", "content": "Is tea good cold?"},
    {"role": "assistant", "content": "The kettle is ready. "},
    {"role": "user", "content": " one two\n\nThree"},
    {"role": "assistant", "content": "I think the tea is ready."},
]
SYSTEM = {"role": "system", "content": "Rules apply."}
everywhere = pytest.mark.parametrize("kind", KINDS)
every_template = pytest.mark.parametrize("name", list(TEMPLATES))


@cache
def tokenizer_of(kind: str, name: str):
    return make(kind, TEMPLATES[name])


def own_ids(tokenizer, turns, *, prompt: bool = False, **more) -> list[int]:
    """What the tokenizer's own template gives."""
    template = tokenizer.chat_template or renderer_of(tokenizer).template.source
    return tokenizer.apply_chat_template(
        turns, chat_template=template, add_generation_prompt=prompt, return_dict=False, **more
    )


def words(text: str) -> str:
    return "".join(text.split())


@everywhere
@every_template
def test_ids_are_those_of_the_template_by_every_route(kind, name):
    tokenizer = tokenizer_of(kind, name)
    renderer = ChatRenderer(tokenizer)
    prompt, answer = CONVERSATION[:3], CONVERSATION[3]["content"]
    prompt_ids, answer_ids = renderer.prompt_ids(prompt), renderer.answer_ids(prompt, answer)
    assert prompt_ids == own_ids(tokenizer, prompt, prompt=True)
    whole = own_ids(tokenizer, CONVERSATION)
    ids, mask = renderer.conversation(CONVERSATION)
    assert ids == prompt_ids + answer_ids
    # Where no token of the template's ends a turn, the end-of-sequence token does, in place of white space.
    told = len(ids) - (name == "alpaca")
    assert ids[:told] == whole[:told]
    assert ids[-1] in renderer.stop_ids
    assert CallEncoder(tokenizer).encode([Call(messages=tuple(prompt))]) == [prompt_ids]
    assert renderer.decode(answer_ids) == answer
    trained = tokenizer.decode([i for i, wanted in zip(ids, mask, strict=True) if wanted])
    for turn in CONVERSATION:
        assert (words(turn["content"]) in words(trained)) == (turn["role"] == "assistant")


@everywhere
@every_template
def test_a_stop_is_the_token_that_ends_a_turn_and_no_white_space(kind, name):
    tokenizer = tokenizer_of(kind, name)
    ends = "<|im_end|>" if "<|im_end|>" in (TEMPLATES[name] or "") else "</s>"
    assert set(tokenizer.convert_ids_to_tokens(list(renderer_of(tokenizer).stop_ids))) == {ends, "</s>"}


@everywhere
@every_template
def test_letters_are_found_as_the_template_continues_and_all_spellings_count(kind, name):
    tokenizer = tokenizer_of(kind, name)
    question = [{"role": "user", "content": "Which?"}]
    renderer = ChatRenderer(tokenizer)
    after = own_ids(tokenizer, [*question, {"role": "assistant", "content": "A"}])[
        len(own_ids(tokenizer, question, prompt=True)) :
    ]
    spelled = renderer.continuations(question, ["A", "B"])
    assert list(spelled[0][0]) == after[: len(spelled[0][0])]
    forms = CallEncoder(tokenizer).distinct_forms(("A", "B"))
    assert forms is not None
    marks = {"A", " A", "ĠA", "▁A"}
    assert set(tokenizer.convert_ids_to_tokens(list(forms[0]))) <= marks
    assert len(forms[0]) == 2
    assert after[0] in forms[0]


@everywhere
@every_template
def test_the_text_of_a_system_turn_is_never_lost(kind, name):
    tokenizer = tokenizer_of(kind, name)
    turns = [SYSTEM, *CONVERSATION[:3]]
    ids = renderer_of(tokenizer).prompt_ids(turns)
    assert words("Rules apply.") in words(tokenizer.decode(ids))
    if name in ("inst", "gemma", "drops"):
        merged = [{"role": "user", "content": "Rules apply.\n\nIs tea good cold?"}, *turns[2:]]
        assert ids == own_ids(tokenizer, merged, prompt=True)
    else:
        assert ids == own_ids(tokenizer, turns, prompt=True)


PARTS = st.one_of(
    st.sampled_from(
        [*SPECIALS, "<think>", "</think>", "\n", "  ", "\U000f00003\U000f0001", "\U000f00022\U000f0001"]
    ),
    st.text(alphabet=st.characters(exclude_characters="▁"), max_size=8),
)
CONTENT = st.lists(PARTS, min_size=1, max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), name=st.sampled_from(list(TEMPLATES)), asked=CONTENT, answer=CONTENT)
def test_no_text_is_lost_none_becomes_a_control_token_and_routes_agree(kind, name, asked, answer):
    tokenizer = tokenizer_of(kind, name)
    renderer = renderer_of(tokenizer)
    answer = answer.replace("<think>", "").replace("</think>", "")  # a thought is the template's, not text
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    ids, mask = renderer.conversation(turns)
    prompt_ids = renderer.prompt_ids(turns[:1])
    assert ids == prompt_ids + renderer.answer_ids(turns[:1], answer)
    assert CallEncoder(tokenizer).encode([Call(messages=tuple(turns[:1]))]) == [prompt_ids]
    plain, _ = renderer.conversation([{**turn, "content": "x"} for turn in turns])
    control = renderer.tokens.control_ids
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    told = words(tokenizer.decode(ids))
    for text in (asked, answer):
        assert words(text.encode("utf-8", "replace").decode()) in told
    written = answer.encode("utf-8", "replace").decode()
    if kind.startswith("bytes"):
        assert renderer.decode(ids[len(prompt_ids) :]) in (written, written.strip())
    else:  # these pieces cannot tell whether a text begins with one space or none
        assert renderer.decode(ids[len(prompt_ids) :]).strip() == written.strip()
    assert len(mask) == len(ids)
    if not renderer.tokens.control.search(asked + answer) and not {"\ud800"} & set(asked):
        told_ids = own_ids(tokenizer, turns[:1], prompt=True)
        assert prompt_ids == told_ids or asked != asked.encode("utf-8", "replace").decode()


def test_without_a_template_what_begins_a_text_is_what_the_tokenizer_puts_there():
    for kind, begins in (("bytes", False), ("bytes_bos", True), ("first", True)):
        tokenizer = tokenizer_of(kind, "transcript")
        renderer = renderer_of(tokenizer)
        for ids in (
            renderer.prompt_ids(CONVERSATION[:1]),
            renderer.text_ids(["Is tea good cold?"])[0],
            CallEncoder(tokenizer).encode([Call(messages=tuple(CONVERSATION[:1]))])[0],
        ):
            assert (ids[0] == tokenizer.bos_token_id) == begins
            assert ids.count(tokenizer.bos_token_id) == begins


@pytest.mark.parametrize("template", [QWEN3, R1, HARMONY], ids=["qwen3", "r1", "harmony"])
@everywhere
def test_an_answer_follows_directly_where_a_template_opens_a_thought_or_a_channel(kind, template, caplog):
    tokenizer = make(kind, template)
    renderer = ChatRenderer(tokenizer)
    turns = [*CONVERSATION[:3], {"role": "assistant", "content": "A"}]
    ids, mask = renderer.conversation(turns)
    prompt_ids, answer_ids = renderer.prompt_ids(turns[:3]), renderer.answer_ids(turns[:3], "A")
    assert ids == prompt_ids + answer_ids
    assert len(answer_ids) == 2
    assert renderer.decode(answer_ids) == "A"
    text = tokenizer.decode(prompt_ids)
    assert text.count("<think>") == text.count("</think>")
    if template is not R1:  # which closes nothing itself
        own = own_ids(tokenizer, turns, enable_thinking=False, strftime_now=renderer.template.date.strftime)
        assert ids == own[: len(ids)]
    forms = CallEncoder(tokenizer).distinct_forms(("A", "B"))
    assert forms is not None and answer_ids[0] in forms[0]
    rewritten = "earlier turns in another way" in caplog.text
    assert rewritten == (template is not HARMONY)
    assert sum(mask) > 3 if template is HARMONY else sum(mask) == len(answer_ids)
    open_ids = ChatRenderer(tokenizer, thinking="on").prompt_ids(turns[:3])
    assert prompt_ids[: len(open_ids)] == open_ids and len(open_ids) < len(prompt_ids)


def test_a_thought_of_the_answer_s_own_is_trained_on_or_refused():
    turns = [CONVERSATION[0], {"role": "assistant", "content": "<think>\ntea\n</think>\n\nYes"}]
    tokenizer = make("bytes", QWEN3)
    ids, mask = ChatRenderer(tokenizer).conversation(turns)
    assert ids == own_ids(tokenizer, turns)[: len(ids)]
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]) == (
        "<think>\ntea\n</think>\n\nYes<|im_end|>"
    )
    with pytest.raises(ChatError, match="drops the thought"):
        ChatRenderer(make("bytes", R1)).conversation(turns)


def test_a_date_is_frozen_and_said_once(caplog):
    tokenizer = make("bytes", HARMONY)
    date = datetime.date(2031, 2, 3)
    with caplog.at_level(logging.WARNING):
        renderer = ChatRenderer(tokenizer, date=date)
        ids = renderer.prompt_ids(CONVERSATION[:1])
        assert renderer.prompt_ids(CONVERSATION[:1]) == ids
    assert "Current date: 2031-02-03" in tokenizer.decode(ids)
    assert caplog.text.count("frozen at 2031-02-03") == 1
    assert renderer_of(tokenizer).prompt_ids(CONVERSATION[:1]) != ids


@pytest.mark.parametrize(
    ("name", "roles", "reason"),
    [
        ("gemma", ["user", "user"], r"refused the turns \(user, user\): Conversation roles must alternate"),
        ("drops", ["user", "tool", "user"], r"drops the text of turn 2 of the turns \(user, tool, user\)"),
        ("inst", ["user", "system"], "only user and assistant roles"),
        ("chatml", [], "a conversation without turns"),
    ],
)
def test_what_a_template_refuses_or_drops_is_one_line(name, roles, reason):
    turns = [{"role": role, "content": f"text {n}"} for n, role in enumerate(roles)]
    with pytest.raises(ChatError, match=reason) as caught:
        renderer_of(tokenizer_of("bytes", name)).prompt_ids(turns)
    assert "\n" not in str(caught.value)


def test_a_template_that_changes_one_row_s_text_refuses_that_row():
    tokenizer = make("bytes", TEMPLATES["chatml"].replace("m.content", "m.content.replace('tea', 'milk')"))
    renderer = renderer_of(tokenizer)
    assert renderer.prompt_ids([{"role": "user", "content": "water"}])
    with pytest.raises(ChatError, match=r"changes the text of turn 1 \(user\)"):
        renderer.prompt_ids(CONVERSATION[:1])


def test_a_tokenizer_that_cannot_end_a_turn_still_asks():
    tokenizer = make("bytes", None)
    tokenizer.eos_token = None
    renderer = renderer_of(tokenizer)
    assert renderer.prompt_ids(CONVERSATION[:1])
    assert renderer.stop_ids == ()
    with pytest.raises(ChatError, match="neither an end-of-sequence token nor a template"):
        renderer.answer_ids(CONVERSATION[:1], "Yes")


def test_half_a_character_is_left_out_and_a_written_replacement_character_stays():
    renderer = renderer_of(tokenizer_of("bytes", "chatml"))
    ids = renderer.answer_ids(CONVERSATION[:1], "tea 😊", end=False)
    assert renderer.decode(ids) == "tea 😊"
    assert renderer.decode(ids[:-1]) == "tea "
    assert renderer.decode(renderer.answer_ids(CONVERSATION[:1], "odd \ufffd")) == "odd \ufffd"


def test_end_tokens_of_the_folder_s_generation_config_stop_too(tmp_path):
    from transformers import AutoTokenizer

    make("bytes", TEMPLATES["chatml"]).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 300]}')
    assert renderer_of(AutoTokenizer.from_pretrained(tmp_path)).stop_ids == (2, 4, 300)


@pytest.mark.parametrize("name", ["chatml", "transcript"])
def test_a_saved_model_stops_and_renders_in_transformers_as_here(name, tmp_path):
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    from training.models.load import save_model

    tokenizer = make("bytes_bos", TEMPLATES[name])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=2,
        )
    )
    ids = renderer_of(tokenizer).prompt_ids(CONVERSATION[:3])
    save_model(model, tokenizer, tmp_path)
    ends = GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert ends == ([2, 4] if name == "chatml" else 2)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert own_ids(saved, CONVERSATION[:3], prompt=True) == ids
    assert renderer_of(saved).prompt_ids(CONVERSATION[:3]) == ids
    assert bool(tokenizer.chat_template) == (name == "chatml")  # the tokenizer in memory is as it was
