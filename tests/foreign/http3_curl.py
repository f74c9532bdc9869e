#!/usr/bin/env python3
"""The same HTTP/3 requests from curl (ngtcp2, nghttp3), as one line of JSON.

    http3_curl.py https://localhost:8443 ca.pem edge-1
"""

import json
import sys

import curl_cffi
from curl_cffi import CurlHttpVersion


def main(origin, ca, node):
    session = curl_cffi.Session(verify=ca, http_version=CurlHttpVersion.V3ONLY, headers={"x-node-id": node}, timeout=110)
    upload = bytes(index % 251 for index in range(1_000_000))
    echo = session.post(f"{origin}/echo", data=upload)
    head = session.head(f"{origin}/bytes/300")
    many = [session.get(f"{origin}/bytes/{size}") for size in (0, 1, 70_000)]
    nobody = session.get(f"{origin}/", headers={"x-node-id": "nobody"})
    print(
        json.dumps(
            {
                "version": echo.http_version,
                "echo": [echo.status_code, echo.content == upload],
                "head": [head.status_code, head.headers.get("content-length"), len(head.content)],
                "many": [[answer.status_code, len(answer.content)] for answer in many],
                "nobody": [nobody.status_code, nobody.headers.get("proxy-status")],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
