"""How many prompts go into one request, and how long it may take: both by tokens, so that a slow server keeps up.

A request of 32 long prompts takes a CPU minutes, and what was finished of it is lost when its time is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines.protocol import Request

MOST_READ, MOST_WRITTEN = 8192, 2048
"""Tokens of one request's prompts, and tokens that it may write, where it holds several prompts."""
SLOWEST_READ, SLOWEST_WRITTEN = 100.0, 8.0
"""Tokens a second that a server must come to, of all its requests together: less counts as hanging."""
_USUAL_S = 120.0
_CHARACTERS_PER_TOKEN = 4


def grouped(numbers: Sequence[int], requests: Sequence[Request], size: int) -> Iterator[list[int]]:
    """Runs of neighbours that want the same kind of answer: at most `size`, and no more tokens than a request may have.

    A conversation goes alone.
    """
    group: list[int] = []
    read = written = 0
    for n in numbers:
        request = requests[n]
        alone = request.ids is None and request.text is None
        full = len(group) == size or alone
        full |= read + prompt_tokens(request) > MOST_READ or written + new_tokens(request) > MOST_WRITTEN
        if group and (full or _shape(request) != _shape(requests[group[0]])):
            yield group
            group, read, written = [], 0, 0
        group.append(n)
        read += prompt_tokens(request)
        written += new_tokens(request)
    if group:
        yield group


def patience(timeout_s: float, requests: Sequence[Request], *, at_once: int) -> float:
    """Seconds that one request for `requests` may take, of `at_once` that its server works on."""
    read = sum(prompt_tokens(request) * max(1, len(_spelt(request))) for request in requests)
    return scaled(timeout_s, read, sum(map(new_tokens, requests)), at_once=at_once)


def scaled(timeout_s: float, read: int, written: int, *, at_once: int) -> float:
    """The same for tokens: `timeout_s`, and in proportion more for what a slow server cannot do in two minutes."""
    return timeout_s * max(1.0, at_once * (read / SLOWEST_READ + written / SLOWEST_WRITTEN) / _USUAL_S)


def prompt_tokens(request: Request) -> int:
    """Tokens of a prompt, counted or estimated from its characters."""
    if request.ids is not None:
        return len(request.ids)
    texts = [request.text] if request.text is not None else [m["content"] for m in request.messages]
    return sum(map(len, texts)) // _CHARACTERS_PER_TOKEN


def new_tokens(request: Request) -> int:
    """Tokens that an answer may have."""
    return 1 if request.write is None else request.write.max_new_tokens


def _spelt(request: Request) -> list[tuple[int, ...]]:
    """Spellings that are scored whole, each behind a copy of the prompt; none where single tokens are read."""
    flat = [spelling for option in request.spellings for spelling in option]
    return flat if any(len(spelling) > 1 for spelling in flat) else []


def _shape(request: Request) -> tuple[object, ...]:
    schema = None if request.schema is None else tuple(sorted(request.schema))
    form = "ids" if request.ids is not None else "text" if request.text is not None else "chat"
    return form, request.options, request.spellings, request.write, request.seed, schema
