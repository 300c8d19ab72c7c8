"""What a flow that a server starts may name: every kind of place, by every way in, and each refusal in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from flows.comparison.contestants import CompareRequest
from flows.config.fences import ENDPOINTS, FUNCTIONS, KEYS, ROOTS, Fences, leaves
from flows.config.forms import RelabelRequest, RunRequest
from flows.config.forms_judging import ExamRequest
from flows.config.loading import load_config
from flows.errors import FlowError
from flows.orchestration.audit import AuditRequest

SERVED = "judge={kind: openai, model: m, endpoints: ['%s']}"
TERM = "rl.reward.terms=[{kind: function, function: '%s'}]"


@pytest.fixture
def folder(tmp_path, monkeypatch, make_run, tmp_path_factory) -> Path:
    """A served folder with a run's configuration, whose model lies elsewhere, and a link that leads out."""
    served = tmp_path / "served"
    make_run(served, tmp_path_factory.mktemp("model"))
    (tmp_path / "outside").mkdir()
    (served / "link").symlink_to(tmp_path / "outside")
    monkeypatch.chdir(served)
    return served


def run(*changes: str, **fields) -> RunRequest:
    return RunRequest(config="run.yaml", changes=changes, **fields)


def exam(**fields) -> ExamRequest:
    return ExamRequest(**fields)


def compare(*models: str, **fields) -> CompareRequest:
    return CompareRequest(models=models or ("a", "b"), **fields)


