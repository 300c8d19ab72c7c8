"""What is wrong, missing or empty is said in one line before anything is spent."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from harness.rows import known_pairs

from common.rows import read_prompts
from flows.config import load_config
from flows.config.forms import RunRequest
from flows.pipeline.launch import open_session, resolve
from flows.pipeline.preflight import check_data, preflight
from flows.runs.progress import Silent
from judges import Ledger
from judges.audit.preferences import record_preferences
from judges.known import read_known_pairs


def complaint(path, *changes: str) -> str:
    """The one line that a run with this config ends in; it must leave nothing behind."""
    with (
        pytest.raises(ValueError) as caught,
        open_session(RunRequest(config=str(path), changes=changes), Silent()),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert not (path.parent / "runs" / "tiny").exists()
    return str(caught.value)


@pytest.fixture
def run_yaml(tmp_path, make_run, tiny_model):
    return make_run(tmp_path, tiny_model)


@pytest.fixture
def model(tmp_path, tiny_model):
    """A copy of the tiny model to break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@contextmanager
def server(status: int, body: bytes, seen: list[str] | None = None):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(f"{self.path} {self.headers.get('Authorization', '-')}")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()


def served(*names: str) -> bytes:
    return json.dumps({"data": [{"id": name} for name in names]}).encode()


def test_a_sound_config_passes(run_yaml):
    preflight(*resolve(RunRequest(config=str(run_yaml))))


@pytest.mark.parametrize("field", ["models.base", "models.critic", "judge.model"])
def test_a_missing_model_is_named(run_yaml, tmp_path, field):
    assert complaint(run_yaml, f"{field}={tmp_path}/none").startswith(
        f"{field}: {tmp_path}/none: no such folder"
    )


def empty(model):
    shutil.rmtree(model)
    model.mkdir()


def without_tokenizer(model):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()


def cut_short(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def a_classifier(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]})
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "is empty"),
        (lambda model: (model / "config.json").unlink(), "has no config.json"),
        (lambda model: (model / "config.json").write_text("{"), "is not a model configuration"),
        (lambda model: (model / "model.safetensors").unlink(), "has no safetensors weights"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), "is not a whole safetensors file"),
        (cut_short, "is not a whole safetensors file"),
        (without_tokenizer, "has no tokenizer"),
        (a_classifier, "LlamaForSequenceClassification is not a causal language model"),
    ],
)
def test_a_broken_model_is_named(run_yaml, model, damage, message):
    damage(model)
    line = complaint(run_yaml, f"models.base={model}")
    assert line.startswith("models.base: ") and message in line and str(model) in line


def test_a_file_is_no_model(run_yaml, model):
    assert "is a file" in complaint(run_yaml, f"models.base={model / 'config.json'}")


def test_an_unknown_hub_id_is_named(run_yaml):
    line = complaint(run_yaml, "models.base=nobody/nothing")
    assert line.startswith("models.base: nobody/nothing: no such folder, and ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "holds no prompts"),
        ("{", ":1: "),
        ('{"prompt": "ok"}\n{"text": "?"}\n', ":2: has text, which is no known format"),
    ],
)
@pytest.mark.parametrize("purpose", ["sl", "eval"])
def test_a_bad_prompts_file_is_named(run_yaml, tmp_path, purpose, content, message):
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_text(content)
    line = complaint(run_yaml, f"prompts.{purpose}.path={path}")
    assert line.startswith(f"prompts.{purpose}: {path}") and message in line


