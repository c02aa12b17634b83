#!/bin/sh
# Remakes constraints.txt from what the newest allowed versions are, in a virtual environment of its own.
set -eu
cd "$(dirname "$0")/.."
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --upgrade pip
"$scratch/venv/bin/python" -m pip install --quiet '.[test,notebook]'
{
  echo '# What `make` installs, to the version: `pip install -c constraints.txt`. Tried on Python 3.11, 3.12 and 3.13.'
  echo '# Remade by `scripts/freeze_constraints.sh`.'
  "$scratch/venv/bin/python" -m pip freeze --exclude agentic-quantitative-framework | sort -f
} > constraints.txt
