"""Large bodies pass through the gateway without staying in it: measured on the worker process.

    HMAC_GATEWAY_TEST_MEBIBYTES=200 pytest tests/e2e/test_memory.py

does it with 200 MiB; the suite itself uses 64, which would show the same fault in less time.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

import pytest

from tests.support.proxied import Proxied, Upstream
from tests.support.raw_client import request_bytes
from tests.support.raw_upstream import Peer
from tests.support.served import digest_of, signed

MEBIBYTES = int(os.environ.get("HMAC_GATEWAY_TEST_MEBIBYTES", "64"))
MEBIBYTE = os.urandom(1 << 20)
#: What the worker may grow by.
ALLOWED = 8 << 20
#: Shown to the code paths first, so that what they load and keep for ever is not counted.
WARM_UP = 8


def resident(pid: int, kind: str = "VmRSS") -> int:
    """Bytes of a process in memory: now (VmRSS), or the most so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise AssertionError(kind)


@pytest.fixture(scope="module")
def worker(gateway: Proxied) -> int:
    gateway.settle()
    (pid,) = gateway.worker_pids()
    return pid


def forget_peak(pid: int) -> None:
    """Start the process's high-water mark over."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def drain(peer: Peer) -> None:
    """Take a body of any length and answer with its size."""
    head = peer.read_head()
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    left = size
    while left:
        left -= len(peer.read_some())
        del peer._received[:]  # not kept here either
    text = b"%d" % size
    peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
    peer.wait_closed()


def pour(peer: Peer) -> None:
    """Answer with as many mebibytes as the path says."""
    count = int(peer.read_head().split(b" ")[1][1:])
    peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (count << 20))
    for _ in range(count):
        peer.send(MEBIBYTE)
    peer.wait_closed()


def test_upload_does_not_stay(gateway: Proxied, worker: int) -> None:
    def upload(count: int) -> None:
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("content-length", str(count << 20))]))
            for _ in range(count):
                client.send(MEBIBYTE)
            assert client.answer().body == b"%d" % (count << 20)

    with Upstream(drain) as upstream:
        host = gateway.lead(upstream.port)
        upload(WARM_UP)
        forget_peak(worker)
        before = resident(worker)
        upload(MEBIBYTES)
        assert resident(worker, "VmHWM") - before <= ALLOWED


def test_download_does_not_stay(gateway: Proxied, worker: int) -> None:
    def download(count: int) -> None:
        with gateway.client() as client:
            client.send(request_bytes("GET", f"/{count}", host))
            assert client.head().get("content-length") == str(count << 20)
            left = count << 20
            while left:
                left -= len(client.some())

    with Upstream(pour) as upstream:
        host = gateway.lead(upstream.port)
        download(WARM_UP)
        forget_peak(worker)
        before = resident(worker)
        download(MEBIBYTES)
        assert resident(worker, "VmHWM") - before <= ALLOWED


def test_slow_reader_holds_up_the_upstream(gateway: Proxied, worker: int) -> None:
    """What the client does not take stays with the upstream, not in the gateway."""
    sent = 0
    standing = Event()

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (MEBIBYTES << 20))
        peer.sock.settimeout(1)  # taking nothing for so long means: full
        try:
            for _ in range(MEBIBYTES):
                peer.sock.sendall(MEBIBYTE)
                sent += 1
        except TimeoutError:
            standing.set()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        forget_peak(worker)
        before = resident(worker)
        with gateway.client(receive_buffer=65536) as client:
            client.send(request_bytes("GET", "/", host))
            client.head()
            assert standing.wait(20)
            assert sent < MEBIBYTES // 2
            assert resident(worker, "VmHWM") - before <= ALLOWED


def test_slow_upstream_holds_up_the_client(gateway: Proxied, worker: int) -> None:
    stop = Event()
    with Upstream(lambda peer: stop.wait(20) and None, receive_buffer=65536) as upstream:
        host = gateway.lead(upstream.port)
        forget_peak(worker)
        before = resident(worker)
        with gateway.client() as client:
            client.sock.settimeout(1)
            client.send(request_bytes("POST", "/", host, [("content-length", str(MEBIBYTES << 20))]))
            assert client.send_until_refused(MEBIBYTE, MEBIBYTES) < MEBIBYTES // 2
            assert resident(worker, "VmHWM") - before <= ALLOWED
        stop.set()


def test_checked_upload_waits_in_a_file_not_in_memory(gateway: Proxied, worker: int) -> None:
    def upload(count: int) -> None:
        body = MEBIBYTE * count
        headers = signed(
            "POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(body)}
        )
        with gateway.client() as client:
            client.send(request_bytes("POST", "/x", host, [*headers.items(), ("content-length", str(len(body)))]))
            client.send(body)
            assert client.answer().body == b"%d" % len(body)

    with Upstream(drain) as upstream:
        host = gateway.lead(upstream.port, plugin={"validate_request_body": True, "max_req_body_size": 1 << 30})
        upload(WARM_UP)
        forget_peak(worker)
        before = resident(worker)
        upload(MEBIBYTES)
        assert resident(worker, "VmHWM") - before <= ALLOWED