def test_a_prompt_that_trains_is_not_evaluated(run_yaml, tmp_path):
    path = f"prompts.eval.path={tmp_path}/prompts.jsonl"
    line = complaint(run_yaml, path)
    assert line.startswith("prompts.eval: ") and "prompts are in prompts.sl too" in line
    assert f"{tmp_path}/prompts.jsonl:1" in line and "prompts.eval.skip" in line
    rest = ("prompts.sl.limit=2", "prompts.rl.limit=3", path)
    assert "of its" in complaint(run_yaml, *rest, "prompts.eval.skip=2")
    assert "skip leaves out 10000" in complaint(run_yaml, *rest, "prompts.eval.skip=10000")
    config = load_config(run_yaml, [*rest, "prompts.eval.skip=3"])
    check_data(config)
    source = config.prompts.eval
    whole, rest = (read_prompts(source.path, skip=n) for n in (0, source.skip))
    assert [p.id for p in whole][3:] == [p.id for p in rest]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no demonstrations"), ('{"messages": []}', ":1: messages"), ('{"prompt": "x"}', ":1: ")],
)
def test_bad_demonstrations_are_named(run_yaml, tmp_path, content, message):
    (tmp_path / "demos.jsonl").write_text(content)
    line = complaint(run_yaml)
    assert line.startswith("demonstrations.path: ") and message in line


def test_a_bad_constitution_is_named(run_yaml, tmp_path):
    (tmp_path / "tiny.yaml").write_text("name: tiny\ncritique: {principles: 3}\n")
    assert complaint(run_yaml).startswith(f"{tmp_path}/tiny.yaml:2: ")


def test_a_constitution_needs_both_halves(run_yaml, tmp_path):
    text = (tmp_path / "tiny.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text(text[: text.index("comparison:")])
    assert "has no enabled comparison principle" in complaint(run_yaml)


def test_a_working_file_does_not_train_unless_allowed(run_yaml):
    line = complaint(run_yaml, "allow_unpublished=false")
    assert "tiny (working file" in line and "charter constitution publish tiny" in line
    assert "allow_unpublished: true" in line


def test_a_published_constitution_trains(run_yaml):
    changes = ("allow_unpublished=false", "constitution=hhh@^1")
    preflight(*resolve(RunRequest(config=str(run_yaml), changes=changes)))


def test_more_principles_than_there_are_is_named(run_yaml):
    line = complaint(run_yaml, "labels.principles=4")
    assert line.startswith("labels.principles: 4 is not allowed") and "has 3 enabled" in line


@pytest.mark.parametrize("section", ["labels", "critique_revision"])
def test_an_unknown_template_set_is_named(run_yaml, section):
    assert "no template set 'fancy'" in complaint(run_yaml, f"{section}.templates=fancy")


def test_a_stage_that_is_not_part_of_the_run_is_named(run_yaml):
    with pytest.raises(ValueError, match="from_stage: world is not part of this configuration"):
        resolve(RunRequest(config=str(run_yaml), from_stage="world"))


def test_runs_dir_must_be_a_folder(run_yaml, tmp_path):
    assert complaint(run_yaml, f"runs_dir={tmp_path}/prompts.jsonl").endswith(
        "prompts.jsonl: is not a folder"
    )


def judge(url: str, **more: str) -> str:
    return "judge=" + json.dumps({"kind": "openai", "model": "m", "endpoints": [url], **more})


def test_a_dead_endpoint_is_named(run_yaml):
    line = complaint(run_yaml, judge("http://127.0.0.1:9/v1"))
    assert line.startswith("judge.endpoints: http://127.0.0.1:9/v1: no answer")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, served("other"), "judge.model: m: {url} serves other"),
        (200, served(), "judge.model: m: {url} serves no model"),
        (200, b"<html>", "judge.endpoints: {url}: not an OpenAI-compatible server (/v1/models answered 200)"),
        (404, b"", "judge.endpoints: {url}: not an OpenAI-compatible server (/v1/models answered 404)"),
        (401, b"", "judge.endpoints: {url}: it asks for a key; set judge.api_key_env"),
    ],
)
def test_a_wrong_endpoint_is_named(run_yaml, status, body, message):
    with server(status, body) as url:
        assert complaint(run_yaml, judge(url)) == message.format(url=url)


