"""What the initiator serves. Any path not in this table is an echo: a line with method and path, then the body.

| path | answer |
|---|---|
| `/info` | 103 with a `link` before the echo |
| `/trailers` | trailers after the echo |
| `/later` | the line alone, half a second late |
| `/hang` | none |
| `/cut` | promises 1000 bytes and breaks off after 500 |
"""

LATE = 0.5  # seconds
INFO = {"event": "info", "status": 103, "fields": [["link", "</style.css>; rel=preload"]]}
TRAILERS = {"event": "trailers", "fields": [["x-echo", "done"], ["grpc-status", "0"]]}
END = {"event": "end"}


def head(status, *fields, end=False):
    return {"event": "response", "status": status, "fields": [list(field) for field in fields], "end": end}


class Answer:
    """Answers one exchange, which has `send(*events)`, `abandon(code)` and `after(seconds, callback)`."""

    def __init__(self, exchange, services):
        self.exchange = exchange
        self.services = services
        self.is_echo = False

    def on_event(self, event):
        """The next part of the request."""
        if event["event"] == "request":
            self.request = event
            self.path = event["path"].split("?")[0]
            self.begin()
        elif self.is_echo and event["event"] == "data":
            self.exchange.send(event)
        if self.is_echo and (event["event"] == "end" or event.get("end")):
            self.finish()

    def begin(self):
        method, service = self.request["method"], self.request.get("service")
        if service is not None and service not in self.services:
            self.exchange.send(head(404, end=True))  # ST-14
        elif method == "CONNECT":
            self.exchange.send(head(501, end=True))  # ST-25
        elif method == "HEAD":
            self.exchange.send(head(200, end=True))
        elif self.path == "/cut":
            self.exchange.send(head(200, ("content-length", "1000")), {"event": "data", "bytes": b"x" * 500})
            self.exchange.after(LATE, lambda: self.exchange.abandon("truncated"))
        elif self.path == "/later":
            self.exchange.after(LATE, lambda: (self.echo(), self.finish()))
        elif self.path != "/hang":
            self.echo()

    def echo(self):
        if self.path == "/info":
            self.exchange.send(INFO)
        line = f"{self.request['method']} {self.request['path']}\n"
        self.exchange.send(head(200, ("content-type", "text/plain")), {"event": "data", "bytes": line.encode()})
        self.is_echo = self.path != "/later"

    def finish(self):
        trailers = [TRAILERS] if self.path == "/trailers" else []
        self.exchange.send(*trailers, END)
