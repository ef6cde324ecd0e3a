#!/usr/bin/env bash
# One stage by LLaMA-Factory, in its own environment:
#   cptbench run --suite cpt7 --trainer "cmd:bash examples/llamafactory/train.sh {stage}"
# LLAMAFACTORY names its command line (default: llamafactory-cli on the PATH).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" "$here/convert.py" "$1" "$work"
"${LLAMAFACTORY:-llamafactory-cli}" train "$work/train.yaml"
