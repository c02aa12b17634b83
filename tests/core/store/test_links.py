import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from core.clock import FixedClock
from core.errors import ConfigurationError, StoreUnavailableError
from core.settings import Settings
from core.store.artifacts import FileArtifactStore
from core.store.links import PREFIX, LinkSigner, answer
from core.store.opening import Store, open_store

NAME = f"model-artifacts/{'a' * 64}.bin"
START = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def links(tmp_path: Path, clock: FixedClock) -> LinkSigner:
    return LinkSigner(tmp_path / "key", clock)


def test_a_link_is_good_until_the_second_it_names(links: LinkSigner, clock: FixedClock) -> None:
    link = links.sign(NAME, seconds=60)
    assert link.startswith(f"{PREFIX}{NAME}?expires={int(START.timestamp()) + 60}&signature=")
    assert links.check(link) == NAME
    clock.advance(timedelta(seconds=59))
    assert links.check(link) == NAME
    clock.advance(timedelta(seconds=1))
    assert links.check(link) is None


def test_nothing_about_a_link_can_be_changed(links: LinkSigner) -> None:
    link = links.sign(NAME, seconds=60)
    expires = str(int(START.timestamp()) + 60)
    for changed in (
        link.replace("a" * 64, "a" * 63 + "b"),
        link.replace("model-artifacts", "feature-snapshots"),
        link.replace(expires, str(int(expires) + 1)),
        link.replace(expires, f"0{expires}"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link[:-1],
        link.split("&")[0],
        link.split("?")[0],
        link + "&expires=9999999999",
        link + f"&signature={'0' * 64}",
        link.replace(PREFIX, "/other/"),
        link.replace("signature=", "signature=é"),
        "",
    ):
        assert links.check(changed) is None, changed


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "deep" / "key"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: LinkSigner(path, clock).sign(NAME, seconds=60), range(16)))
    assert len(made) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert list(path.parent.iterdir()) == [path]
    assert LinkSigner(tmp_path / "other", clock).check(made.pop()) is None


def test_a_key_that_others_may_read_is_not_used(links: LinkSigner, tmp_path: Path) -> None:
    links.sign(NAME, seconds=60)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"others may read the key .*`chmod 600`"):
        links.sign(NAME, seconds=60)


def test_a_key_that_was_cut_is_not_used(links: LinkSigner, tmp_path: Path) -> None:
    links.sign(NAME, seconds=60)
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="must have 32 bytes"):
        links.check(f"{PREFIX}{NAME}?expires=1&signature=")


def test_a_key_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path, clock: FixedClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"cannot be used .*set AQF_HOME"):
        LinkSigner(tmp_path / "file" / "key", clock).sign(NAME, seconds=60)


@pytest.mark.parametrize("seconds", [0, -1, 7 * 24 * 3600 + 1])
def test_a_link_without_an_end_is_refused(links: LinkSigner, seconds: int) -> None:
    with pytest.raises(ConfigurationError, match=f"`seconds` must be in 1..604800, was {seconds}"):
        links.sign(NAME, seconds=seconds)


def test_a_store_without_a_signer_signs_nothing(tmp_path: Path) -> None:
    store = FileArtifactStore(tmp_path)
    with pytest.raises(ConfigurationError, match="signs no links"):
        store.link(store.save("model-artifacts", b"x", "bin"), seconds=60)


def test_an_app_serves_links_over_http(links: LinkSigner, clock: FixedClock, tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path / "artifacts", links)

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            done = answer(self.command, self.path, links=links, artifacts=artifacts)
            self.send_response(done.status)
            for name, value in done.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(done.body)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        link = artifacts.link(artifacts.save("model-artifacts", b"abc", "bin"), seconds=60)
        done = httpx.get(base + link)
        assert (done.status_code, done.content) == (200, b"abc")
        assert done.headers["content-disposition"].startswith('attachment; filename="ba7816bf')
        assert done.headers["x-content-type-options"] == "nosniff"
        assert httpx.head(base + link).headers["content-length"] == "3"
        assert httpx.post(base + link).status_code == 405
        for path in ("/artifacts/../key", "/artifacts/%2e%2e/key", "/artifacts/model-artifacts/x", "/", "/artifacts/"):
            assert httpx.get(base + path).status_code == 403
        for file in (tmp_path / "artifacts").rglob("*.bin"):
            file.unlink()
        assert httpx.get(base + link).status_code == 404
        clock.advance(timedelta(hours=1))
        assert httpx.get(base + link).status_code == 403
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_an_open_store_signs_links_with_the_key_of_its_home(store: Store, database: str, tmp_path: Path) -> None:
    link = store.artifacts.link(store.artifacts.save("model-artifacts", b"abc", "bin"), seconds=60)
    assert answer("GET", link, links=store.links, artifacts=store.artifacts).body == b"abc"
    assert stat.S_IMODE((tmp_path / "artifact-links.key").stat().st_mode) == 0o600
    with open_store(Settings(home=tmp_path, database_url=database)) as again:
        assert again.links.check(link) is not None
