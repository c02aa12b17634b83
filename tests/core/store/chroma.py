"""Whether the knowledge base in a folder can be tested here."""

import importlib.util
import os

import pytest


def need_chroma() -> None:
    """Skip the test without Chroma, which is an extra; in continuous integration it fails."""
    if importlib.util.find_spec("chromadb") is None:
        reason = "chromadb is not installed: the knowledge base in a folder was not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
