"""Run every benchmark in turn: ``python -m benchmarks``."""

from __future__ import annotations

import sys

from benchmarks import backtest, command_line, demo, embeddings, features, pipeline, sanctions, store


def main() -> None:
    """Print each benchmark's figures."""
    sys.argv[1:] = []
    for part in (command_line, backtest, features, embeddings, sanctions, pipeline, store, demo):
        print(f"== {part.__name__} ==")
        part.main()
        print()


if __name__ == "__main__":
    main()
