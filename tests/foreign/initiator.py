#!/usr/bin/env python3
"""An initiator of the adit tunnel protocol, version 1, in another language and on other QUIC and HTTP/2 stacks.

It was written from proto-spec/ alone, to find out what that text leaves open, and shares nothing with the Rust code.
It needs Python 3.11 and the packages of requirements.txt.

    initiator.py --selftest proto-spec/vectors
    initiator.py --address 127.0.0.1:7843 --ca ca.pem --cert node.pem --key node.key --node edge-1 --cluster stores

The first compares it with all vectors. The second dials once, serves the answers of answers.py, prints what happens as
JSON lines, drains at SIGTERM and exits when the tunnel is closed.
"""

import argparse
import importlib
import pathlib
import sys

sys.dont_write_bytecode = True  # the folder belongs to the sources

import selftest  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selftest", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--transport", choices=("quic", "tcp"), default="quic")
    parser.add_argument("--address", help="the responder, IP:PORT")
    parser.add_argument("--ca", help="who signed the responder's certificate")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--token")
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--cluster")
    parser.add_argument("--node")
    parser.add_argument("--service", action="append", default=[], help="exports an HTTP service; may be repeated")
    arguments = parser.parse_args()
    if arguments.selftest:
        return selftest.run(arguments.selftest)
    missing = [f"--{name}" for name in ("address", "ca", "node", "cluster") if getattr(arguments, name) is None]
    if missing:
        parser.error(f"missing: {' '.join(missing)}")

    import tunnel

    # Each needs its packages, which the self-test does without.
    return tunnel.run(arguments, importlib.import_module(arguments.transport).dial)


if __name__ == "__main__":
    sys.exit(main())
