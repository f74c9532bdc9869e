"""gRPC as grpcio speaks it: a server to put behind an initiator, and a client that judges what comes back.

    calls.py server [PLACE]     serves on a port of its own and prints it; or in a place such as unix:/path
    calls.py server tls CERT KEY  the same behind TLS, with HTTP/2 chosen in its handshake
    calls.py client ADDRESS NODE [refused|envoy]

With "refused" the target is not there; with "envoy" the words of a failure are not ours.

The client prints a line for each promise that holds and ends with 1 at the first that does not.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "test.Calls"
LARGE = 100_000
MANY = 1_000


def echo(request, context):
    context.set_trailing_metadata((("x-sum", str(len(request))),))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "told"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 %")


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield request


class Hanging:
    """Calls that never end by themselves; how many have begun, and how many of them were cancelled."""

    def __init__(self):
        self.lock = threading.Lock()
        self.begun = self.cancelled = 0

    def hang(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        with self.lock:
            self.begun += 1
        over.wait()
        with self.lock:
            self.cancelled += 1
        return b""

    def how_many(self, request, context):
        with self.lock:
            return f"{self.begun} {self.cancelled}".encode()

    def left(self, request, context):
        return repr(context.time_remaining()).encode()


def serve(how):
    hanging = Hanging()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Hang": grpc.unary_unary_rpc_method_handler(hanging.hang),
        "HowMany": grpc.unary_unary_rpc_method_handler(hanging.how_many),
        "Left": grpc.unary_unary_rpc_method_handler(hanging.left),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    match how:
        case ["tls", cert, key]:
            pair = [(open(key, "rb").read(), open(cert, "rb").read())]
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
        case [] | [_]:
            port = server.add_insecure_port(*(how or ["127.0.0.1:0"]))
    server.start()
    print(f"port {port}", flush=True)
    server.wait_for_termination()


class Client:
    """Asks a node for its calls. A machine under load is slow: only deadlines that a test is about are short."""

    PATIENCE = 120

    def __init__(self, address, node, names_failures=True):
        self.names_failures = names_failures
        self.channel = grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)])
        self.metadata = (("x-node-id", node),)

    def unary(self, method, request=b"", timeout=PATIENCE):
        return self.channel.unary_unary(f"/{SERVICE}/{method}").with_call(
            request, metadata=self.metadata, timeout=timeout
        )

    def unary_and_its_trailers(self):
        for request in (b"", b"x" * LARGE):
            answer, call = self.unary("Echo", request)
            assert answer == request
            assert ("x-sum", str(len(request))) in call.trailing_metadata(), call.trailing_metadata()

    def a_status_with_its_message(self):
        error = self.failure(lambda: self.unary("Fail"))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 %"), error
        assert ("x-why", "told") in error.trailing_metadata()

    def a_method_that_is_not_there(self):
        assert self.failure(lambda: self.unary("None")).code() == grpc.StatusCode.UNIMPLEMENTED

    def a_stream_of_answers(self):
        call = self.channel.unary_stream(f"/{SERVICE}/Count")
        answers = list(call(b"1000", metadata=self.metadata, timeout=self.PATIENCE))
        assert answers == [str(number).encode() for number in range(1000)]

    def a_stream_of_requests(self):
        call = self.channel.stream_unary(f"/{SERVICE}/Total")
        requests = (b"x" * LARGE for _ in range(20))
        assert call(requests, metadata=self.metadata, timeout=self.PATIENCE) == str(20 * LARGE).encode()

    def a_conversation(self):
        """Each message is sent when the one before has come back."""
        come_back = threading.Semaphore(1)

        def messages():
            for number in range(MANY):
                assert come_back.acquire(timeout=self.PATIENCE)
                yield self.message(number)

        call = self.channel.stream_stream(f"/{SERVICE}/Chat")(
            messages(), metadata=self.metadata, timeout=self.PATIENCE
        )
        received = 0
        for answer in call:
            assert answer == self.message(received)
            received += 1
            come_back.release()
        assert (received, call.code()) == (MANY, grpc.StatusCode.OK)

    @staticmethod
    def message(number):
        return str(number).encode() + (b"y" * LARGE if number % 100 == 0 else b"")

    def a_deadline(self):
        before, _ = self.hanging()

        def has_begun():
            """A call whose deadline was over before it reached the server is none there."""
            error = self.failure(lambda: self.unary("Hang", timeout=0.3))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            return self.hanging()[0] > before

        self.wait_until(has_begun, "no call reaches the server within its deadline")
        left = float(self.unary("Left", timeout=300)[0])
        assert 100 < left <= 302, left
        self.all_are_cancelled()

    def a_cancelled_call(self):
        before, _ = self.hanging()
        call = self.channel.unary_unary(f"/{SERVICE}/Hang").future(b"", metadata=self.metadata)
        self.wait_until(lambda: self.hanging()[0] > before, "the call does not reach the server")
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED
        self.all_are_cancelled()

    def hanging(self):
        """How many calls that hang have begun at the server, and how many of them were cancelled there."""
        begun, cancelled = self.unary("HowMany")[0].split()
        return int(begun), int(cancelled)

    def all_are_cancelled(self):
        def none_is_left():
            begun, cancelled = self.hanging()
            return begun == cancelled

        self.wait_until(none_is_left, "the server does not hear of it")

    def wait_until(self, true, problem):
        deadline = time.monotonic() + self.PATIENCE
        while not true():
            assert time.monotonic() < deadline, problem
            time.sleep(0.02)

    def a_target_that_is_not_there(self):
        error = self.failure(lambda: self.unary("Echo"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert "connection_refused" in error.details(), error.details()

    def a_node_that_is_not_there(self):
        self.metadata = (("x-node-id", "nobody"),)
        error = self.failure(lambda: self.unary("Echo"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        if self.names_failures:
            assert error.details().startswith("adit: no node or cluster nobody is connected"), error.details()

    @staticmethod
    def failure(call):
        try:
            call()
        except grpc.RpcError as error:
            return error
        raise AssertionError("it succeeds")


def ask(address, node, how):
    client = Client(address, node, names_failures=how != ["envoy"])
    served = (
        client.unary_and_its_trailers,
        client.a_status_with_its_message,
        client.a_method_that_is_not_there,
        client.a_stream_of_answers,
        client.a_stream_of_requests,
        client.a_conversation,
        client.a_deadline,
        client.a_cancelled_call,
    )
    for promise in ((client.a_target_that_is_not_there,) if how == ["refused"] else served) + (client.a_node_that_is_not_there,):
        promise()
        print(promise.__name__, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", *how]:
            serve(how)
        case ["client", address, node, *how]:
            ask(address, node, how)
        case _:
            sys.exit(__doc__)
