"""The upstream transport against real sockets and a scripted upstream, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.transport import (
    ConnectFailed,
    Connection,
    ConnectTimeout,
    Keepalive,
    Pool,
    ReadTimeout,
    Response,
    SendTimeout,
    Target,
    Timeouts,
    TransportError,
    UpstreamBroken,
)
from tests.support.certificates import Authority
from tests.support.raw_upstream import PATIENCE, Gone, Peer, RawUpstream, answer

GET = b"GET /a%2fb?x=%zz HTTP/1.1\r\nHost: up\r\n\r\n"
LONG = Timeouts(PATIENCE, PATIENCE, PATIENCE)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """Every test collects garbage to find what it leaked; without this each would walk all of Django."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine function, and fails if its loop had anything to complain about."""
    complaints: list[dict[str, Any]] = []

    def runner(main: Callable[[], Awaitable[Any]]) -> Any:
        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            try:
                return await asyncio.wait_for(main(), PATIENCE)
            finally:
                gc.collect()
                await asyncio.sleep(0)

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop_runner:
            return loop_runner.run(watched())

    yield runner
    gc.collect()
    assert complaints == []


def at(upstream: RawUpstream) -> Target:
    return Target("127.0.0.1", upstream.port)


async def get(
    pool: Pool,
    target: Target,
    *,
    method: str = "GET",
    timeouts: Timeouts = LONG,
    keepalive: Keepalive = Keepalive(),  # noqa: B008
) -> tuple[Connection, Response]:
    connection = await pool.acquire(target, timeouts, keepalive)
    connection.start(GET, method=method, timeouts=timeouts, body_follows=False)
    try:
        return connection, await connection.response()
    except TransportError:
        connection.abort()
        raise


async def rest(connection: Connection, response: Response) -> bytes:
    if response.complete:
        assert await connection.read() == b""
        return response.body
    assert response.body == b""
    body = b""
    while piece := await connection.read():
        body += piece
    return body


async def until(condition: Callable[[], object]) -> None:
    """The other thread or the loop will make it true; the runner's patience is the bound."""
    while not condition():
        await asyncio.sleep(0.001)


def exchange(run: Run, *pieces: bytes, method: str = "GET", end: str = "keep") -> tuple[Response, bytes, int]:
    """One request; the answer sent piece by piece; then (response, body, connections kept)."""

    def script(peer: Peer) -> None:
        peer.read_head()
        for piece in pieces:
            peer.send(piece)
        if end == "keep":
            peer.wait_closed()
        elif end == "reset":
            peer.reset()

    with RawUpstream(script) as upstream:

        async def main() -> tuple[Response, bytes, int]:
            pool = Pool()
            connection, response = await get(pool, at(upstream), method=method)
            try:
                body = await rest(connection, response)
            except BaseException:
                connection.abort()
                raise
            connection.release()
            kept = pool.idle_count(at(upstream))
            await pool.close()
            return response, body, kept

        result: tuple[Response, bytes, int] = run(main)
    return result


# -- one exchange ---------------------------------------------------------------------------------------


def test_request_is_written_as_given_and_response_read_at_once(run: Run) -> None:
    answered = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-B:  c \t \r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi"
    with RawUpstream(answer(answered)) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, response = await get(pool, at(upstream))
            assert (response.status, response.http_version) == (200, "1.1")
            assert response.headers == [
                (b"set-cookie", b"a"),
                (b"x-b", b"c"),
                (b"set-cookie", b"b"),
                (b"content-length", b"2"),
            ]
            assert response.complete and response.body == b"hi"
            assert not connection.reused
            connection.release()
            again = pool.idle_now(at(upstream))
            assert again is connection and again.reused
            again.abort()

        run(main)
    assert upstream.peers[0].received == GET


