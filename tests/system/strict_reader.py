#!/usr/bin/env python3
"""What a router forwards, read by h11, which is strict and by other hands. Run in a machine; prints JSON.

    strict_reader.py

Starts an upstream that reads with h11, and a router before it by itself; sends requests, sound ones and defective ones, each at once,
in two parts, byte by byte and behind a sound one; reads the answers with h11 as well. `asked` counts the sound ones, `wrong` lists what is
not as it must be: something that h11 refuses, that differs from what was sent, or that should not have come.
"""

import json
import pathlib
import socket
import subprocess
import tempfile
import threading

import h11

ROUTER = "/usr/lib/slot/slot-router"
CHUNKS = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"

# Bytes, and what the upstream is to read: method, target, host, body.
SOUND = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/", "a", "")),
    (b"GET /x?y=%20z HTTP/1.1\r\nhOST:a:80\r\nX:  \t y \r\nX:\r\n\r\n", ("GET", "/x?y=%20z", "a:80", "")),
    (b"GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/x", "b:81", "")),
    (b"GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/?q", "b", "")),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS", "*", "a", "")),
    (b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS", "*", "b", "")),
    (b"POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ("POST", "/l", "a", "hello")),
    (b"POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ("POST", "/l", "a", "hello")),
    (b"PUT /z HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ("PUT", "/z", "a", "")),
    (b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n" + CHUNKS, ("POST", "/c", "a", "hello!")),
    (b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", ("POST", "/e", "a", "hi")),
    (b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: x-mine, keep-alive\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 9\r\nUpgrade: h2c\r\n\r\n", ("GET", "/h", "a", "")),
    (b"GET /f HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX_Forwarded_For: 1\r\nX-Request-Id: x\r\n\r\n", ("GET", "/f", "a", "")),
    (b"GET /8 HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", ("GET", "/8", "a", "")),
    (b"FOO!#$%&'*+-.^_`|~ /m HTTP/1.1\r\nHost: a\r\n\r\n", ("FOO!#$%&'*+-.^_`|~", "/m", "a", "")),
    (b"\r\nGET /empty-line HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/empty-line", "a", "")),
]  # fmt: skip

DEFECTIVE = [
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
]

seen, wrong = [], []


def upstream(stream):
    """Answers one request after the other for as long as h11 understands them."""
    connection = h11.Connection(h11.SERVER)
    with stream:
        while True:
            body, request = b"", None
            while True:
                try:
                    event = connection.next_event()
                except h11.RemoteProtocolError as error:
                    wrong.append(f"h11 refuses what was forwarded: {error}")
                    return
                if event is h11.NEED_DATA:
                    connection.receive_data(stream.recv(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    names = [name for name, _ in event.headers]
                    if names not in ([], [b"x-sum"]):
                        wrong.append(f"trailers {names}")
                    break
                else:
                    return
            fields = dict(request.headers)
            hosts = [value for name, value in request.headers if name == b"host"]
            if len(hosts) != 1 or fields[b"x-forwarded-for"] != b"127.0.0.1":
                wrong.append(f"fields {request.headers}")
            seen.append((request.method.decode(), request.target.decode(), hosts[0].decode(), body.decode()))
            # Chunks and a length, in turn.
            how = ("Content-Length", "2") if len(seen) % 2 else ("Transfer-Encoding", "chunked")
            for event in (h11.Response(status_code=200, headers=[how]), h11.Data(data=b"ok"), h11.EndOfMessage()):
                stream.sendall(connection.send(event))
            connection.start_next_cycle()


def accept(listener):
    while True:
        threading.Thread(target=upstream, args=(listener.accept()[0],), daemon=True).start()


def statuses(address, parts, count):
    """Sends the parts and reads so many answers."""
    got = []
    with socket.create_connection(address, timeout=20) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                stream.sendall(part)
        except OSError:
            pass  # Refused before all of it was sent.
        connection = h11.Connection(h11.CLIENT)
        for _ in range(count):
            if connection.our_state is h11.DONE:
                connection.start_next_cycle()
            # h11 has to know of a request to read its answer; any will do.
            connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
            connection.send(h11.EndOfMessage())
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(stream.recv(65536))
                elif isinstance(event, h11.Response):
                    got.append(event.status_code)
                elif isinstance(event, h11.EndOfMessage):
                    break
    return got


def ways(request):
    step = max(1, len(request) // 8)
    yield [request]
    yield from ([request[:cut], request[cut:]] for cut in range(1, len(request), step))
    yield [request[at : at + 1] for at in range(len(request))]


def check(address, request, status, expected):
    """Sends a request in every way; `expected` is what reaches the upstream each time."""
    good, good_seen = SOUND[0]
    for parts in ways(request):
        seen.clear()
        got = statuses(address, parts, 1)
        if not status(got[0]) or seen != expected:
            wrong.append(f"{request!r} in {len(parts)} parts: {got}, {seen}")
    seen.clear()
    got = statuses(address, [good + request], 2)
    if got[0] != 200 or not status(got[1]) or seen != [good_seen, *expected]:
        wrong.append(f"{request!r} behind another: {got}, {seen}")


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    slot = {"name": "blue", "weight": 100, "upstream": f"127.0.0.1:{listener.getsockname()[1]}"}
    app = {"name": "web", "generation": 1, "routes": [{"host": "*", "path": "/"}], "slots": [slot]}
    with tempfile.TemporaryDirectory() as directory:
        table = pathlib.Path(directory) / "table.json"
        table.write_text(json.dumps({"revision": 1, "apps": [app]}))
        words = [ROUTER, "--listen", "127.0.0.1:0", "--threads", "1", "--table", str(table)]
        router = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        line = next(line for line in router.stderr if "accepting on " in line)
        host, port = line.split("accepting on ")[1].split()[0].rsplit(":", 1)
        threading.Thread(target=router.stderr.read, daemon=True).start()
        for request, expected in SOUND:
            check((host, int(port)), request, lambda status: status == 200, [expected])
        for request in DEFECTIVE:
            check((host, int(port)), request, lambda status: status in (400, 501), [])
        router.terminate()
        router.wait(20)
    print(json.dumps({"asked": len(SOUND), "refused": len(DEFECTIVE), "wrong": wrong}))


if __name__ == "__main__":
    main()
