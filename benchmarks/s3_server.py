"""An S3 server on this machine in a process of its own, and a cable before it that can be cut.

The server keeps what it has in memory, so a server that dies and comes back with its content is played by the cable:
while it is cut, connections break and new ones are refused.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import boto3

KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "hush", "region_name": "us-east-1"}


class Server:
    """moto's S3 server with one bucket, named bank."""

    def __init__(self, log: Path | None = None, **environment: str) -> None:
        self.port = free_port()
        said = log.open("w") if log else subprocess.DEVNULL
        program = str(Path(sys.executable).parent / "moto_server")
        self.process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(self.port)],
            env={**os.environ, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 60
        while not answers(self.port):
            if time.monotonic() > end:
                raise TimeoutError(f"moto_server does not answer on port {self.port} within 60 s")
            time.sleep(0.05)
        self.client("s3").create_bucket(Bucket="bank")

    def client(self, service: str):
        """A client of one of its services."""
        return boto3.client(service, endpoint_url=f"http://127.0.0.1:{self.port}", **KEYS)

    def freeze(self) -> None:
        """SIGSTOP: connections are taken by the system, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def names(self, prefix: str) -> list[str]:
        """Of every object under a prefix, without it."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket="bank", Prefix=prefix)
        return [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Every object under a prefix by its name without it."""
        client = self.client("s3")
        bodies = {name: client.get_object(Bucket="bank", Key=prefix + name)["Body"] for name in self.names(prefix)}
        return {name: body.read() for name, body in bodies.items()}

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def server(log: Path | None = None, **environment: str) -> Generator[Server, None, None]:
    """A server for the length of a with block."""
    there = Server(log, **environment)
    try:
        yield there
    finally:
        there.close()


class Cable:
    """A TCP connection to a port of this machine, from a port of its own."""

    def __init__(self, to: int) -> None:
        self.to, self.port, self._pairs = to, free_port(), set()
        self._left: int | None = None
        self._listener: socket.socket | None = None
        self.join()

    def join(self) -> None:
        """Whole again."""
        self._left = None
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for end in list(self._pairs):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int) -> None:
        """Cut it once so many more bytes have gone to the server."""
        self._left = count

    def _accept(self, listener: socket.socket) -> None:
        """Two threads a connection."""
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            self._pairs |= {near, far}
            for source, sink, out in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(source, sink, out), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, out: bool) -> None:
        """Bytes one way until either end is closed."""
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                if out and self._left is not None:
                    part, self._left = part[: self._left], self._left - len(part)
                sink.sendall(part)
                if out and self._left is not None and self._left <= 0:
                    self.cut()
        for end in (source, sink):
            self._pairs.discard(end)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def url_of(port: int, prefix: str, keys: str = "k:hush") -> str:
    """The URL of a store in the bucket."""
    return f"s3://{keys}@bank/{prefix}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
