"""`charter check`: a sound model passes, and what is wrong with one is said in the line of the check that it fails."""

from __future__ import annotations

import json
import math
import shutil
import zlib

import pytest
from click.testing import CliRunner
from harness.chat_tokenizers import HARMONY, QWEN3, R1, TEMPLATES, make
from harness.model_server import ModelServer

from flows.cli.check import check
from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.pipeline.conformance import token_checks
from flows.pipeline.conformance_endpoint import endpoint_checks
from flows.pipeline.conformance_weights import weight_checks
from flows.pipeline.launch import resolve
from flows.pipeline.preflight import preflight


def found(checks) -> dict[str, tuple[str, str]]:
    return {c.name: (c.status, c.text) for c in checks}


@pytest.fixture
def folder(tmp_path):
    """`folder(kind, template, **generation)`: a folder with a tokenizer, a config and a generation config."""

    def write(kind, template, **generation):
        made = tmp_path / "model"
        tokenizer = make(kind, template)
        tokenizer.save_pretrained(made)
        config = {"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 64}
        (made / "config.json").write_text(json.dumps(config))
        if generation:
            (made / "generation_config.json").write_text(json.dumps(generation))
        return made

    return write


def test_a_sound_model_passes_every_check(tiny_model):
    done = CliRunner().invoke(check, [str(tiny_model)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert lines[-1] == "15 checks: 15 ok, 0 failed"
    assert "16 greedy tokens as transformers' generate" in done.stdout
    assert "sequences are packed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "template", "said"),
    [
        ("bytes", TEMPLATES["trims"], "trims white space around the texts of user and assistant"),
        (
            "first",
            TEMPLATES["inst"],
            "refuses a system turn, which is put at the head of the first user turn",
        ),
        ("bytes", TEMPLATES["drops"], "drops a system turn"),
        ("always", TEMPLATES["gemma"], "(user, user)"),
        ("bytes", None, "there is none: conversations are a transcript"),
        ("bytes", QWEN3, "only the last answer is trained on"),
        ("bytes", R1, "the prompt opens a thought, which is closed"),
        ("bytes", HARMONY, "writes today's date, which is frozen at 2024-07-26"),
        (
            "bytes",
            HARMONY,
            "an answer begins with '<|channel|>final<|message|>', which is added to the prompt",
        ),
    ],
)
def test_what_a_template_does_is_named(folder, kind, template, said):
    checks = found(token_checks(folder(kind, template)))
    assert checks["template"][0] == "note"
    assert said in checks["template"][1]
    assert "fails" not in {status for status, _ in checks.values()}


def test_stops_that_differ_from_the_template_are_named(folder):
    place = folder("bytes", TEMPLATES["chatml"], eos_token_id=2)
    status, text = found(token_checks(place))["stops"]
    assert status == "note"
    assert text.startswith(
        "generation_config.json stops at </s>, the template ends an answer with <|im_end|>. "
    )
    assert text.endswith("Charter stops at </s>, <|im_end|>, and so do the models that it saves")
    status, text = found(token_checks(folder("bytes", TEMPLATES["alpaca"])))["stops"]
    assert status == "note"
    assert "the template ends no answer, Charter writes </s> behind each" in text


def test_letters_of_several_tokens_and_changed_texts_are_notes(folder):
    checks = found(token_checks(folder("first", TEMPLATES["zephyr"])))
    assert checks["round trip"] == ("ok", "8 kinds of text come back from their ids")
    assert checks["letters"][0] == "ok"
    assert "1 to 10 are scored whole" in checks["letters"][1]


def refuses(folder):
    _template(folder, "{{ raise_exception('no') }}")


def drops(folder):
    _template(
        folder, "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )


def _template(folder, source):
    (folder / "chat_template.jinja").write_text(source)


def other_vocabulary(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def loses_spaces(folder):
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": ""}
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("damage", "name", "said"),
    [
        (refuses, "template", "the chat template refused the turns (user): no"),
        (drops, "template", "drops the text of turn 2"),
        (other_vocabulary, "sizes", "the model has 100 embeddings"),
        (without_tokenizer, "tokenizer", "tokenizer.json, "),
        (loses_spaces, "round trip", "spaces between words are lost: tokenizer_class"),
    ],
)
def test_a_broken_model_fails_and_does_not_start_a_run(tmp_path, make_run, tiny_model, damage, name, said):
    place = shutil.copytree(tiny_model, tmp_path / "broken")
    damage(place)
    done = CliRunner().invoke(check, [str(place)])
    assert done.exit_code == 2
    line = next(line for line in done.stdout.splitlines() if line.split()[1:2] == name.split()[:1])
    assert line.startswith("fails ")
    assert said in line
    config = make_run(tmp_path, tiny_model)
    with pytest.raises(FlowError, match=r"models\.critic: ") as caught:
        preflight(*resolve(RunRequest(config=str(config), changes=(f"models.critic={place}",))))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_weights_fail(tiny_model, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    place = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.nan)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    checks = found(weight_checks(place))
    assert checks["loads"][0] == "fails"
    assert "logits are not finite" in checks["loads"][1]


def test_weights_larger_than_memory_are_not_tried(tiny_model, monkeypatch):
    monkeypatch.setattr("flows.pipeline.conformance_weights._ROOM", 1e9)
    checks = found(weight_checks(tiny_model))
    assert checks["weights"][0] == "note"
    assert checks["weights"][1].startswith("not tried: in float32 they need ")
    assert "loads" not in checks


def test_what_is_no_model_is_one_line(tmp_path, capsys):
    from flows.cli import main

    for arguments, said in (
        (["check", str(tmp_path / "none")], "no such folder"),
        (
            ["check", "nobody/nothing"],
            "not in the local hub cache (fetch it with: hf download nobody/nothing)",
        ),
        (["check", str(tmp_path), "--api-key-env", "KEY"], "--api-key-env is for an endpoint"),
        (["check", "http://u:secret@127.0.0.1/v1"], "no password in a URL"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error and "secret" not in error


def scripted(*, listed=20, mass=1.0, seeds=True, leak="", first_slot=False):
    """A server that prefers the shorter response (or the first), and draws its texts by their seed."""

    def behave(path, body, n):
        if not path.endswith("chat/completions"):
            return None
        if not body.get("logprobs"):
            drawn = f"City {zlib.crc32(str(body['seed'] if seeds else 1).encode())}"
            text = f"Yes.{leak}" if body["temperature"] == 0 else drawn
            choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
            return 200, json.dumps({"choices": [choice]})
        said = body["messages"][-1]["content"]
        shorter = said.find("Nine minutes.") < said.find("That depends") or first_slot
        p = 0.9 * mass if shorter else 0.1 * mass
        rest = [(f"w{i}", (1 - mass) / 18 + 1e-9) for i in range(18)]
        top = [
            {"token": t, "logprob": math.log(p)}
            for t, p in sorted([("A", p), ("B", mass - p), *rest], key=lambda x: -x[1])
        ]
        choice = {
            "index": 0,
            "message": {"content": "A"},
            "logprobs": {"content": [{"top_logprobs": top[:listed]}]},
        }
        return 200, json.dumps({"choices": [choice]})

    return behave


@pytest.fixture
def ask():
    """`ask(behave)`: the checks of a scripted server, asked with conversations."""
    servers = []

    def run(behave, **options):
        server = ModelServer(behave=behave, max_model_len=4096)
        servers.append(server)
        settings = {"model": None, "tokenizer": None, "api_key_env": None, **options}
        return found(endpoint_checks(server.url, **settings))

    yield run
    for server in servers:
        server.stop()


def test_a_sound_endpoint_passes(ask):
    checks = ask(scripted())
    assert {status for status, _ in checks.values()} == {"ok"}
    assert checks["serves"][1] == "m, vllm 9.9, 4,096 tokens of context"
    assert checks["logprobs"][1] == "lists the 20 likeliest tokens"
    assert checks["judges"][1] == "asked with conversations, the right answer gets 0.90 as A and 0.90 as B"
    assert checks["seeds"][1] == "one seed gives one answer, another seed another"


@pytest.mark.parametrize(
    ("behaviour", "name", "status", "said"),
    [
        ({"listed": 5}, "logprobs", "note", "lists 5 of the 20"),
        ({"first_slot": True}, "judges", "note", "0.90 as A and 0.10 as B: it does not hold to it"),
        ({"mass": 0.2}, "judges", "fails", "only 0.20 of the probability is on A and B"),
        ({"seeds": False}, "seeds", "note", "two seeds give one answer"),
        ({"leak": "<|im_end|>"}, "stops", "fails", "an answer shows a control token"),
    ],
)
def test_what_an_endpoint_does_otherwise_is_named(ask, behaviour, name, status, said):
    checks = ask(scripted(**behaviour))
    assert checks[name][0] == status
    assert said in checks[name][1]


def test_an_endpoint_without_logprobs_or_with_a_filter_fails_in_its_line(ask):
    def without(path, body, n):
        return 200, json.dumps(
            {"choices": [{"index": 0, "message": {"content": "A"}, "finish_reason": "stop"}]}
        )

    checks = ask(without)
    assert checks["logprobs"] == (
        "note",
        "lists none for a conversation: judge with readout: verdict, or give --tokenizer",
    )
    assert checks["judges"][0] == "fails"
    assert "choose readout: verdict" in checks["judges"][1]
    broken = ask(lambda path, body, n: (500, "{}"))
    assert {name for name, (status, _) in broken.items() if status == "fails"} == {
        "logprobs",
        "judges",
        "stops",
        "seeds",
    }


def test_an_endpoint_is_asked_with_token_ids_and_a_key(ask, tiny_model, monkeypatch):
    """The greedy tokens of one server obey `stop_token_ids`, of the other they do not."""
    seen = []

    def server(obeys):
        def behave(path, body, n):
            seen.append(path)
            if "return_token_ids" not in body:
                text = f"x{body['seed']}"
                choices = [{"index": 0, "text": text, "finish_reason": "stop"}]
                return None if body.get("logprobs") else (200, json.dumps({"choices": choices}))
            ids = [50, 51, 52, 53, 54]
            at = next((n for n, i in enumerate(ids) if i in body["stop_token_ids"]), None) if obeys else None
            ids = ids if at is None else ids[: at + 1]
            choice = {
                "index": 0,
                "token_ids": ids,
                "logprobs": {"token_logprobs": [-1.0] * len(ids)},
                "finish_reason": "length" if at is None else "stop",
            }
            return 200, json.dumps({"choices": [choice]})

        return behave

    monkeypatch.setenv("CHECK_KEY", "sesame")
    checks = ask(server(True), tokenizer=tiny_model, api_key_env="CHECK_KEY")
    assert checks["stops"] == ("ok", "stops at the tokens that it is told to stop at")
    assert checks["judges"][1].startswith("asked with token ids")
    assert checks["seeds"][0] == "ok"
    assert ask(server(False), tokenizer=tiny_model)["stops"][0] == "fails"
    assert "sesame" not in str(checks)