def test_small_exchange_costs_one_write_and_one_future(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            connection.release()
            made: list[str] = []
            loop = asyncio.get_running_loop()
            real = connection._loop

            class Counting:
                def __getattr__(self, name: str) -> Any:
                    if name != "time":
                        made.append(name)
                    return getattr(real, name)

            connection._loop = Counting()  # type: ignore[assignment]
            tasks = len(asyncio.all_tasks(loop))
            again = pool.idle_now(at(upstream))
            assert again is connection
            again.start(GET, method="GET", timeouts=LONG, body_follows=False)
            response = await again.response()
            assert response.complete and len(asyncio.all_tasks(loop)) == tasks
            assert made == ["create_future"]
            again.abort()

        run(main)


@pytest.mark.parametrize(
    ("pieces", "body", "kept"),
    [
        ([OK], b"hello", 1),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo"], b"hello", 1),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"],
            b"hello",
            1,
        ),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"], b"hello", 0),
        ([b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"], b"hello", 1),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"], b"hello", 0),
        ([b"HTTP/1.1 204 No\r\n\r\n"], b"", 1),
        ([b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"], b"", 1),
        ([b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"], b"", 1),
    ],
)
def test_framing(run: Run, pieces: list[bytes], body: bytes, kept: int) -> None:
    _, received, idle = exchange(run, *pieces)
    assert (received, idle) == (body, kept)


def test_trailers_are_dropped(run: Run) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response, body, kept = exchange(run, head + b"1\r\nx\r\n0\r\nX-Trailer: t\r\n\r\n")
    assert response.headers == [(b"transfer-encoding", b"chunked")]
    assert (body, kept) == (b"x", 1)


def test_body_without_length_ends_with_the_connection(run: Run) -> None:
    response, body, kept = exchange(run, b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", end="close")
    assert (body, kept) == (b"hello", 0)


def test_reset_does_not_end_a_body_without_length(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        seen.wait(PATIENCE)
        peer.reset()

    seen = threading.Event()
    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection, response = await get(Pool(), at(upstream))
            assert await connection.read() == b"hello"
            seen.set()
            with pytest.raises(UpstreamBroken):
                await connection.read()
            connection.release()

        run(main)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Le"],
        [],
    ],
)
def test_truncation_is_never_a_clean_end(run: Run, pieces: list[bytes], end: str) -> None:
    with pytest.raises(UpstreamBroken) as caught:
        exchange(run, *pieces, end=end)
    assert not caught.value.stale and caught.value.kind == "broken"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"hello\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\n c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00",
    ],
)
def test_malformed_responses_are_refused(run: Run, head: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        exchange(run, head, end="close")


@pytest.mark.parametrize("head", [b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"\r\n"])
def test_switching_protocols_is_refused(run: Run, head: bytes) -> None:
    with pytest.raises(UpstreamBroken, match="switched protocols"):
        exchange(run, b"HTTP/1.1 101 Switching\r\n" + head + OK)


def test_tunnel_is_refused(run: Run) -> None:
    with pytest.raises(UpstreamBroken):
        exchange(run, b"HTTP/1.1 200 OK\r\n\r\n", method="CONNECT")


def test_chunked_in_http_1_0_is_read_but_not_reused(run: Run) -> None:
    head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, body, kept = exchange(run, head + b"1\r\nx\r\n0\r\n\r\n")
    assert (body, kept) == (b"x", 0)


@pytest.mark.parametrize("line", [b"X-Big: %s\r\n", b"%s: x\r\n", b"X: y\r\n" * 20 + b"X-Big: %s\r\n"])
@pytest.mark.parametrize("whole", [True, False])
def test_response_head_is_bounded(run: Run, line: bytes, whole: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + line % (b"a" * 70_000) + (b"Content-Length: 0\r\n\r\n" if whole else b"")
    with pytest.raises(UpstreamBroken, match="head over"):
        exchange(run, head)


def test_large_body_in_the_block_of_the_head_is_no_large_head(run: Run) -> None:
    size = 200_000
    _, body, kept = exchange(run, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    assert (len(body), kept) == (size, 1)


@pytest.mark.parametrize("tail", [b"0\r\nX-Trailer: %s", b"5;%s", b"0\r\n" + b"X: y\r\n" * 20 + b"X-T: %s"])
def test_trailers_and_chunk_extensions_are_bounded(run: Run, tail: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    blocks = [b"a" * 60_000] * 20
    with pytest.raises(UpstreamBroken, match="over"):
        exchange(run, head, tail % blocks[0], *blocks)


# -- 1xx, HEAD, surplus bytes -----------------------------------------------------------------------------


def test_interim_responses_are_dropped(run: Run) -> None:
    interim = b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    response, body, kept = exchange(run, interim + OK)
    assert (response.status, response.headers) == (200, [(b"content-length", b"5")])
    assert (body, kept) == (b"hello", 1)
    response, body, kept = exchange(run, interim, OK)
    assert (response.status, body, kept) == (200, b"hello", 1)


def test_interim_responses_are_bounded(run: Run) -> None:
    assert exchange(run, b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + OK)[1] == b"hello"
    with pytest.raises(UpstreamBroken, match="interim"):
        exchange(run, b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK)


def test_head_has_no_body_and_only_a_bare_answer_is_reused(run: Run) -> None:
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    response, body, kept = exchange(run, announced, method="HEAD")
    assert response.complete and (b"content-length", b"5") in response.headers
    assert (body, kept) == (b"", 0)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert exchange(run, chunked, method="HEAD")[1:] == (b"", 0)
    assert exchange(run, announced + b"hello", method="HEAD")[1:] == (b"", 0)
    assert exchange(run, chunked + b"5\r\nhello\r\n0\r\n\r\n", method="HEAD")[1:] == (b"", 0)
    assert exchange(run, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", method="HEAD")[1:] == (b"", 1)
    assert exchange(run, b"HTTP/1.1 204 No\r\n\r\n", method="HEAD")[1:] == (b"", 1)


@pytest.mark.parametrize(
    "surplus", [b"x", OK, b"HTTP", b"HTTP/1.1 500 Oops\r\nX: y\r\nContent-Length: 1\r\n\r\ny", b"\x00" * 100]
)
def test_surplus_after_a_response_closes_and_does_not_alter_it(run: Run, surplus: bytes) -> None:
    response, body, kept = exchange(run, OK + surplus)
    assert (response.status, response.headers, body) == (200, [(b"content-length", b"5")], b"hello")
    assert kept == 0
    assert exchange(run, b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n" + surplus)[2] == 0


def test_surplus_before_the_release_closes(run: Run) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        go.wait(PATIENCE)
        peer.send(b"x")
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, response = await get(pool, at(upstream))
            go.set()
            await until(lambda: connection._dirty)
            connection.release()
            assert pool.idle_count(at(upstream)) == 0

        run(main)


@pytest.mark.parametrize("surplus", [b"x", b"\r\n", OK, b""])
def test_bytes_or_end_on_an_idle_connection_close_it(run: Run, surplus: bytes) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        go.wait(PATIENCE)
        if surplus:
            peer.send(surplus)
            peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            connection.release()
            assert pool.idle_count(at(upstream)) == 1
            go.set()
            await until(lambda: pool.idle_count(at(upstream)) == 0)
            assert pool.idle_now(at(upstream)) is None

        run(main)


# -- stale connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("partial", "stale"), [(b"", True), (b"H", False)])
def test_stale_is_a_reused_connection_without_one_byte(run: Run, partial: bytes, stale: bool, reset: bool) -> None:
    seen = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        peer.read_head()
        if partial:
            peer.send(partial)
            seen.wait(PATIENCE)
        if reset:
            peer.reset()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            connection.release()
            again = pool.idle_now(at(upstream))
            assert again is not None
            again.start(GET, method="GET", timeouts=LONG, body_follows=False)
            waiting = asyncio.ensure_future(again.response())
            if partial:
                await until(lambda: again._head_bytes)
                seen.set()
            with pytest.raises(UpstreamBroken) as caught:
                await waiting
            assert caught.value.stale is stale
            again.abort()

        run(main)


def test_starting_on_a_connection_that_just_closed_is_stale(run: Run) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        go.wait(PATIENCE)

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            connection.release()
            lent = pool.idle_now(at(upstream))
            assert lent is not None
            go.set()
            await until(lambda: lent.response_started)
            lent.start(GET, method="GET", timeouts=LONG, body_follows=False)
            with pytest.raises(UpstreamBroken) as caught:
                await lent.response()
            assert caught.value.stale
            lent.release()
            assert pool.idle_count(at(upstream)) == 0

        run(main)


# -- request bodies ---------------------------------------------------------------------------------------


def test_upload_is_streamed_and_reused_after_finish(run: Run) -> None:
    size = 3_000_000

    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.read_head()
            assert peer.read(size) == b"b" * size
            peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            for finish in (True, False):
                connection = await pool.acquire(at(upstream), LONG)
                connection.start(GET, method="PUT", timeouts=LONG, body_follows=True)
                for _ in range(3):
                    assert await connection.send(b"b" * 1_000_000)
                if finish:
                    connection.finish()
                assert (await connection.response()).status == 200
                connection.release()
                assert pool.idle_count(at(upstream)) == (1 if finish else 0)

        run(main)


def test_send_waits_while_the_upstream_does_not_read(run: Run) -> None:
    go = threading.Event()
    total = 20_000_000

    def script(peer: Peer) -> None:
        peer.read_head()
        go.wait(PATIENCE)
        peer.read(total)
        peer.send(OK)

    with RawUpstream(script, receive_buffer=65536) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=LONG, body_follows=True)
            sent = 0

            async def upload() -> None:
                nonlocal sent
                while sent < total:
                    assert await connection.send(b"b" * 50_000)
                    sent += 50_000

            task = asyncio.ensure_future(upload())
            await until(lambda: connection._writer is not None)
            before = sent
            for _ in range(20):
                await asyncio.sleep(0)
            assert sent == before < total
            assert connection._transport.get_write_buffer_size() < 300_000
            go.set()
            await task
            assert (await connection.response()).status == 200
            connection.abort()

        run(main)


def test_send_timeout(run: Run) -> None:
    with RawUpstream(lambda peer: done.wait(PATIENCE) and None, receive_buffer=65536) as upstream:
        done = threading.Event()

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=Timeouts(9, 0.1, 9), body_follows=True)
            with pytest.raises(SendTimeout) as caught:
                while await connection.send(b"b" * 1_000_000):
                    pass
            assert caught.value.kind == "send_timeout"
            assert await connection.send(b"more") is False
            with pytest.raises(SendTimeout):
                await connection.response()
            connection.abort()

        try:
            run(main)
        finally:
            done.set()


def test_send_timeout_counts_from_the_last_progress(run: Run) -> None:
    total = 12_000_000

    def script(peer: Peer) -> None:
        peer.read_head()
        for _ in range(total // 1_000_000):
            threading.Event().wait(0.1)
            peer.read(1_000_000)
        peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script, receive_buffer=262144) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=Timeouts(9, 0.5, 9), body_follows=True)
            assert await connection.send(b"b" * total)  # takes longer than the timeout, but never stands still
            assert (await connection.response()).status == 200
            connection.abort()

        run(main)


@pytest.mark.parametrize("then", ["keep", "close"])
def test_early_response_stops_the_upload(run: Run, then: str) -> None:
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig")
        if then == "keep":
            done.wait(PATIENCE)
        else:
            peer.shutdown()
            done.wait(PATIENCE)

    with RawUpstream(script, receive_buffer=65536) as upstream:

        async def main() -> None:
            pool = Pool()
            connection = await pool.acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=LONG, body_follows=True)
            assert not connection.response_started
            while await connection.send(b"b" * 1_000_000):
                pass
            assert connection.response_started
            response = await connection.response()
            assert (response.status, await rest(connection, response)) == (413, b"big")
            connection.release()
            assert pool.idle_count(at(upstream)) == 0

        try:
            run(main)
        finally:
            done.set()


def test_early_response_wakes_a_waiting_send(run: Run) -> None:
    go, done = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        go.wait(PATIENCE)
        peer.send(OK)
        done.wait(PATIENCE)

    with RawUpstream(script, receive_buffer=65536) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=LONG, body_follows=True)

            async def upload() -> None:
                while await connection.send(b"b" * 50_000):
                    pass

            task = asyncio.ensure_future(upload())
            await until(lambda: connection._writer is not None)
            go.set()
            await task
            assert (await connection.response()).body == b"hello"
            connection.abort()

        try:
            run(main)
        finally:
            done.set()


def test_connection_lost_during_upload(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.reset()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=LONG, body_follows=True)
            while await connection.send(b"b" * 100_000):
                pass
            with pytest.raises(UpstreamBroken) as caught:
                await connection.response()
            assert not caught.value.stale
            connection.abort()

        run(main)


@pytest.mark.parametrize("answers", [True, False])
def test_the_read_timeout_starts_when_the_request_is_whole(run: Run, answers: bool) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        peer.read_head()
        peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        peer.read(3)
        if answers:
            peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool, timeouts = Pool(), Timeouts(9, 9, 0.1)
            connection, _ = await get(pool, at(upstream), timeouts=timeouts)  # leaves a timer running
            connection.release()
            connection = await pool.acquire(at(upstream), timeouts)
            connection.start(GET, method="PUT", timeouts=timeouts, body_follows=True)
            waiting = asyncio.ensure_future(connection.response())
            for _ in range(3):
                await asyncio.sleep(0.12)  # a slow client: not the upstream's silence
                assert await connection.send(b"b")
            connection.finish()
            if answers:
                assert (await waiting).status == 200
            else:
                with pytest.raises(ReadTimeout):
                    await waiting
            connection.abort()

        run(main)


# -- response bodies --------------------------------------------------------------------------------------


def test_download_is_streamed_with_back_pressure(run: Run) -> None:
    total = 50_000_000

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"d" * 100_000
        for _ in range(total // len(block)):
            peer.send(block)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, response = await get(pool, at(upstream))
            assert not response.complete
            await until(lambda: connection._reading_paused)
            for _ in range(20):
                await asyncio.sleep(0)
            assert connection._buffered < 1_000_000
            received = 0
            while piece := await connection.read():
                received += len(piece)
                assert len(piece) < 1_000_000
            assert received == total
            connection.release()
            assert pool.idle_count(at(upstream)) == 1
            await pool.close()

        run(main)


def test_what_arrived_before_a_truncation_is_delivered_first(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello")

    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection, response = await get(Pool(), at(upstream))
            await until(lambda: connection._closed)
            assert await connection.read() == b"hello"
            for _ in range(2):
                with pytest.raises(UpstreamBroken):
                    await connection.read()
            connection.release()

        run(main)


# -- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_read_timeout_for_the_head(run: Run, sent: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(sent)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            with pytest.raises(ReadTimeout) as caught:
                await get(Pool(), at(upstream), timeouts=Timeouts(9, 9, 0.05))
            assert caught.value.kind == "read_timeout"

        run(main)


def test_read_timeout_in_the_body(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello")
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection, _ = await get(Pool(), at(upstream), timeouts=Timeouts(9, 9, 0.05))
            assert await connection.read() == b"hello"
            with pytest.raises(ReadTimeout):
                await connection.read()
            connection.release()

        run(main)
    assert upstream.peers[0].closed_by_client.is_set()


def test_read_timeout_restarts_with_every_block(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        for byte in OK + b"!" * 5:
            threading.Event().wait(0.01)
            peer.send(bytes([byte]))
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            timeouts = Timeouts(9, 9, 0.25)  # the answer takes longer than this as a whole
            connection, response = await get(Pool(), at(upstream), timeouts=timeouts)
            assert await rest(connection, response) == b"hello"
            connection.abort()

        run(main)


def test_a_slow_reader_of_ours_is_no_read_timeout(run: Run) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
        for _ in range(2):
            go.wait(PATIENCE)
            go.clear()
            peer.send(b"hello")
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection, _ = await get(Pool(), at(upstream), timeouts=Timeouts(9, 9, 0.1))
            await asyncio.sleep(0.2)
            waiting = asyncio.ensure_future(connection.read())
            await until(lambda: connection._reader)
            go.set()
            assert await waiting == b"hello"
            await asyncio.sleep(0.2)
            go.set()
            assert await connection.read() == b"hello"
            connection.abort()

        run(main)


def test_a_shorter_timeout_after_a_longer_one_counts(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream), timeouts=Timeouts(60, 60, 60))
            connection.release()
            with pytest.raises(ReadTimeout):
                await get(pool, at(upstream), timeouts=Timeouts(9, 9, 0.05))

        run(main)


def test_a_timer_left_from_an_earlier_request_does_not_end_the_next(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        peer.read_head()
        threading.Event().wait(0.15)
        peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream), timeouts=Timeouts(9, 9, 0.1))
            connection.release()
            connection, response = await get(pool, at(upstream), timeouts=Timeouts(9, 9, 9))
            assert connection.reused and response.status == 200
            connection.abort()

        run(main)


def test_timeouts_must_be_positive() -> None:
    for bad in ((0, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(ValueError):
            Timeouts(*bad)


# -- connecting -------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Target("127.0.0.1", 0), "connect_failed"),
        (Target("no-such-host.invalid", 80), "name_unresolved"),
        (Target("a" * 70 + ".b", 80), "name_unresolved"),
    ],
)
def test_connect_failed(run: Run, target: Target, kind: str) -> None:
    wanted = target if target.port else Target(target.host, closed_port())

    async def main() -> None:
        with pytest.raises(ConnectFailed) as caught:
            await Pool().acquire(wanted, LONG)
        assert caught.value.kind == kind

    run(main)


@pytest.mark.parametrize("tls", [False, True])
def test_connect_timeout(run: Run, tls: bool) -> None:
    # TCP: a full backlog answers no SYN. TLS: connected, but nobody shakes hands.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16 if tls else 0)
        port = listener.getsockname()[1]
        fillers = []
        if not tls:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)

        async def main() -> None:
            with pytest.raises(ConnectTimeout) as caught:
                await Pool().acquire(Target("127.0.0.1", port, tls=tls), Timeouts(0.1, 9, 9))
            assert caught.value.kind == "connect_timeout"

        run(main)
        for filler in fillers:
            filler.close()


def test_a_name_with_several_addresses_is_tried_through(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    threads = []

    def both(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "twofold.test":
            return real(host, port, *args, **kwargs)
        threads.append(threading.current_thread())
        stream = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET, *stream, ("127.0.0.2", port)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            if isinstance(loop, uvloop.Loop):
                target = Target("localhost", upstream.port)  # uvloop has its own resolver
            else:
                monkeypatch.setattr(socket, "getaddrinfo", both)
                target = Target("twofold.test", upstream.port)
            connection, response = await get(Pool(), target)
            assert response.status == 200
            connection.abort()

        run(main)
    assert threading.main_thread() not in threads


# -- TLS --------------------------------------------------------------------------------------------------


def test_tls(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server("localhost")
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[tuple[str | None, str | None]] = []

    def script(peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        chosen.append((peer.sock.selected_alpn_protocol(), peer.sock.version()))
        answer(OK)(peer)

    with RawUpstream(script, tls=context) as upstream:

        async def main() -> None:
            pool = Pool()
            target = Target("127.0.0.1", upstream.port, tls=True, server_name="localhost", ca_file=authority.ca_file)
            for reused in (False, True):
                connection, response = await get(pool, target)
                assert (response.body, connection.reused) == (b"hello", reused)
                connection.release()
            await pool.close()

        run(main)
    assert names == ["localhost"]
    assert chosen[0][0] == "http/1.1"


def test_tls_refusals(run: Run, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "another authority")
    with RawUpstream(answer(OK), tls=ours.server("right.test")) as upstream:

        async def main() -> None:
            def target(name: str, ca_file: str | None, verify: bool = True) -> Target:
                return Target("127.0.0.1", upstream.port, True, name, verify, ca_file)

            pool = Pool()
            for refused in (
                target("wrong.test", ours.ca_file),
                target("right.test", other.ca_file),
                target("right.test", None),
                target("right.test", str(tmp_path / "missing.pem")),
                Target("127.0.0.1", upstream.port, tls=True, ca_file=ours.ca_file),
            ):
                with pytest.raises(ConnectFailed):
                    await pool.acquire(refused, LONG)
            for accepted in (target("right.test", ours.ca_file), target("wrong.test", None, verify=False)):
                connection, response = await get(pool, accepted)
                assert response.status == 200
                connection.release()
                # Verified or not is part of the key: an unverified connection serves nobody else.
                assert pool.idle_count(accepted) == 1
            await pool.close()

        run(main)


def test_tls_1_1_is_refused(run: Run, tmp_path: Path) -> None:
    pool = Pool()
    context = pool._contexts.of(Target("h", 1, tls=True, verify=False))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert pool._contexts.of(Target("other", 1, tls=True, verify=False)) is context


def test_tls_client_certificate(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server("localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    with RawUpstream(answer(OK), tls=context) as upstream:

        async def main() -> None:
            target = Target(
                "127.0.0.1",
                upstream.port,
                tls=True,
                server_name="localhost",
                ca_file=authority.ca_file,
                client_cert=authority.issue("client"),
            )
            connection, response = await get(Pool(), target)
            assert response.status == 200
            connection.abort()

        run(main)


# -- the pool ---------------------------------------------------------------------------------------------


def test_last_released_is_reused_first_and_beyond_the_size_the_oldest_closes(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool, keepalive = Pool(), Keepalive(size=2)
            lent = [(await get(pool, at(upstream), keepalive=keepalive))[0] for _ in range(3)]
            for connection in lent:
                connection.release()
            assert pool.idle_count(at(upstream)) == 2
            assert lent[0]._closed
            assert pool.idle_now(at(upstream)) is lent[2]
            assert pool.idle_now(at(upstream)) is lent[1]
            assert pool.idle_now(at(upstream)) is None
            lent[1].abort()
            lent[2].abort()

        run(main)


def test_size_zero_keeps_nothing(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream), keepalive=Keepalive(size=0))
            connection.release()
            assert pool.idle_count(at(upstream)) == 0 and connection._closed

        run(main)


def test_requests_per_connection_are_limited(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            for _ in range(5):
                connection, _ = await get(pool, at(upstream), keepalive=Keepalive(requests=2))
                connection.release()
            await pool.close()

        run(main)
    assert [peer.received.count(b"GET") for peer in upstream.peers] == [2, 2, 1]


def test_idle_connections_close_after_the_idle_timeout(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            long, _ = await get(pool, at(upstream), keepalive=Keepalive(idle_timeout=60))
            short, _ = await get(pool, at(upstream), keepalive=Keepalive(idle_timeout=0.05))
            other, _ = await get(pool, at(upstream), keepalive=Keepalive(idle_timeout=0.1))
            for connection in (long, short, other):
                connection.release()
            await until(lambda: pool.idle_count(at(upstream)) == 1)
            assert short._closed and other._closed and not long._closed
            await pool.close()
            assert long._closed

        run(main)


def test_a_lent_connection_is_not_swept(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        peer.read_head()
        threading.Event().wait(0.1)
        peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool, keepalive = Pool(), Keepalive(idle_timeout=0.05)
            connection, _ = await get(pool, at(upstream), keepalive=keepalive)
            connection.release()
            again, response = await get(pool, at(upstream), keepalive=keepalive)
            assert again is connection and response.status == 200
            again.abort()

        run(main)


def test_targets_do_not_share(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            connection.release()
            assert pool.idle_now(Target("localhost", upstream.port)) is None
            assert pool.idle_now(Target("127.0.0.1", upstream.port, server_name="x")) is None
            equal = Target("127.0.0.1", upstream.port)
            assert equal == at(upstream) and hash(equal) == hash(at(upstream))
            assert pool.idle_now(equal) is connection
            connection.abort()

        run(main)


def test_closed_pool_connects_no_more_and_keeps_nothing(run: Run) -> None:
    with RawUpstream(answer(OK)) as upstream:

        async def main() -> None:
            pool = Pool()
            connection, _ = await get(pool, at(upstream))
            await pool.close()
            with pytest.raises(ConnectFailed):
                await pool.acquire(at(upstream), LONG)
            connection.release()
            assert connection._closed and pool.idle_count(at(upstream)) == 0

        run(main)


# -- cancellation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting_in", ["response", "read", "send"])
def test_cancellation_then_abort_leaves_nothing(run: Run, waiting_in: str) -> None:
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        if waiting_in == "read":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        if waiting_in == "send":
            done.wait(PATIENCE)
        else:
            peer.wait_closed()

    with RawUpstream(script, receive_buffer=65536) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="PUT", timeouts=LONG, body_follows=waiting_in == "send")

            async def work() -> None:
                if waiting_in == "send":
                    while True:
                        await connection.send(b"b" * 100_000)
                await connection.response()
                await connection.read()

            task = asyncio.ensure_future(work())
            await until(lambda: connection._reader or connection._writer)
            if waiting_in == "read":
                await until(lambda: connection._head_done and connection._reader)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            connection.abort()
            assert connection._timer is None and connection._reader is None and connection._writer is None

        try:
            run(main)
        finally:
            done.set()
    if waiting_in != "send":
        assert upstream.peers[0].closed_by_client.is_set()


def test_an_answer_to_a_cancelled_request_is_nobody_elses(run: Run) -> None:
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        assert cancelled.wait(PATIENCE)  # answered sooner, there would be nothing to cancel
        peer.send(OK)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            pool = Pool()
            connection = await pool.acquire(at(upstream), LONG)
            connection.start(GET, method="GET", timeouts=LONG, body_follows=False)
            task = asyncio.ensure_future(connection.response())
            await until(lambda: connection._reader)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            cancelled.set()
            connection.release()  # even with the wrong call: unanswered is not reusable
            assert pool.idle_count(at(upstream)) == 0

        run(main)


def test_cancelling_a_connect_leaves_no_connection(run: Run, tmp_path: Path) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_some()  # the client's hello; never answered
        reached.set()
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            target = Target("127.0.0.1", upstream.port, tls=True, verify=False)
            task = asyncio.ensure_future(Pool().acquire(target, LONG))
            await until(reached.is_set)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(outcome, asyncio.CancelledError), outcome

        run(main)
    assert upstream.peers[0].closed_by_client.is_set()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"])
def test_abort_wakes_whoever_waits_in_another_task(run: Run, head: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(head)
        peer.wait_closed()

    with RawUpstream(script) as upstream:

        async def main() -> None:
            connection = await Pool().acquire(at(upstream), LONG)
            connection.start(GET, method="GET", timeouts=LONG, body_follows=False)

            async def work() -> None:
                await connection.response()
                await connection.read()

            task = asyncio.ensure_future(work())
            await until(lambda: connection._reader and connection._head_done == bool(head))
            connection.abort()
            with pytest.raises(UpstreamBroken) as caught:
                await task
            assert not caught.value.stale
            connection.abort()
            connection.release()

        run(main)


def test_scripted_upstream_reports_a_failing_script() -> None:
    def script(peer: Peer) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError), RawUpstream(script) as upstream:
        client = socket.create_connection(("127.0.0.1", upstream.port))
        assert client.recv(1) == b""
        client.close()
    with pytest.raises(Gone), RawUpstream(answer(OK)):
        raise Gone