OUTSIDE = [
    # Paths: the form's own fields, and what changes make of the configuration.
    (RunRequest(config="/etc/passwd"), "config", ROOTS),
    (RunRequest(config="../other.yaml"), "config", ROOTS),
    (RunRequest(config="link/run.yaml"), "config", ROOTS),
    (RunRequest(config="~root/run.yaml"), "config", ROOTS),
    (RelabelRequest(config="run.yaml", constitution="/etc/passwd"), "constitution", ROOTS),
    (run(constitution="../x.yaml"), "constitution", ROOTS),
    (run("constitution=/etc/hosts.yaml"), "constitution", ROOTS),
    (run("runs_dir=/var/runs"), "runs_dir", ROOTS),
    (run("runs_dir=link/runs"), "runs_dir", ROOTS),
    (run("models.base=/models/base"), "models.base", ROOTS),
    (run("models.critic=../model"), "models.critic", ROOTS),
    (run("prompts.rl.path=/etc/passwd"), "prompts.rl.path", ROOTS),
    (run("demonstrations.path=link/x.jsonl"), "demonstrations.path", ROOTS),
    (run("labels.templates=/etc/templates"), "labels.templates", ROOTS),
    (run("critique_revision.templates=link/t"), "critique_revision.templates", ROOTS),
    (run("exam.pairs=[/etc/passwd]"), "exam.pairs", ROOTS),
    (run("launcher.accelerate_config=/tmp/x.yaml"), "launcher.accelerate_config", ROOTS),
    (run("reward_model.human={path: /etc/passwd, share: 0.5}"), "reward_model.human.path", ROOTS),
    (run("labels.ledger=sqlite:////etc/ledger.db"), "labels.ledger", ROOTS),
    (run("labels.ledger=sqlite:///../ledger.db"), "labels.ledger", ROOTS),
    (run("labels.ledger=sqlite:///file:/etc/x?uri=true"), "labels.ledger", ROOTS),
    (
        run(
            "rl.reward.terms=[{kind: function, function: 'flows.labelling.reward:score', "
            "arguments: {settings: /etc/x}}]"
        ),
        "rl.reward.terms.arguments.settings",
        ROOTS,
    ),
    (exam(judge="/models/judge"), "judge", ROOTS),
    (exam(pairs=("ok.jsonl", "/etc/passwd")), "pairs", ROOTS),
    (exam(tokenizer="../tokenizer"), "tokenizer", ROOTS),
    (exam(templates="/t"), "templates", ROOTS),
    (exam(ledger="/var/ledger.db"), "ledger", ROOTS),
    (exam(page="../page.html"), "page", ROOTS),
    (compare("a", "/other/model"), "models", ROOTS),
    (compare("a", "../run:rl_cai"), "models", ROOTS),
    (compare("a", "link:rl_cai@1"), "models", ROOTS),
    (compare(prompts="/etc/passwd"), "prompts", ROOTS),
    (compare(folder="/var/comparisons"), "folder", ROOTS),
    (compare(before="/etc/c.yaml"), "before", ROOTS),
    (AuditRequest(reviewer="Ada", run="/elsewhere/run"), "run", ROOTS),
    # Endpoints, databases, clusters and buckets.
    (run(SERVED % "http://evil.example:80/v1"), "judge.endpoints", ENDPOINTS),
    (run(SERVED % "http://127.0.0.1.evil.example/v1"), "judge.endpoints", ENDPOINTS),
    (run(SERVED % "http://127.1/v1"), "judge.endpoints", ENDPOINTS),
    (run("rl.rollouts={kind: vllm, url: 'http://10.0.0.1:8000'}"), "rl.rollouts.url", ENDPOINTS),
    (run("labels.ledger=postgresql://me@db.example/x"), "labels.ledger", ENDPOINTS),
    (run("labels.ledger=postgresql:///x?host=db.example"), "labels.ledger", ENDPOINTS),
    (run("labels.ledger=postgresql://localhost,db.example/x"), "labels.ledger", ENDPOINTS),
    (run("runs_dir=s3://bucket/runs", "labels.ledger=sqlite:///l.db"), "runs_dir", ENDPOINTS),
    (run("runs_dir=file:///etc/runs", "labels.ledger=sqlite:///l.db"), "runs_dir", ENDPOINTS),
    (exam(judge="https://evil.example/v1"), "judge", ENDPOINTS),
    (exam(judge="http://127.0.0.1@evil.example/v1"), "judge", ENDPOINTS),
    (exam(judge="http://127.0.0.1\\@evil.example/v1"), "judge", ENDPOINTS),
    (exam(ledger="postgresql://db.example/x"), "ledger", ENDPOINTS),
    (compare(judge="http://169.254.169.254/latest"), "judge", ENDPOINTS),
    (AuditRequest(reviewer="Ada", run="postgresql://db.example/x"), "run", ENDPOINTS),
    # Keys and code.
    (
        run(SERVED % "http://localhost:1/v1", "judge.api_key_env=AWS_SECRET_ACCESS_KEY"),
        "judge.api_key_env",
        KEYS,
    ),
    (exam(api_key_env="PREFECT_API_AUTH_STRING"), "api_key_env", KEYS),
    (compare(api_key_env="HF_TOKEN"), "api_key_env", KEYS),
    (run(TERM % "os:system"), "rl.reward.terms.function", FUNCTIONS),
    (
        run("rl.reward.terms=[{kind: checker, function: 'subprocess:run'}]"),
        "rl.reward.terms.function",
        FUNCTIONS,
    ),
]


@pytest.mark.parametrize(("request_", "field", "setting"), OUTSIDE, ids=lambda x: str(x)[:60])
def test_what_lies_outside_is_refused_in_one_line(folder, request_, field, setting):
    with pytest.raises(FlowError) as refused:
        Fences.read({}, folder).check(request_)
    line = str(refused.value)
    assert line.startswith(f"{field}: ") and setting in line and "\n" not in line and "allowed: " in line


