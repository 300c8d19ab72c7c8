"""How the calls of a batch are cut into requests to a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from judges.records import Call, Reading


@dataclass(frozen=True)
class Job:
    """Calls (by number) that go in one request, or one whose reading is known without asking."""

    calls: Sequence[Call]
    numbers: list[int]
    prompts: list[list[int]] | None = None
    reading: Reading | None = None

    def halves(self) -> tuple[Job, Job]:
        """The two halves of the request."""
        k = len(self.numbers) // 2
        prompts = self.prompts
        first, second = (None, None) if prompts is None else (prompts[:k], prompts[k:])
        return Job(self.calls, self.numbers[:k], first), Job(self.calls, self.numbers[k:], second)


def grouped(numbers: Sequence[int], calls: Sequence[Call], size: int) -> Iterator[list[int]]:
    """Runs of at most `size` neighbours that ask for the same kind of answer."""
    group: list[int] = []
    for n in numbers:
        if group and (len(group) == size or _shape(calls[n]) != _shape(calls[group[0]])):
            yield group
            group = []
        group.append(n)
    if group:
        yield group


def _shape(call: Call) -> tuple[object, ...]:
    return call.options, call.write, call.verdict
