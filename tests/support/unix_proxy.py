"""A wire that can be cut: a unix socket that forwards to another one, until told not to.

Stands between a client and a real server to show what the client does when the server is away, and when it hangs.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class UnixProxy:
    """``cut`` closes all connections and refuses new ones, ``hang`` keeps them and passes nothing on; ``mend`` lets all
    through again.
    """

    def __init__(self, listen: Path, forward_to: str) -> None:
        self.path = listen
        self._forward_to = forward_to
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(listen))
        self._server.listen(64)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def hang(self) -> None:
        self._flows.clear()

    def cut(self) -> None:
        self._flows.set()
        with self._lock:
            self._is_cut = True
            sockets = list(self._open)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._flows.set()
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        self._closed = True
        self.cut()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(timeout=5)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self._is_cut:
                near.close()
            else:
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._forward_to)
        with self._lock:
            self._open |= {near, far}
        ends = threading.Barrier(2, action=lambda: self._hang_up(near, far))
        for source, sink in ((near, far), (far, near)):
            self._spawn(self._pump, source, sink, ends)

    def _pump(self, source: socket.socket, sink: socket.socket, ends: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                self._flows.wait()
                sink.sendall(block)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with contextlib.suppress(threading.BrokenBarrierError):
            ends.wait(timeout=30)

    def _hang_up(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open -= set(sockets)
        for sock in sockets:
            sock.close()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