def test_the_key_comes_from_the_environment(run_yaml, monkeypatch):
    seen: list[str] = []
    with server(200, served("m"), seen) as url:
        line = complaint(run_yaml, judge(url, api_key_env="MY_KEY"))
        assert line == "judge.api_key_env: the environment variable MY_KEY is not set"
        monkeypatch.setenv("MY_KEY", "s3cret")
        preflight(*resolve(RunRequest(config=str(run_yaml), changes=(judge(url, api_key_env="MY_KEY"),))))
    assert seen == ["/v1/models Bearer s3cret"]


def stopping(**gold) -> str:
    return "rl=" + json.dumps({"early_stopping": gold})


def test_the_gold_judge_is_checked_like_the_judge(run_yaml, tmp_path):
    dead = {"kind": "openai", "model": "m", "endpoints": ["http://127.0.0.1:9/v1"]}
    line = complaint(run_yaml, stopping(judge=dead))
    assert line.startswith("rl.early_stopping.judge.endpoints: http://127.0.0.1:9/v1: no answer")
    with server(200, served("other")) as url:
        line = complaint(run_yaml, stopping(judge={**dead, "endpoints": [url]}))
    assert line == f"rl.early_stopping.judge.model: m: {url} serves other"
    line = complaint(run_yaml, stopping(judge={"model": f"{tmp_path}/none"}))
    assert line.startswith(f"rl.early_stopping.judge.model: {tmp_path}/none: no such folder")


def test_the_gold_judges_templates_can_mark_an_answer(run_yaml, tiny_model):
    line = complaint(run_yaml, stopping(judge={"model": str(tiny_model)}, templates="microworld"))
    assert "has no pointwise.j2" in line


def test_the_gold_model_is_a_reward_model(run_yaml, tmp_path, tiny_model, model):
    assert complaint(run_yaml, stopping(model=f"{tmp_path}/none")) == (
        f"rl.early_stopping.model {tmp_path}/none: no such directory"
    )
    assert "LlamaForCausalLM has no reward head" in complaint(run_yaml, stopping(model=str(tiny_model)))
    config = json.loads((model / "config.json").read_text())
    changed = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    (model / "config.json").write_text(json.dumps(config | changed))
    preflight(*resolve(RunRequest(config=str(run_yaml), changes=(stopping(model=str(model)),))))


def test_people_as_gold_have_decided_enough(run_yaml, tmp_path):
    place = f"sqlite:///{tmp_path}/runs/tiny/ledger.db"
    bring = f"charter labels import FILE --who NAME --ledger {place} brings in people's preferences"
    assert (
        complaint(run_yaml, stopping(people=True))
        == f"rl.early_stopping.people: {place}: no such ledger; {bring}"
    )
    place = f"sqlite:///{tmp_path}/people.db"
    file = tmp_path / "people.jsonl"
    rows = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(99)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Ledger.open(place) as ledger:
        record_preferences(ledger, read_known_pairs(file), who="ada", source="people.jsonl")
    asked = (stopping(people=True), f"labels.ledger={place}")
    assert complaint(run_yaml, *asked).startswith(
        f"rl.early_stopping.people: 99 pairs in {place} that people decided; 100 are needed; charter labels import "
        "FILE --who "
    )
    known = known_pairs([{"prompt": "One more?", "chosen": "yes", "rejected": "no"}])
    with Ledger.open(place) as ledger:
        record_preferences(ledger, known, who="ada", source="by hand")
    preflight(*resolve(RunRequest(config=str(run_yaml), changes=asked)))


def test_early_stopping_needs_prompts_to_hold_out(run_yaml, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n')
    oracle = stopping(microworld=True)
    assert complaint(run_yaml, oracle).startswith(
        "rl.early_stopping.microworld: the oracle reads the microworld's prompts alone"
    )
    assert complaint(run_yaml, oracle, "gold=microworld") == (
        "rl.early_stopping: needs 8 held-out prompts; prompts.sl and prompts.sl_benign have 3"
    )
