import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import MissingDataError, StoreUnavailableError
from core.store.artifacts import FileArtifactStore

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_address_is_the_hash_of_the_content(folder: Path) -> None:
    uri = FileArtifactStore(folder).save("feature-snapshots", b"abc", "npy")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert uri == f"artifact://feature-snapshots/{sha}.npy"
    assert (folder / "feature-snapshots" / "ba" / f"{sha}.npy").read_bytes() == b"abc"


@given(content=st.binary(max_size=2000))
def test_what_was_saved_is_loaded(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = FileArtifactStore(tmp_path_factory.getbasetemp() / "shared")
    assert store.load(store.save("model-artifacts", content, "bin")) == content


def test_the_same_content_is_one_file(folder: Path) -> None:
    store = FileArtifactStore(folder)
    assert store.save("model-artifacts", b"x", "bin") == store.save("model-artifacts", b"x", "bin")
    assert len(files(folder)) == 1


def test_a_changed_file_is_noticed(folder: Path) -> None:
    store = FileArtifactStore(folder)
    uri = store.save("model-artifacts", b"four", "bin")
    files(folder)[0].write_bytes(b"five")
    with pytest.raises(MissingDataError, match=r"was changed on disk: its content no longer has the hash in its name"):
        store.load(uri)


def test_saving_the_content_again_mends_a_changed_file(folder: Path) -> None:
    store = FileArtifactStore(folder)
    uri = store.save("model-artifacts", b"four", "bin")
    files(folder)[0].write_bytes(b"")
    assert store.save("model-artifacts", b"four", "bin") == uri
    assert store.load(uri) == b"four"


def test_an_absent_artifact_is_named(folder: Path) -> None:
    uri = f"artifact://model-artifacts/{hashlib.sha256(b'never').hexdigest()}.bin"
    with pytest.raises(MissingDataError, match=f"{uri} is not in"):
        FileArtifactStore(folder).load(uri)


SHA = "a" * 64


@pytest.mark.parametrize(
    "uri",
    [
        f"artifact://../{SHA}.bin",
        f"artifact://model-artifacts/../{SHA}.bin",
        f"artifact://model-artifacts/../../etc/{SHA}.bin",
        f"artifact:///{SHA}.bin",
        f"artifact://model-artifacts/{SHA}./../x",
        f"artifact://model-artifacts/{SHA}.bin/../../x",
        f"artifact://model-artifacts/{SHA}.bin\n",
        f"artifact://model-artifacts/{SHA.upper()}.bin",
        f"artifact://model-artifacts/{SHA[1:]}.bin",
        f"file:///b/{SHA}.bin",
        "/etc/passwd",
        "",
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(folder: Path, uri: str) -> None:
    with pytest.raises(MissingDataError, match=r"an artifact's address is artifact://bucket/<sha256>\.suffix"):
        FileArtifactStore(folder).load(uri)


@pytest.mark.parametrize(
    ("bucket", "suffix"),
    [
        ("..", "bin"),
        ("a/b", "bin"),
        ("", "bin"),
        ("model-artifacts", "../x"),
        ("model-artifacts", "a.b"),
        ("model-artifacts", ""),
        ("unknown", "bin"),
    ],
)
def test_a_bucket_or_suffix_that_leads_elsewhere_writes_nothing(folder: Path, bucket: str, suffix: str) -> None:
    with pytest.raises(MissingDataError, match="an artifact's address"):
        FileArtifactStore(folder).save(bucket, b"x", suffix)
    assert not folder.exists()


def test_an_interrupted_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        FileArtifactStore(folder).save("model-artifacts", b"x" * 100_000, "bin")
    assert files(folder) == []


def test_a_writer_that_was_killed_leaves_no_file_at_the_address(folder: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from core.store.artifacts import FileArtifactStore\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "FileArtifactStore(Path(sys.argv[1])).save('model-artifacts', b'x' * 100_000, 'bin')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    store = FileArtifactStore(folder)
    with pytest.raises(MissingDataError, match="is not in"):
        store.load(f"artifact://model-artifacts/{hashlib.sha256(b'x' * 100_000).hexdigest()}.bin")
    assert store.load(store.save("model-artifacts", b"x" * 100_000, "bin")) == b"x" * 100_000


def test_a_disk_without_room_is_named_with_the_remedy_and_leaves_nothing(folder: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from core.errors import StoreUnavailableError\n"
        "from core.store.artifacts import FileArtifactStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    FileArtifactStore(Path(sys.argv[1])).save('model-artifacts', b'x' * 100_000, 'bin')\n"
        "except StoreUnavailableError as error:\n    sys.stdout.write(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == f"the artifact folder {folder} cannot be written (File too large): free space or set AQF_HOME."
    assert files(folder) == []


def test_a_folder_below_a_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"file/artifacts cannot be written \(Not a directory\): free space"):
        FileArtifactStore(tmp_path / "file" / "artifacts").save("model-artifacts", b"x", "bin")
