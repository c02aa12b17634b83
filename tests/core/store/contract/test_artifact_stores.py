"""What every artifact store promises: files on disk, and Supabase Storage on a server that speaks its wire format."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from core.errors import MissingDataError, StoreError, StoreUnavailableError
from core.store import artifacts as artifacts_module
from core.store import storage as storage_module
from core.store.artifacts import BUCKETS, ArtifactStore, FileArtifactStore
from core.store.links import LinkSigner, answer
from core.store.storage import SupabaseArtifactStore
from tests.core.store.contract.loopback_storage import KEY, Storage, serve

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
Kept = tuple[ArtifactStore, Callable[[str], bytes | None], Callable[[bytes], None]]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(storage_module, "_BACKOFF_SECONDS", 0.001)
    with serve() as storage:
        yield storage


@pytest.fixture
def remote_store(remote: Storage) -> Iterator[SupabaseArtifactStore]:
    store = SupabaseArtifactStore(remote.url, KEY)
    yield store
    store.close()


@pytest.fixture(params=["disk", "storage"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """A store, how its links are opened, and a way to change everything in it."""
    if request.param == "disk":
        links = LinkSigner(tmp_path / "key")
        store = FileArtifactStore(tmp_path / "artifacts", links)

        def open_link(link: str) -> bytes | None:
            done = answer("GET", link, links=links, artifacts=store)
            return done.body if done.status == 200 else None

        def change(content: bytes) -> None:
            for path in (tmp_path / "artifacts").rglob("*.*"):
                path.write_bytes(content)

        return store, open_link, change
    remote: Storage = request.getfixturevalue("remote")
    store_over_http: SupabaseArtifactStore = request.getfixturevalue("remote_store")

    def open_over_http(link: str) -> bytes | None:
        done = httpx.get(link)
        return done.content if done.status_code == 200 else None

    return store_over_http, open_over_http, lambda content: remote.files.update(dict.fromkeys(remote.files, content))


@pytest.mark.parametrize("bucket", BUCKETS)
def test_what_was_saved_is_loaded_by_the_hash_of_its_content(kept: Kept, bucket: str) -> None:
    store = kept[0]
    assert isinstance(store, ArtifactStore)
    uri = store.save(bucket, b"abc", "npz")
    assert uri == f"artifact://{bucket}/{ABC}.npz"
    assert store.load(uri) == b"abc"
    assert store.has(uri)
    assert store.save(bucket, b"abc", "npz") == uri
    everything = bytes(range(256)) * 5
    assert store.load(store.save(bucket, everything, "bin")) == everything
    assert store.load(store.save(bucket, b"", "bin")) == b""


def test_what_is_not_there_is_named(kept: Kept) -> None:
    store = kept[0]
    uri = f"artifact://model-artifacts/{ABC}.bin"
    assert not store.has(uri)
    for ask in (lambda: store.load(uri), lambda: store.link(uri, seconds=60)):
        with pytest.raises(MissingDataError, match=f"the artifact {uri} is not in"):
            ask()


def test_what_was_changed_is_noticed_and_mended_by_saving_again(kept: Kept) -> None:
    store, _, change = kept
    uri = store.save("model-artifacts", b"abc", "bin")
    change(b"abd")
    with pytest.raises(MissingDataError, match="its content no longer has the hash in its name"):
        store.load(uri)
    assert store.save("model-artifacts", b"abc", "bin") == uri
    assert store.load(uri) == b"abc"


@pytest.mark.parametrize("bucket", ["unknown", "..", "model-artifacts/..", ""])
def test_there_are_two_buckets(kept: Kept, bucket: str) -> None:
    with pytest.raises(MissingDataError, match="a bucket of feature-snapshots, model-artifacts"):
        kept[0].save(bucket, b"abc", "bin")


@pytest.mark.parametrize("uri", [f"artifact://model-artifacts/../{ABC}.bin", f"artifact://model-artifacts/{ABC}.bin/../x", "x"])
def test_an_address_that_leads_elsewhere_is_refused_by_every_verb(kept: Kept, uri: str) -> None:
    store = kept[0]
    for ask in (lambda: store.load(uri), lambda: store.has(uri), lambda: store.link(uri, seconds=60)):
        with pytest.raises(MissingDataError, match="an artifact's address is artifact://bucket"):
            ask()


def test_an_artifact_over_the_limit_is_refused_before_it_is_sent(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts_module, "MAX_BYTES", 10)
    store = kept[0]
    assert store.load(store.save("model-artifacts", b"x" * 10, "bin")) == b"x" * 10
    with pytest.raises(StoreError, match="an artifact must have at most 10 bytes, has 11: save it in parts"):
        store.save("model-artifacts", b"x" * 11, "bin")


def test_a_link_opens_its_artifact_and_nothing_else(kept: Kept) -> None:
    store, open_link, _ = kept
    uri = store.save("model-artifacts", b"abc", "bin")
    other = store.save("model-artifacts", b"other", "bin")
    link = store.link(uri, seconds=60)
    assert open_link(link) == b"abc"
    sha = other.rpartition("/")[2].removesuffix(".bin")
    assert open_link(link.replace(ABC, sha).replace(f"/{ABC[:2]}/", f"/{sha[:2]}/")) is None


# What only Storage has


def test_a_wrong_key_is_named(remote: Storage) -> None:
    store = SupabaseArtifactStore(remote.url, "sb_secret_hunter2")
    with pytest.raises(StoreUnavailableError, match="refuses SUPABASE_SERVICE_ROLE_KEY") as refusal:
        store.save("model-artifacts", b"abc", "bin")
    assert "hunter2" not in str(refusal.value)
    assert remote.files == {}
    store.close()


def test_a_project_without_the_bucket_is_told_what_to_do(remote: Storage, remote_store: SupabaseArtifactStore) -> None:
    remote.buckets.clear()
    with pytest.raises(StoreError, match=r"has no bucket model-artifacts .* apply supabase/migrations"):
        remote_store.save("model-artifacts", b"abc", "bin")


def test_a_bucket_with_a_smaller_limit_says_so(remote: Storage, remote_store: SupabaseArtifactStore) -> None:
    remote.limit = 2
    with pytest.raises(StoreError, match="is larger than the bucket allows"):
        remote_store.save("model-artifacts", b"abc", "bin")


@pytest.mark.parametrize("trouble", ["failures", "hang_ups"])
def test_a_busy_storage_is_asked_again_and_then_given_up(
    remote: Storage, remote_store: SupabaseArtifactStore, trouble: str
) -> None:
    setattr(remote, trouble, 2)
    assert remote_store.load(remote_store.save("model-artifacts", b"abc", "bin")) == b"abc"
    assert len(remote.requests) == 4
    setattr(remote, trouble, 4)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        remote_store.save("model-artifacts", b"abc", "bin")
    assert getattr(remote, trouble) == 0


def test_a_storage_that_is_not_there_is_named(remote: Storage) -> None:
    store = SupabaseArtifactStore("http://127.0.0.1:1", KEY)
    with pytest.raises(StoreUnavailableError, match=r"the artifact storage of http://127.0.0.1:1 cannot be reached"):
        store.load(f"artifact://model-artifacts/{ABC}.bin")
    store.close()