INSIDE = [
    run(),
    run("rl.steps=3", "seed=4", "name=other"),
    run("prompts.rl.path=prompts.jsonl", "runs_dir=elsewhere", "labels.ledger=sqlite:///runs/l.db"),
    run(SERVED % "http://127.0.0.1:8000/v1", "judge.api_key_env=CHARTER_KEY_JUDGE"),
    run("judge={kind: openai, model: /models/as-served, endpoints: ['http://[::1]:8000/v1']}"),
    run("labels.ledger=postgresql://me@localhost/x?sslmode=require"),
    run("rl.reward.terms=[{kind: regex, pattern: '/[a-z]+/'}]"),
    run(TERM % "flows.labelling.reward:score"),
    run(constitution="tiny.yaml"),
    run(constitution="microworld@^1"),
    exam(),
    exam(model="/models/as-served", judge="http://localhost:8000/v1"),
    compare("meta-llama/Llama-3.1-8B", "runs/tiny:rl_cai@1"),
    AuditRequest(reviewer="/Ada/"),
]


@pytest.mark.parametrize("request_", INSIDE, ids=lambda x: str(x)[:60])
def test_what_lies_inside_is_allowed(folder, request_):
    Fences.read({}, folder).check(request_)


WIDER = [
    ({ROOTS: "/data:/models"}, run("prompts.rl.path=/data/x.jsonl", "models.base=/models/base")),
    ({ENDPOINTS: "judge-1:8000"}, run(SERVED % "http://judge-1:8000/v1")),
    ({ENDPOINTS: "*.internal, s3://bucket"}, run(SERVED % "https://a.internal/v1")),
    ({ENDPOINTS: "s3://bucket"}, run("runs_dir=s3://bucket/x", "labels.ledger=sqlite:///l.db")),
    ({ENDPOINTS: "db.example"}, AuditRequest(reviewer="Ada", run="postgresql://me@db.example:5432/x")),
    ({KEYS: "OPENAI_API_KEY"}, exam(api_key_env="OPENAI_API_KEY")),
    ({FUNCTIONS: "mine.*:*"}, run(TERM % "mine.rewards:short")),
]


@pytest.mark.parametrize(("settings", "request_"), WIDER)
def test_each_setting_allows_more_and_only_that(folder, settings, request_):
    with pytest.raises(FlowError):
        Fences.read({}, folder).check(request_)
    Fences.read(settings, folder).check(request_)
    for other in {ROOTS, ENDPOINTS, KEYS, FUNCTIONS} - set(settings):
        with pytest.raises(FlowError):
            Fences.read({other: "/nowhere"}, folder).check(request_)


def test_a_file_under_the_roots_speaks_for_its_owner_and_changes_do_not(folder):
    values = yaml.safe_load(Path("run.yaml").read_text())
    values["judge"] = {
        "kind": "openai",
        "model": "m",
        "endpoints": ["http://judge-1/v1"],
        "api_key_env": "MY_KEY",
    }
    Path("run.yaml").write_text(yaml.safe_dump(values))
    fences = Fences.read({}, folder)
    fences.check(run("seed=2"))
    with pytest.raises(FlowError, match=r"judge\.endpoints: 'http://judge-2/v1'"):
        fences.check(run("judge.endpoints=[http://judge-1/v1, http://judge-2/v1]"))
    Path("outside.yaml").symlink_to(folder.parent / "outside" / "run.yaml")
    with pytest.raises(FlowError, match=r"^config: "):
        fences.check(RunRequest(config="outside.yaml"))


def test_every_place_of_a_configuration_is_looked_at(folder):
    """A field with a new kind of place must not slip through: all texts and paths are walked."""
    config = load_config(Path("run.yaml"))
    seen = {name for name, _ in leaves(config)}
    assert {
        "runs_dir",
        "constitution",
        "models.base",
        "judge.model",
        "prompts.sl.path",
        "labels.templates",
    } <= seen


def test_a_password_is_not_repeated(folder):
    with pytest.raises(FlowError) as refused:
        Fences.read({}, folder).check(AuditRequest(reviewer="Ada", run="postgresql://me:s3cret@db.example/x"))
    assert "s3cret" not in str(refused.value) and os.linesep not in str(refused.value)
