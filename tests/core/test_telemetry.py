"""Where a process tells of its work: nowhere unless asked, then a file or a collector; each case in a process of its own."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from core import telemetry
from core.errors import ConfigurationError
from core.settings import Settings
from core.telemetry import JsonFormatter, configure_telemetry, current_run_id, current_trace_id, run_scope, span

ROOT = Path(__file__).resolve().parents[2]
WORK = """
import logging
from core.settings import Settings
from core.telemetry import configure_telemetry, run_scope, span
for _ in range(2):
    configure_telemetry(Settings.load())
with run_scope("run-1"):
    with span("work", attributes={"what": "it"}):
        logging.getLogger("core.anything").info("half of %d", 2, extra={"rows": 7})
"""


def run(script: str, **variables: object) -> str:
    """Run a script in a process of its own and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process exports to is forgotten afterwards."""
    monkeypatch.setattr(telemetry, "_exports", telemetry._Exports())


def test_without_a_place_nothing_is_set_up_and_a_span_is_a_no_op(fresh: None, tmp_path: Path) -> None:
    before = trace.get_tracer_provider()
    configure_telemetry(Settings(home=tmp_path))
    assert trace.get_tracer_provider() is before
    with run_scope("run-1"), span("work") as made:
        assert not made.is_recording()
        assert (current_run_id(), current_trace_id()) == ("run-1", None)
    assert current_run_id() is None


def test_a_place_that_is_not_asked_for_costs_no_import_of_the_sdk(tmp_path: Path) -> None:
    printed = run(
        f"import sys\n{WORK}\nprint([name for name in sys.modules if 'opentelemetry.sdk' in name])", AQF_HOME=tmp_path
    )
    assert printed == "[]\n"


def test_a_trace_file_has_a_line_of_json_for_each_span_once(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "trace.jsonl"
    for times in (1, 2):
        run(WORK, AQF_HOME=tmp_path, AQF_TRACE_FILE=path)
        assert [line["name"] for line in lines(path)] == ["work", "run"] * times
    work, whole = lines(path)[:2]
    assert work["attributes"].pop("aqf.milliseconds") >= 0.0
    assert work["attributes"] == {"what": "it", "aqf.run_id": "run-1"}
    assert work["parent_id"] == whole["context"]["span_id"]
    assert work["resource"]["attributes"]["service.name"] == "aqf"


def test_the_name_of_the_service_is_the_users_to_choose(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    run(WORK, AQF_HOME=tmp_path, AQF_TRACE_FILE=path, OTEL_SERVICE_NAME="desk")
    assert lines(path)[0]["resource"]["attributes"]["service.name"] == "desk"


def test_an_open_store_tells_into_the_file(database: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    script = (
        "from core.settings import Settings\nfrom core.store.opening import open_store\n"
        "with open_store(Settings.load()) as store: store.service.list_datasets()"
    )
    run(script, AQF_HOME=tmp_path, AQF_DATABASE_URL=database, AQF_TRACE_FILE=path)
    (line,) = lines(path)
    assert line["name"] == "select datasets"
    assert line["attributes"]["db.response.returned_rows"] == 0


def test_a_log_file_has_a_line_of_json_with_run_and_trace(tmp_path: Path) -> None:
    log, spans = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
    run(WORK, AQF_HOME=tmp_path, AQF_LOG_FILE=log, AQF_TRACE_FILE=spans)
    (line,) = lines(log)
    assert line.pop("time").endswith("+00:00")
    trace_id = lines(spans)[0]["context"]["trace_id"].removeprefix("0x")
    assert line == {
        "level": "info",
        "logger": "core.anything",
        "message": "half of 2",
        "run_id": "run-1",
        "trace_id": trace_id,
        "rows": 7,
    }


def test_a_log_line_carries_the_error_it_tells_of() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["run_id"]) == ("error", None)
    assert line["exception"].endswith("ValueError: no")


def test_an_application_that_traces_already_gets_our_spans_and_keeps_its_own_exporter(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    theirs = (
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "mine = InMemorySpanExporter()\nprovider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(mine))\ntrace.set_tracer_provider(provider)\n"
    )
    check = "assert trace.get_tracer_provider() is provider\nprint([done.name for done in mine.get_finished_spans()])"
    # Nobody listens at that address: an exporter of ours would complain about it.
    unused = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert run(theirs + WORK + check, AQF_HOME=tmp_path, AQF_TRACE_FILE=path, **unused) == "['work', 'run']\n"
    assert [line["name"] for line in lines(path)] == ["work", "run"]


# Collectors


class Collector:
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.services: set[str] = set()

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            self.services |= {item.value.string_value for item in resource.resource.attributes if item.key == "service.name"}
            self.names += [made.name for scope in resource.scope_spans for made in scope.spans]


@contextmanager
def http_collector(collector: Collector) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpc_collector(collector: Collector) -> Iterator[str]:
    grpc = pytest.importorskip("grpc")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
        TraceServiceServicer,
        add_TraceServiceServicer_to_server,
    )

    class Service(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("protocol", "package", "serve"),
    [
        ("http/protobuf", "opentelemetry.exporter.otlp.proto.http.trace_exporter", http_collector),
        ("grpc", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", grpc_collector),
    ],
    ids=["http", "grpc"],
)
def test_a_collector_is_sent_every_span_before_the_process_ends(
    tmp_path: Path, protocol: str, package: str, serve: Any
) -> None:
    pytest.importorskip(package)
    collector = Collector()
    with serve(collector) as endpoint:
        run(WORK, AQF_HOME=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert (collector.names, collector.services) == (["work", "run"], {"aqf"})


# Settings that cannot be used


def test_without_the_sdk_a_trace_file_says_what_to_install(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigurationError, match=r"AQF_TRACE_FILE needs OpenTelemetry's SDK: pip install '.*\[telemetry\]'"):
        configure_telemetry(Settings(home=tmp_path, trace_file=tmp_path / "trace.jsonl"))
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT needs .*\[telemetry\]"):
        configure_telemetry(Settings(home=tmp_path, otlp_endpoint="http://127.0.0.1:9"))


def test_without_the_exporter_an_endpoint_says_what_to_install(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"its exporter for grpc .*set OTEL_EXPORTER_OTLP_PROTOCOL to what"):
        configure_telemetry(Settings(home=tmp_path, otlp_endpoint="http://127.0.0.1:9", otlp_protocol="grpc"))


@pytest.mark.parametrize(("variable", "name"), [("trace_file", "AQF_TRACE_FILE"), ("log_file", "AQF_LOG_FILE")])
def test_a_file_that_cannot_be_written_is_named_by_its_setting(fresh: None, tmp_path: Path, variable: str, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"{name} cannot be written: "):
        configure_telemetry(Settings(home=tmp_path, **{variable: tmp_path / "file" / "x"}))


def test_a_protocol_that_we_do_not_speak_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL: .*'http/protobuf' or 'grpc'"):
        Settings.load()


def test_the_places_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AQF_TRACE_FILE", "trace.jsonl")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    settings = Settings.load()
    assert (settings.trace_file, settings.log_file) == (tmp_path / "trace.jsonl", None)
    assert (settings.otlp_endpoint, settings.otlp_protocol) == ("http://127.0.0.1:4318", "http/protobuf")
