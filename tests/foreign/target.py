"""HTTP/1.1 over TLS, as Python's standard library speaks it: what may stand behind a service.

    target.py CERT,KEY | CERT,KEY,CLIENT_CA | clear | unix:PATH ...

Serves each of them on a port of its own, or a socket in the file system, and prints the ports (or paths) in one line. `/echo` gives a body back; anything else is told
what came, and over which connection, as JSON.
"""

import http.server
import json
import socketserver
import ssl
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.asked = 0

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, body):
        self.asked += 1
        if self.path != "/echo":
            body = json.dumps(self.facts()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def facts(self):
        facts = {"path": self.path, "asked": self.asked, "fields": [[name.lower(), value] for name, value in self.headers.items()]}
        if isinstance(self.connection, ssl.SSLSocket):
            shown = self.connection.getpeercert() or {}
            facts["client"] = [value for _, value in shown.get("subjectAltName", ())]
            facts["alpn"] = self.connection.selected_alpn_protocol()
            facts["version"] = self.connection.version()
            facts["sni"] = getattr(self.connection, "asked_for", None)
        return facts

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that does not take the certificate is what tests want to see."""


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def note_name(connection, name, _):
    connection.asked_for = name


def server(files):
    if files.startswith("unix:"):
        path = files.removeprefix("unix:")
        threading.Thread(target=UnixServer(path, Handler).serve_forever).start()
        return path
    server = Server(("127.0.0.1", 0), Handler)
    if files != "clear":
        cert, key, *roots = files.split(",")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = note_name
        if roots:
            context.load_verify_locations(roots[0])
            context.verify_mode = ssl.CERT_REQUIRED
        # Not while accepting, where one client could keep all others waiting.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()
    return server.server_address[1]


print("ports", *[server(files) for files in sys.argv[1:]], flush=True)
