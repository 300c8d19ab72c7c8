"""Control tokens in texts that go to a server which tokenises for us: broken up, so that they stay text."""

from __future__ import annotations

import re

# Behind the first character of what the usual vocabularies use as a control token. Every look ahead is bounded.
_CONTROL = re.compile(
    r"(?<=[<\[])(?=[|/]{0,2}[^\W\d][\w|/:.~@▁-]{0,64}[>\]])"  # </s> [INST] <fim-prefix> <seed:bos> [|user|] <|turn>
    r"|(?<=<)(?=\|[^<>\n]{1,64}\|>)"  # <|0.00|>
    r"|(?<=｜)(?=[^\s<>｜]{1,64}｜)"  # <｜end▁of▁sentence｜>
    r"|(?<=>)(?=>[A-Z_]{1,32}<<)"  # >>QUESTION<<
    r"|(?<=\])(?=~)|(?<=~)(?=\[)"  # ]~b] [e~[
)
ZERO_WIDTH_SPACE = "\u200b"


def defused(text: str) -> str:
    """`text` with an invisible space inside whatever looks like a control token.

    Only for servers that tokenise for us: they would read the token, and there is no way to tell them not to.
    Lone surrogates, which JSON over the wire cannot carry, become question marks.
    """
    return _CONTROL.sub(ZERO_WIDTH_SPACE, text.encode("utf-8", "replace").decode())
