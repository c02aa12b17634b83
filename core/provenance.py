"""Provenance: what a result was made from, as hashes that are equal on every machine.

Hides how values are written down before they are hashed. Promises that equal values have equal hashes whatever the order of
their keys, and that a row cannot be changed without breaking the chain behind it.
"""

import functools
import hashlib
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from core.errors import DataError

GENESIS_HASH = "0" * 64
"""What the first row of a hash chain follows."""

_DISTRIBUTION = "agentic-quantitative-framework"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def canonical_json(value: Any) -> str:
    """Write a value as JSON in the one form that is hashed.

    Parameters
    ----------
    value : Any
        Nested dicts with text keys, lists or tuples, text, whole numbers, floats, booleans and None.

    Returns
    -------
    str
        Keys sorted by code point, no whitespace, floats in their shortest form that reads back the same, text unescaped.

    Raises
    ------
    DataError
        If a float is NaN or infinite, a key is not text, a text is not valid Unicode, or a value is of another type.

    Notes
    -----
    ``1`` and ``1.0`` are different values and have different hashes: convert before, where they should be equal.
    """
    _check_keys(value, "value")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"cannot write as canonical JSON: a text holds half a surrogate pair at {error.start}; repair it first."
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot write as canonical JSON: {error}; use finite, plain Python values.") from error
    return text


def _check_keys(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DataError(f"`{path}` must have text keys, was {key!r} ({type(key).__name__}); convert the key to text.")
            _check_keys(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check_keys(item, f"{path}[{place}]")


def sha256_of(value: Any) -> str:
    """Return the SHA-256 of ``canonical_json(value)`` in UTF-8, as 64 hexadecimal digits.

    Raises
    ------
    DataError
        If `value` cannot be written as canonical JSON.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def chain_hash(prev_hash: str | None, payload: Any) -> str:
    """Return the hash of a row that follows `prev_hash` in an append-only chain.

    Parameters
    ----------
    prev_hash : str or None
        Hash of the row before, 64 hexadecimal digits; None for the first row, which follows `GENESIS_HASH`.
    payload : Any
        Content of the row, as for `canonical_json`.

    Returns
    -------
    str
        SHA-256 of ``prev_hash`` immediately followed by the canonical JSON, in UTF-8.

    Raises
    ------
    DataError
        If `prev_hash` is not a hash or `payload` cannot be written as canonical JSON.
    """
    before = GENESIS_HASH if prev_hash is None else prev_hash
    if not _SHA256.fullmatch(before):
        raise DataError(f"`prev_hash` must be 64 lower-case hexadecimal digits or None, was {before!r}.")
    return hashlib.sha256((before + canonical_json(payload)).encode()).hexdigest()


@functools.cache
def code_version(root: Path | None = None) -> str:
    """Return the version of the running code, with the commit when it runs from a git checkout.

    Parameters
    ----------
    root : Path, optional
        Folder that holds the packages; that of this package by default.

    Returns
    -------
    str
        ``0.1.0`` or, in a checkout, ``0.1.0+g`` and twelve digits of the commit. ``0+unknown`` when neither a
        ``pyproject.toml`` nor an installed distribution says.

    Notes
    -----
    Changes that are not committed do not show. The answer is kept for the life of the process, like the code it describes.
    """
    folder = Path(__file__).resolve().parents[1] if root is None else root
    commit = _git_commit(folder / ".git")
    return _package_version(folder) + (f"+g{commit[:12]}" if commit else "")


def _package_version(folder: Path) -> str:
    project = folder / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if table.get("name") == _DISTRIBUTION:
            return str(table["version"])
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _git_commit(git: Path) -> str | None:
    if git.is_file():
        # A linked worktree: `.git` is a file that names the folder with its HEAD.
        git = (git.parent / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
    head = git / "HEAD"
    if not head.is_file():
        return None
    text = head.read_text(encoding="utf-8").strip()
    if not text.startswith("ref:"):
        return text if _COMMIT.fullmatch(text) else None
    reference = text.removeprefix("ref:").strip()
    shared = git / "commondir"
    common = (git / shared.read_text(encoding="utf-8").strip()).resolve() if shared.is_file() else git
    if (common / reference).is_file():
        return (common / reference).read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), None)
