"""Whether a model is what Charter takes it for, before anything is spent: the part that needs no weights.

Each check is one line: ok, a note (what Charter does about it), or fails, with what to do. Weights are tried in
`conformance_weights`, servers in `conformance_endpoint`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.chat import ChatError, ChatRenderer, folder_stops, renderer_of
from common.text import clipped
from engines.stops import folder_stop_ids
from judges.encoding import CallEncoder

Status = Literal["ok", "note", "fails"]
Finding = tuple[Status, str]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""What a tokenizer is read from; a folder has one of them."""
_USER, _ANSWER = "Which egg is done?", "The second one, after nine minutes."
# Texts by what is named when a tokenizer changes them. The first has to survive in any.
_TEXTS = {
    "plain words": "Put the egg in hot water.",
    "spaces and line breaks": "def f(x):\n    return x  # two  spaces\n\nend",
    "capital letters": "NASA and Ada Lovelace",
    "accents": "Çà et là: naïve Österreicher",
    "typographic marks": "“No” — it’s 5½ ﬁne…",
    "Chinese": "如何煮鸡蛋？",
    "Hindi": "कृपया मेरी मदद करें",
    "emoji": "🙂 👩‍👩‍👧",
}
_OPTIONS = (("A", "B"), ("A", "B", "C", "D"), tuple(str(n) for n in range(1, 11)))
_ROLES = (
    ("user", "assistant", "user"),
    ("user", "user"),
    ("assistant", "user"),
    ("user", "assistant", "tool"),
    ("user", "system"),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One property of a model and what was found."""

    name: str
    status: Status
    text: str


def tried(name: str, look: Callable[[], Finding]) -> Check:
    """The check `name`, which fails with whatever `look` raises: a model may break in any way."""
    try:
        status, text = look()
    except Exception as error:
        status, text = "fails", " ".join(str(error).split())[:400] or type(error).__name__
    return Check(name=name, status=status, text=text)


def token_checks(folder: Path) -> Iterator[Check]:
    """What a model folder's tokenizer, chat template and config say of it. Loads no weights."""
    found: list[Any] = []
    yield tried("tokenizer", lambda: _tokenizer(folder, found))
    if not found:
        return
    tokenizer = found[0]
    yield tried("sizes", lambda: _sizes(folder, tokenizer))
    template = tried("template", lambda: _template(renderer_of(tokenizer)))
    yield template
    if template.status == "fails":
        return
    renderer = renderer_of(tokenizer)
    yield tried("continues", lambda: _continues(tokenizer, renderer))
    yield tried("round trip", lambda: _round_trip(tokenizer, renderer))
    yield tried("stops", lambda: _stops(folder, tokenizer, renderer))
    yield tried("letters", lambda: _letters(CallEncoder(tokenizer)))
    yield tried("control text", lambda: _control_text(tokenizer, renderer))


def _tokenizer(folder: Path, found: list[Any]) -> Finding:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return "fails", f"none of {', '.join(TOKENIZER_FILES)} is in {folder}: copy them there"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if len(tokenizer) == 0:
        return "fails", "the vocabulary is empty: copy the tokenizer's files beside the weights"
    if tokenizer.pad_token_id is None and tokenizer.unk_token is None and tokenizer.eos_token is None:
        return "fails", "has no pad, unk or eos token: set eos_token in tokenizer_config.json"
    found.append(tokenizer)
    return "ok", f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens"


def _sizes(folder: Path, tokenizer: Any) -> Finding:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return "note", "no config.json: neither context nor embeddings are known"
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    vocabulary = config.vocab_size
    if len(tokenizer) > vocabulary:
        apart = f"{len(tokenizer):,} tokens, but the model has {vocabulary:,} embeddings"
        return "fails", f"{apart}: another model's tokenizer, or tokens were added and the model not resized"
    context = getattr(config, "max_position_embeddings", None)
    room = f"{context:,} tokens of context" if context else "a context without a limit"
    return "ok", f"{room}, {vocabulary:,} embeddings for {len(tokenizer):,} tokens"


def _template(renderer: ChatRenderer) -> Finding:
    """What the template does to conversations, tried on a few."""
    renderer.prompt_ids(_turns("user"))
    renderer.conversation(_turns("user", "assistant"))
    notes = []
    if not renderer.has_template:
        notes.append(
            "there is none: conversations are a transcript (Human: …, Assistant: …); right for a base model, else copy "
            "chat_template.jinja into the folder"
        )
    fault = renderer.template.fault(("system", "user"))
    if fault is not None:
        what = "drops" if "drops" in fault else "refuses"
        notes.append(f"{what} a system turn, which is put at the head of the first user turn")
    trimmed = [role for role in ("user", "assistant") if _trims(renderer, role)]
    if trimmed:
        notes.append(f"trims white space around the texts of {' and '.join(trimmed)}")
    if renderer.traits.writes_date:
        notes.append(f"writes today's date, which is frozen at {renderer.template.date}")
    if renderer.traits.opens_thought:
        notes.append("the prompt opens a thought, which is closed: the model answers without thinking")
    elif renderer.traits.header:
        notes.append(f"an answer begins with {renderer.traits.header!r}, which is added to the prompt")
    if (lost := _earlier_answers(renderer)) is not None:
        notes.append(lost)
    refused = [", ".join(roles) for roles in _ROLES if renderer.template.fault(roles) is not None]
    if refused:
        notes.append(
            f"takes no conversation of ({'), ('.join(refused)}): such a row is refused with its place"
        )
    return ("note", "; ".join(notes)) if notes else ("ok", "renders system, user and assistant as they are")


def _turns(*roles: str) -> list[dict[str, str]]:
    texts = {"system": "Be brief.", "user": _USER, "assistant": _ANSWER}
    return [{"role": role, "content": texts[role]} for role in roles]


def _trims(renderer: ChatRenderer, role: str) -> bool:
    turns = _turns("user", "assistant")
    padded = [{**t, "content": f"  {t['content']}  "} if t["role"] == role else t for t in turns]
    text = renderer.template.render(padded, generation_prompt=False)
    return not any(turn["content"] in text for turn in padded if turn["role"] == role)


def _earlier_answers(renderer: ChatRenderer) -> str | None:
    """How earlier answers are rendered otherwise than they were asked for; None where they are not."""
    turns = _turns("user", "assistant", "user", "assistant")
    try:
        _, mask = renderer.conversation(turns)
    except ChatError as error:
        return f"takes no conversation of several answers ({error})"
    runs = sum(own and not before for before, own in zip([False, *mask], mask, strict=False))
    if runs < 2:
        return (
            "shows earlier answers in another way than it asks for them: only the last answer is trained on"
        )
    thought = "Qzthoughtzq"
    turns[1] = {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{_ANSWER}"}
    if thought not in renderer.template.render(turns, generation_prompt=False):
        return "leaves out the thoughts of earlier answers"
    return None


def _continues(tokenizer: Any, renderer: ChatRenderer) -> Finding:
    """The ids of prompt and answer beside those of the whole conversation's text."""
    different = []
    for roles in (("user", "assistant"), ("system", "user", "assistant")):
        turns = _turns(*roles)
        ids = renderer.prompt_ids(turns[:-1]) + renderer.answer_ids(turns[:-1], _ANSWER)
        text = renderer.template.render(turns, generation_prompt=False)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        pairs = enumerate(zip(ids, whole, strict=False))
        at = next((n for n, (x, y) in pairs if x != y), None)
        if at is not None:
            here, there = (clipped(tokenizer.decode(list(found[at : at + 4])), 40) for found in (ids, whole))
            different.append(f"({', '.join(roles)}) at token {at + 1} {here!r}, the template {there!r}")
    if different:
        apart = f"prompt and answer differ from the conversation in one piece: {'; '.join(different)}"
        return "note", f"{apart}. Charter trains on the ids that it samples behind: nothing is to be done"
    return "ok", "prompt and answer are the ids of the whole conversation"


def _round_trip(tokenizer: Any, renderer: ChatRenderer) -> Finding:
    if renderer.tokens.loses_spaces():
        wrong = "tokenizer_class in tokenizer_config.json is not the one that tokenizer.json is for"
        return (
            "fails",
            f"spaces between words are lost: {wrong}; set PreTrainedTokenizerFast or the model's own",
        )
    changed = []
    for kind, text in _TEXTS.items():
        turns = [{"role": "user", "content": text}]
        read = tokenizer.decode(renderer.prompt_ids(turns), clean_up_tokenization_spaces=False)
        written = renderer.decode(renderer.answer_ids(turns, text))
        if text not in read or written != text:
            changed.append(kind)
    if not changed:
        return "ok", f"{len(_TEXTS)} kinds of text come back from their ids"
    if "plain words" in changed:
        return (
            "fails",
            "plain words do not come back from their ids: tokenizer and vocabulary do not belong together",
        )
    return (
        "note",
        f"the tokenizer changes {', '.join(changed)}: the model reads other texts than were written",
    )


def _stops(folder: Path, tokenizer: Any, renderer: ChatRenderer) -> Finding:
    stops = folder_stop_ids(folder, tokenizer)
    if not stops:
        return "fails", "nothing ends an answer: set eos_token in tokenizer_config.json"
    named = ", ".join(_named(tokenizer, i) for i in stops)
    end = renderer.traits.end_id
    text = renderer.template.render(_turns("user", "assistant"), generation_prompt=False)
    notes = []
    if not renderer.tokens.control.search(text[text.rindex(_ANSWER) :]):
        notes.append(f"the template ends no answer, Charter writes {_named(tokenizer, end)} behind each")
    if outside := [i for i in stops if i >= len(tokenizer)]:
        notes.append(f"the ids {outside} are not in the vocabulary; take them out of generation_config.json")
    own = folder_stops(str(folder))
    if own and end is not None and end not in own:
        listed = ", ".join(_named(tokenizer, i) for i in own)
        notes.append(
            f"generation_config.json stops at {listed}, the template ends an answer with {_named(tokenizer, end)}"
        )
    if notes:
        return "note", f"{'; '.join(notes)}. Charter stops at {named}, and so do the models that it saves"
    return "ok", f"an answer ends at {named}"


def _named(tokenizer: Any, token: int | None) -> str:
    return "nothing" if token is None else str(tokenizer.convert_ids_to_tokens(token))


def _letters(encoder: CallEncoder) -> Finding:
    """How the judge's options are read off behind a prompt."""
    whole, forms = [], 0
    for options in _OPTIONS:
        written = [tuple(encoder.continuation(option, plain=False)) for option in options]
        if len(set(written)) < len(options) or not all(written):
            return "fails", f"the tokenizer cannot tell {', '.join(options)} apart: it cannot judge"
        found = encoder.distinct_forms(options)
        if found is None:
            whole.append(f"{options[0]} to {options[-1]}")
        elif options == ("A", "B"):
            forms = len(found[0])
    if f"{_OPTIONS[0][0]} to {_OPTIONS[0][-1]}" in whole:
        return (
            "note",
            f"{', '.join(whole)} are not single tokens: options are scored whole, which costs more calls",
        )
    several = f"; {', '.join(whole)} are scored whole" if whole else ""
    return "ok", f"A and B are single tokens, {forms} spelling{'s' * (forms != 1)} each summed{several}"


def _control_text(tokenizer: Any, renderer: ChatRenderer) -> Finding:
    """A user who writes the template's control tokens opens no turn and ends none."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    texts = [t for t in dict.fromkeys([*tokenizer.all_special_tokens, *added]) if t.strip()][:200]
    control = renderer.tokens.control_ids

    def ids(text: str) -> list[int]:
        return renderer.prompt_ids([{"role": "user", "content": text}])

    plain = Counter(i for i in ids("a b") if i in control)
    got_in = [t for t in texts if Counter(i for i in ids(f"a {t} b") if i in control) != plain]
    if got_in:
        return (
            "fails",
            f"{', '.join(map(repr, got_in[:3]))} in a message becomes a control token: it can forge a turn",
        )
    lost = [t for t in texts if _squeezed(t) not in _squeezed(tokenizer.decode(ids(f"a {t} b")))]
    if lost:
        return (
            "note",
            f"{', '.join(map(repr, lost[:3]))} in a message is not read letter by letter, nor as a token",
        )
    return "ok", f"{len(texts)} control tokens stay text where a message spells them"


def _squeezed(text: str) -> str:
    return "".join(text.split())
