"""The one renderer: conversations to token ids, the same for judges, trainers and samplers."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from common.chat.template import (
    FROZEN_DATE,
    ChatError,
    ChatTemplate,
    Conversation,
    Thinking,
    transcript_template,
)
from common.chat.tokens import Tokens
from common.chat.traits import Traits, closing_of, folder_stops

_log = logging.getLogger(__name__)
_QUESTION, _ANSWER = "Qzquestionzq", "Qzanswerzq"


class ChatRenderer:
    """Turns conversations into the token ids that `apply_chat_template(tokenize=True)` of the model's folder gives.

    Three things differ, by intent: control tokens that a message spells stay text; a leading system turn that the
    template would refuse or drop is merged into the first user turn; with `thinking` "off", a generation prompt
    that leaves a thought or a channel open is closed. `date` is what a template writes as today's.

    Without a template, conversations are a transcript (`transcript_template`) after what the tokenizer itself puts
    before a text. Thread-safe; holds no state of a conversation.
    """

    def __init__(
        self, tokenizer: Any, *, thinking: Thinking = "off", date: datetime.date = FROZEN_DATE
    ) -> None:
        """Raises ChatError for a tokenizer whose template cannot be read."""
        self._tokenizer, self._thinking = tokenizer, thinking
        self._warned = False
        self.has_template = bool(tokenizer.chat_template)
        try:
            source = tokenizer.get_chat_template() if self.has_template else ""
        except ValueError as error:
            raise ChatError(f"the chat template cannot be chosen: {' '.join(str(error).split())}") from error
        self.tokens = Tokens(tokenizer, source)
        self._leading = self.tokens.leading_ids()
        if not self.has_template:
            bos = "".join(tokenizer.convert_ids_to_tokens(self._leading))
            source = transcript_template(bos, self._eos or "")
        self.template = ChatTemplate(tokenizer, source, thinking=thinking, date=date)
        if self.tokens.loses_spaces():
            _log.warning(
                "the tokenizer %s loses white space, so its model reads other words than it was trained on; "
                "its tokenizer_class may not be the one that its tokenizer.json is for",
                getattr(tokenizer, "name_or_path", ""),
            )
        if self.template.dated:
            _log.warning("the chat template writes today's date; it is frozen at %s so that ids stay", date)

    def prompt_ids(self, turns: Conversation) -> list[int]:
        """Token ids of the turns up to the place where the assistant's answer begins. Raises ChatError."""
        return self.prompts_ids([turns])[0]

    def prompts_ids(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """`prompt_ids` of several conversations, encoded together."""
        return self.tokens.ids([self._prompt(self._escaped(turns)) for turns in conversations])

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of plain texts for completion, after what the tokenizer puts before a text."""
        return [self._leading + ids for ids in self.tokens.ids([self.tokens.escape(t) for t in texts])]

    def answer_ids(self, turns: Conversation, text: str, *, end: bool = True) -> list[int]:
        """Token ids of an answer: those that follow `prompt_ids(turns)` in the whole conversation.

        The end-of-turn token is the last, unless `end` is false. Raises ChatError.
        """
        prompt, answer = self._prompt_and_answer(
            [*self._escaped(turns), *self._escaped([{"role": "assistant", "content": text}])], end=end
        )
        return self._split(prompt, answer)[1]

    def conversation(self, turns: Conversation) -> tuple[list[int], list[bool]]:
        """Token ids up to the end of the last answer, and for each token whether an assistant wrote it.

        An assistant's tokens are the answer's and the token that ends the turn, not the header. Of an earlier turn that
        the template renders in another way than it asks for it (without the closed thought of its prompt), no token
        counts, with a warning. Raises ChatError.
        """
        answers = [n for n, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not answers:
            raise ChatError("no turn of the conversation is the assistant's")
        turns = self._escaped(turns)[: answers[-1] + 1]
        prompt, answer = self._prompt_and_answer(turns)
        prompt_ids, answer_ids = self._split(prompt, answer)
        ids = prompt_ids + answer_ids
        mask = [False] * len(prompt_ids) + [True] * len(answer_ids)
        for last in answers[:-1]:
            before, turn = self._prompt_and_answer(turns[: last + 1], end=False)
            if not prompt.startswith(before + turn):
                self._warn_rewritten()
                continue
            ending = self._end(prompt[len(before + turn) :], required=False)
            turn += ending if len(ending.split()) == 1 else ""
            start_ids, stop_ids = self.tokens.ids([before, before + turn])
            start, stop = _common(prompt_ids, start_ids), _common(prompt_ids, stop_ids)
            start += start < len(start_ids)  # a token that begins before the answer is not the assistant's
            mask[start:stop] = [True] * max(0, stop - start)
        return ids, mask

    def continuations(self, turns: Conversation, options: Sequence[str]) -> list[list[tuple[int, ...]]]:
        """Per option every spelling of it as token ids that may follow `prompt_ids(turns)`.

        The first is the one that the template itself continues with; then those without and with a space before it.
        """
        escaped = self._escaped(turns)
        prompt = self._prompt(escaped)
        found = []
        for option in options:
            text = self.tokens.escape(option)
            _, own = self._prompt_and_answer(
                [*escaped, {"role": "assistant", "content": text}], end=False, prompt=prompt
            )
            spellings = [self._split(prompt, t)[1] for t in (own, text, f" {text}")]
            spellings += [self.tokens.following(t) for t in (text, f" {text}")]
            found.append(list(dict.fromkeys(tuple(ids) for ids in spellings)))
        return found

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a turn: the template's end token, the end-of-sequence token, and generation_config's."""
        folder = str(getattr(self._tokenizer, "name_or_path", "") or "")
        found = {self.traits.end_id, self._tokenizer.eos_token_id, *folder_stops(folder)}
        return tuple(sorted(i for i in found if i is not None))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids: without tokens that end a turn, special tokens, or half a character.

        White space that the template itself puts around an answer is left out too.
        """
        ids = list(ids)
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        end = self.traits.end
        text = self.tokens.decode(ids).removeprefix(self._decoded_lead)
        text = text.removesuffix(end[: len(end) - len(end.lstrip())])
        if text.endswith("\ufffd"):
            written = self.tokens.following("\ufffd")
            if ids[-len(written) :] != written:
                text = text.rstrip("\ufffd")
        return text

    @cached_property
    def traits(self) -> Traits:
        """Found by rendering a question and an answer once. Raises ChatError."""
        question = [{"role": "user", "content": _QUESTION}]
        prompt = self.template.render(question, generation_prompt=True)
        whole = self.template.render(
            [*question, {"role": "assistant", "content": _ANSWER}], generation_prompt=False
        )
        opens = bool(closing_of(prompt))
        header, lead = "", ""
        if whole.startswith(prompt):
            lead = whole[len(prompt) : whole.index(_ANSWER, len(prompt))]
            if lead.strip() and (self._thinking == "off" or not self.tokens.control.search(lead)):
                header = lead.rstrip(" ")  # a space goes with the word that follows
                lead = lead[len(header) :]
        if opens and not header and self._thinking == "off":
            header = closing_of(prompt)
        end = self._end(whole[whole.rindex(_ANSWER) + len(_ANSWER) :], required=False)
        end = end or self._eos or ""
        return Traits(
            header=header,
            lead=lead,
            end=end,
            end_id=self.tokens.ids([end])[0][-1] if end else None,
            merges_system=self.template.merges_system(),
            writes_date=self.template.dated,
            opens_thought=opens,
            has_template=self.has_template,
        )

    @property
    def _eos(self) -> str | None:
        return self._tokenizer.eos_token or self._tokenizer.sep_token

    @cached_property
    def _decoded_lead(self) -> str:
        """What decoding puts before every answer: the template's white space, or the tokenizer's."""
        question = [{"role": "user", "content": _QUESTION}]
        return self.tokens.decode(self.answer_ids(question, _ANSWER, end=False)).partition(_ANSWER)[0]

    def _warn_rewritten(self) -> None:
        if self._warned:
            return
        self._warned = True
        _log.warning(
            "the chat template renders an assistant's earlier turns in another way than it asks for them; "
            "only the last answer of such a conversation is trained on"
        )

    def _escaped(self, turns: Conversation) -> list[dict[str, str]]:
        return [{**turn, "content": self.tokens.escape(turn["content"], turn["role"])} for turn in turns]

    def _prompt(self, turns: Conversation) -> str:
        return self.template.render(turns, generation_prompt=True) + self.traits.header

    def _prompt_and_answer(
        self,
        turns: Conversation,
        *,
        end: bool = True,
        prompt: str | None = None,
    ) -> tuple[str, str]:
        """Texts of a conversation's prompt and of its last answer, which is the assistant's; both escaped."""
        content = turns[-1]["content"]
        prompt = self._prompt(turns[:-1]) if prompt is None else prompt
        whole = self.template.render(turns, generation_prompt=False)
        lead = self.traits.lead
        if whole.startswith(prompt):
            rest = whole[len(prompt) :]
        elif "</think>" in content:  # the answer brings its own thought
            prompt, rest, lead, content = *self._open_ended(turns, whole), "", _after_thought(content)
        else:
            core = content if content.strip() and content in whole else content.strip()
            rest = lead + whole[whole.rindex(core) :] if core else lead + self.traits.end
        core = content if rest.startswith(lead + content) else content.strip()
        at = rest.find(core, len(lead) if rest.startswith(lead) else 0)
        if at < 0:
            raise ChatError("the chat template changes the text of the last answer")
        stop = at + len(core)
        return prompt, rest[:stop] + (self._end(rest[stop:], required=True) if end else "")

    def _open_ended(self, turns: Conversation, whole: str) -> tuple[str, str]:
        """For an answer that begins with a thought: the prompt that leaves thinking open, and what follows it."""
        opened = ChatTemplate(
            self._tokenizer, self.template.source, thinking="on", date=self.template.date
        ).render(turns[:-1], generation_prompt=True)
        thought = turns[-1]["content"].rpartition("</think>")[0].rpartition("<think>")[2].strip()
        if not whole.startswith(opened) or thought not in whole[len(opened) :]:
            raise ChatError("the chat template drops the thought of the last answer; leave it out")
        return opened, whole[len(opened) :]

    def _end(self, rest: str, *, required: bool) -> str:
        """Of the text after an answer, what ends the turn: up to and including its first control token."""
        found = self.tokens.control.search(rest)
        if found:
            return rest[: found.end()]
        if not required:
            return ""
        if not self._eos:
            raise ChatError(
                "the tokenizer has neither an end-of-sequence token nor a template that ends a turn"
            )
        return self._eos

    def _split(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Ids of a prompt, and those of the answer that follow them in the ids of both together."""
        before, whole = self.tokens.ids([prompt, prompt + answer])
        if whole[: len(before)] == before:
            return before, whole[len(before) :]
        return before, self.tokens.following(answer)  # they run together, which sampling never does


def _after_thought(text: str) -> str:
    return text.rpartition("</think>")[2].lstrip()


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
