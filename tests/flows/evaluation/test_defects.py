"""Loops and copies are told from texts that people would write."""

from __future__ import annotations

from flows.evaluation.texts import copied, looping

TASK = "Write the new answer only, as the assistant would send it to the person: no tags, no preface."
POEM = (
    "The rain it raineth every day, upon the just and unjust fella, but chiefly on the just, because the unjust "
    "steals the just's umbrella. The rain it raineth all the same on those who write and those who read."
)
LIST = "\n".join(
    f"{n}. Put {thing} into the bowl and stir it well." for n, thing in enumerate("eggs milk oil".split())
)


def test_a_text_that_says_the_same_over_and_over_loops():
    assert looping("I am sorry for that. " * 12) and looping("no " * 40)
    assert looping(POEM + " and so on and on and on" * 20)
    assert not any(
        looping(text) for text in ("", "No, no, no, no!", "yes " * 10, POEM, LIST, POEM + "\n" + LIST)
    )


def test_what_was_asked_may_be_quoted_but_not_given_back():
    asked = f"Question: {LIST}\n{TASK}"
    assert copied(TASK, [asked], [LIST]) and copied(f"Sure. {TASK}", [asked])
    assert not copied(LIST, [asked], [LIST]) and not copied(POEM, [asked])
    assert not copied(f'You said "no tags, no preface". {POEM}', [asked])
    assert not copied("no tags, no preface", [asked]) and not copied("", [asked])
    said = 'The answer to the question is "Which words of the answer could go without loss?"'
    assert copied(said, ["Which words of the answer could go without loss? Reply in one sentence."])
