"""A pool's master on loopback: XML-RPC and PUT /import over TLS, as far as a push sees them.

It knows what xapi documents of session, pool, SR, task and VM; an XVA is read by the importer of
xva_import.py, and a fault can be asked for.
"""

import ssl
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.xva_import import Refused, import_xva

NULL = "OpaqueRef:NULL"
SR = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"
SR_UUID = "aaaaaaaa-0000-4000-8000-000000000001"
VM = "OpaqueRef:00000000-0000-4000-8000-0000000000bb"
VM_UUID = "bbbbbbbb-0000-4000-8000-000000000001"
PASSWORD = "right"


@dataclass
class Stub:
    """What it does wrong, and what it was asked and given.

    `cuts_after` bytes of an import the connection ends; `ends_with` is a task's error; `master` is
    named by one that is none; `is_slow`: an import stays pending until it is cancelled; `holds` is
    a call that gets no answer for as long.
    """

    cuts_after: int = -1
    ends_with: list[str] = field(default_factory=list)
    master: str = ""
    is_slow: bool = False
    holds: str = ""
    has_default: bool = True
    calls: list[str] = field(default_factory=list)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    disks: dict[str, bytes] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    is_receiving: threading.Event = field(default_factory=threading.Event)
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def call(self, method: str, params: tuple[Any, ...]) -> dict[str, Any]:
        """What XML-RPC answers."""
        self.calls.append(method)
        if method == self.holds:
            self.is_receiving.set()
            self.is_cancelled.wait(60)
        if method.startswith("session.login"):
            if self.master:
                return _failure("HOST_IS_SLAVE", self.master)
            if params[:2] != ("root", PASSWORD):
                return _failure("SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure")
            return _success("OpaqueRef:session")
        return getattr(self, f"xapi_{method.lower().replace('.', '_')}")(*params[1:])  # type: ignore[no-any-return]

    def xapi_session_logout(self) -> dict[str, Any]:
        return _success("")

    def xapi_pool_get_all(self) -> dict[str, Any]:
        return _success(["OpaqueRef:pool"])

    def xapi_pool_get_default_sr(self, _pool: str) -> dict[str, Any]:
        return _success(SR if self.has_default else NULL)

    def xapi_sr_get_by_name_label(self, name: str) -> dict[str, Any]:
        return _success({"Local storage": [SR], "twice": [SR, SR]}.get(name, []))

    def xapi_sr_get_by_uuid(self, uuid: str) -> dict[str, Any]:
        return _success(SR) if uuid == SR_UUID else _failure("UUID_INVALID", "SR", uuid)

    def xapi_task_create(self, label: str, _description: str) -> dict[str, Any]:
        ref = f"OpaqueRef:task{len(self.tasks)}"
        self.tasks[ref] = {"name_label": label, "status": "pending", "error_info": [], "result": ""}
        return _success(ref)

    def xapi_task_get_record(self, ref: str) -> dict[str, Any]:
        return _success(self.tasks[ref])

    def xapi_task_get_status(self, ref: str) -> dict[str, Any]:
        return _success(self.tasks[ref]["status"])

    def xapi_task_cancel(self, ref: str) -> dict[str, Any]:
        self.tasks[ref] |= {"status": "cancelled", "error_info": ["TASK_CANCELLED", ref]}
        self.machine, self.disks = {}, {}
        self.is_cancelled.set()
        return _success("")

    def xapi_task_destroy(self, ref: str) -> dict[str, Any]:
        self.tasks[ref]["destroyed"] = True
        return _success("")

    def xapi_vm_get_record(self, _ref: str) -> dict[str, Any]:
        return _success({"uuid": VM_UUID, "name_label": self.machine["name_label"]})

    def receive(self, query: dict[str, list[str]], content: bytes) -> None:
        """What an import's task ends with."""
        task = self.tasks[query["task_id"][0]]
        assert query["session_id"] == ["OpaqueRef:session"]
        assert query["sr_id"] == [SR]
        if self.is_slow:
            return
        if self.ends_with:
            task |= {"status": "failure", "error_info": self.ends_with}
            return
        try:
            imported = import_xva(content)
        except Refused as refused:
            task |= {"status": "failure", "error_info": ["IMPORT_ERROR", str(refused)]}
            return
        self.machine, self.disks = imported.machine, imported.disks
        result = f"<value><array><data><value>{VM}</value></data></array></value>"
        task |= {"status": "success", "result": result}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def answer_call(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not body:  # who asks was interrupted
            self.close_connection = True
            return
        params, method = xmlrpc.client.loads(body)
        answer = xmlrpc.client.dumps((self.stub.call(str(method), params),), methodresponse=True)
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer.encode())))
        self.end_headers()
        self.wfile.write(answer.encode())

    def take_import(self) -> None:
        self.close_connection = True
        asked = urlparse(self.path)
        assert asked.path == "/import"
        query, length = parse_qs(asked.query), int(self.headers["Content-Length"])
        # xapi answers before it reads
        self.send_response(200)
        self.end_headers()
        if not self.stub.holds:
            self.stub.is_receiving.set()
        if 0 <= self.stub.cuts_after < length:
            self.rfile.read(self.stub.cuts_after)
            self.stub.receive(query, b"")
            self.connection.close()
            return
        self.stub.receive(query, self.rfile.read(length))

    def log_message(self, *_words: object) -> None:
        """Nothing."""


@contextmanager
def serving(stub: Stub, context: ssl.SSLContext) -> Iterator[Stub]:
    """Serve on a port of loopback, over TLS."""
    methods = {"do_POST": _Handler.answer_call, "do_PUT": _Handler.take_import}
    handler = type("Handler", (_Handler,), {"stub": stub, **methods})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _success(value: object) -> dict[str, Any]:
    return {"Status": "Success", "Value": value}


def _failure(*words: str) -> dict[str, Any]:
    return {"Status": "Failure", "ErrorDescription": list(words)}
