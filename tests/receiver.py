"""A server that is posted to: it answers as it was told, hangs, or never comes to the end of its answer."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HANG, DRIP, NONSENSE = -1, -2, -3  # in the place of a status
SECONDS = 30.0  # that a busy machine may take


@dataclass
class Receiver:
    """What came, and under which address."""

    address: str
    answers: list[int]  # one after the other; the last one again and again
    came: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)  # for what hangs
    news: threading.Condition = field(default_factory=threading.Condition)

    def next_answer(self) -> int:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait_for(self, count: int) -> None:
        """Wait until it was posted to so many times."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.came) >= count, SECONDS), f"{len(self.came)} of {count} came"


@contextmanager
def receiving(*answers: int, certificate: Path | None = None) -> Iterator[Receiver]:
    """Listen for as long as the context lasts. `certificate`: a file with it and its key, for https."""
    found = Receiver("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with found.news:
                found.came.append((self.path, dict(self.headers.items()), body))
                found.news.notify_all()
            match found.next_answer():
                case status if status == HANG:
                    found.released.wait()
                case status if status == DRIP:
                    while not found.released.wait(0.01):
                        self.wfile.write(b"H")
                case status if status == NONSENSE:
                    self.wfile.write(b"220 mail.example.org\r\n\r\n")
                case status:
                    self.send_response(status)
                    self.send_header("Location", f"{found.address}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing: who was answered had left, or did not trust the certificate."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found.address = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield found
        finally:
            found.released.set()
            server.shutdown()
            serving.join()


def write_certificate(file: Path, name: str) -> Path:
    """Write a certificate for this name, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return file
