import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import provenance
from core.errors import DataError
from core.provenance import GENESIS_HASH, canonical_json, chain_hash, code_version, sha256_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_canonical_json_sorts_keys_and_leaves_no_space() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": {"z": True, "y": "ü"}}) == '{"a":{"y":"ü","z":true},"b":[1,2.5,null]}'


def test_canonical_json_writes_floats_in_their_shortest_form() -> None:
    assert canonical_json([0.1, 1e-5, 1e22, 1 / 3]) == "[0.1,1e-05,1e+22,0.3333333333333333]"


@given(json_values)
def test_canonical_json_reads_back_as_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_change_the_hash(value: dict[str, object]) -> None:
    assert sha256_of(dict(reversed(value.items()))) == sha256_of(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_canonical_json_refuses_numbers_that_json_does_not_have(number: float) -> None:
    with pytest.raises(DataError, match=r"cannot write as canonical JSON: .*not JSON compliant"):
        canonical_json({"a": [number]})


def test_canonical_json_refuses_a_key_that_is_not_text_and_says_where() -> None:
    with pytest.raises(DataError, match=r"`value\.a\[1\]` must have text keys, was 2 \(int\)"):
        canonical_json({"a": [0, {2: "x"}]})


def test_canonical_json_refuses_types_it_does_not_know() -> None:
    with pytest.raises(DataError, match="set is not JSON serializable"):
        canonical_json({1, 2})


def test_canonical_json_refuses_half_a_surrogate_pair() -> None:
    with pytest.raises(DataError, match="half a surrogate pair"):
        canonical_json("\ud800")


def test_sha256_of_is_the_hash_of_the_canonical_text() -> None:
    assert sha256_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert sha256_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_a_chain_starts_at_the_genesis_hash() -> None:
    assert chain_hash(None, {"a": 1}) == chain_hash(GENESIS_HASH, {"a": 1})
    assert chain_hash(None, {"a": 1}) == hashlib.sha256(b"0" * 64 + b'{"a":1}').hexdigest()


def test_a_changed_row_changes_every_hash_behind_it() -> None:
    def last(rows: list[dict[str, int]]) -> str:
        before: str | None = None
        for row in rows:
            before = chain_hash(before, row)
        assert before is not None
        return before

    rows = [{"n": 1}, {"n": 2}, {"n": 3}]
    assert last(rows) == last([dict(row) for row in rows])
    assert last(rows) != last([{"n": 9}, *rows[1:]])
    assert last(rows) != last([rows[1], rows[0], rows[2]])


@pytest.mark.parametrize("hash_", ["", "abc", "A" * 64, "g" * 64])
def test_a_chain_refuses_what_is_not_a_hash(hash_: str) -> None:
    with pytest.raises(DataError, match="`prev_hash` must be 64 lower-case hexadecimal digits"):
        chain_hash(hash_, {})


def checkout(folder: Path, head: str, **files: str) -> Path:
    (folder / "pyproject.toml").write_text('[project]\nname = "agentic-quantitative-framework"\nversion = "1.2.3"\n')
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text(head)
    for name, text in files.items():
        place = folder / ".git" / name.replace("__", "/").replace("_", "-")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def test_code_version_names_the_commit_of_a_branch(tmp_path: Path) -> None:
    root = checkout(tmp_path, "ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")
    assert code_version(root) == "1.2.3+g0123456789ab"


def test_code_version_names_a_detached_commit(tmp_path: Path) -> None:
    assert code_version(checkout(tmp_path, f"{COMMIT}\n")) == "1.2.3+g0123456789ab"


def test_code_version_finds_a_packed_branch(tmp_path: Path) -> None:
    packed = f"# pack-refs with: peeled\n{'f' * 40} refs/heads/other/main\n{COMMIT} refs/heads/main\n"
    root = checkout(tmp_path, "ref: refs/heads/main\n", packed_refs=packed)
    assert code_version(root) == "1.2.3+g0123456789ab"


def test_code_version_follows_a_linked_worktree(tmp_path: Path) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    main.mkdir()
    checkout(main, "ref: refs/heads/main\n", refs__heads__topic=COMMIT)
    worktree = main / ".git" / "worktrees" / "linked"
    worktree.mkdir(parents=True)
    (worktree / "HEAD").write_text("ref: refs/heads/topic\n")
    (worktree / "commondir").write_text("../..\n")
    linked.mkdir()
    (linked / ".git").write_text("gitdir: ../main/.git/worktrees/linked\n")
    (linked / "pyproject.toml").write_text((main / "pyproject.toml").read_text())
    assert code_version(linked) == "1.2.3+g0123456789ab"


def test_code_version_of_a_repository_without_a_commit_is_the_version_alone(tmp_path: Path) -> None:
    assert code_version(checkout(tmp_path, "ref: refs/heads/main\n")) == "1.2.3"


def test_code_version_ignores_the_project_file_of_someone_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    monkeypatch.setattr(provenance, "_DISTRIBUTION", "a-distribution-that-nobody-has-installed")
    assert code_version(tmp_path) == "0+unknown"


def test_code_version_of_this_code_starts_with_the_version_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert code_version().split("+")[0] == project["version"]
