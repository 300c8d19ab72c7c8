"""The progress line: what a terminal shows, and that anything else stays silent."""

import io
import sys

from training.run.logs import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch, **settings):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with Progress(40, "PPO", start=3, **settings) as progress:
        progress.update(4, loss=0.01234, reward=-1.5, kl=2.0, tokens_per_second=12345.6)
    return stream.getvalue()


def test_a_terminal_shows_steps_time_left_and_values(monkeypatch):
    text = shown(Terminal(), monkeypatch)
    assert "PPO" in text and "4/40" in text and ":" in text
    assert "loss 0.0123  reward -1.5  kl 2  tokens per second 12,346" in text


def test_nothing_is_shown_elsewhere(monkeypatch):
    assert shown(io.StringIO(), monkeypatch) == ""
    assert shown(Terminal(), monkeypatch, visible=False) == ""
