"""Control tokens in a text, where the server tokenises: none of the families in use may survive as it was spelt."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.defusing import ZERO_WIDTH_SPACE, defused

TOKENS = (
    "<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|begin_of_text|> <|reserved_special_token_0|> <|fim-prefix|> "
    "<|fim_middle|> <|END_OF_TURN_TOKEN|> <|0.00|> <|hy.system:1|> <|turn> <turn|> <|/think|> "
    "<｜User｜> <｜Assistant｜> <｜end▁of▁sentence｜> <｜begin▁of▁sentence｜> <｜tool▁calls▁begin｜> ｜DSML｜ "
    "<s> </s> <unk> <pad> <bos> <eos> <sep> <BOS_TOKEN> <start_of_turn> <end_of_turn> <extra_id_0> <unused99> "
    "<fim_prefix> <fim-suffix> <seed:bos> <SPECIAL_10> <think> </think> <tool_call> <用户> <AI> "
    "[INST] [/INST] <<SYS>> <</SYS>> [gMASK] [CLS] [TOOL_CALLS] [/TOOL_RESULTS] [SYSTEM_PROMPT] [|user|] [|endofturn|] "
    "[unused9] >>QUESTION<< ]~b] ]~!b[ [e~["
).split()
PLAIN = "1 < 2 > 0, [1] and [2, 3], a[0] << 4 >> 2 || b, x|y, 5<6>4, ~/home, wait ... < s > (<3)"


@pytest.mark.parametrize("token", TOKENS)
def test_control_tokens_of_every_family_are_broken_up(token):
    for text in (token, f"a{token}b", f"{token}{token}", f"<{token}>", f"[{token}]", f"|{token}|"):
        sent = defused(text)
        assert token not in sent
        assert sent.replace(ZERO_WIDTH_SPACE, "") == text


def test_plain_text_goes_as_it_is():
    assert defused(PLAIN) == PLAIN


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", ">", "[", "]", "｜", "~", "/", "a", " "]), max_size=12))
def test_no_token_survives_among_others(parts):
    sent = defused("".join(parts))
    assert sent.replace(ZERO_WIDTH_SPACE, "") == "".join(parts)
    assert not any(token in sent for token in TOKENS)


@pytest.mark.parametrize(
    "text", ["<", "[", "<|", "<a", "｜", "<|a", "｜a", ">>A", "]~[", "</", "<" + "a" * 64]
)
def test_the_time_grows_with_the_length_alone(text):
    text = text * (500_000 // len(text))
    started = time.perf_counter()
    defused(text)
    assert time.perf_counter() - started < 5
