"""An Xray provider: an inbound for each way in, all of one account. It says `ready` when it answers.

Settings: a JSON file, first argument: id, password, keys of 16 and 32 bytes for Shadowsocks 2022, Reality's private
key, public name and short_id, and the folder with the certificate that TLS shows.
"""

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

START_SECONDS, BORROWED_PORT = 120, 8443  # the former in emulation, beside others
settings = json.loads(Path(sys.argv[1]).read_text())
certificate, expired = (f"{settings['folder']}/{name}.pem" for name in ("xray", "expired"))


def tls(file: str) -> dict[str, Any]:
    return {
        "security": "tls",
        "tlsSettings": {"certificates": [{"certificateFile": file, "keyFile": file}]},
    }


TLS = tls(certificate)
REALITY = {
    "security": "reality",
    "realitySettings": {
        "target": f"127.0.0.1:{BORROWED_PORT}",
        "serverNames": [settings["name"]],
        "privateKey": settings["private_key"],
        "shortIds": [settings["short_id"]],
    },
}


def vless(flow: str = "") -> dict[str, Any]:
    return {"protocol": "vless", "settings": {"clients": [{"id": settings["id"], "flow": flow}], "decryption": "none"}}


VMESS = {"protocol": "vmess", "settings": {"clients": [{"id": settings["id"]}]}}
TROJAN = {"protocol": "trojan", "settings": {"clients": [{"password": settings["password"]}]}}


def shadowsocks(method: str, password: str) -> dict[str, Any]:
    return {
        "protocol": "shadowsocks",
        "settings": {"method": method, "password": password, "network": "tcp,udp"},
    }


def over(network: str, **options: Any) -> dict[str, Any]:
    return {"network": network, **({f"{network}Settings": options} if options else {})}


# By port: what is spoken, and over what.
WAYS: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    443: (vless("xtls-rprx-vision"), over("tcp") | REALITY),
    1001: (vless(), over("xhttp", path="/x") | REALITY),
    1002: (vless(), over("grpc", serviceName="service") | REALITY),
    1003: (vless("xtls-rprx-vision"), over("tcp") | TLS),
    1004: (vless(), over("ws", path="/ws") | TLS),
    1005: (vless(), over("httpupgrade", path="/up") | TLS),
    1006: (TROJAN, over("tcp") | TLS),
    1007: (VMESS, over("ws", path="/vm") | TLS),
    1008: (VMESS, over("tcp")),
    1009: (shadowsocks("2022-blake3-aes-128-gcm", settings["key16"]), over("tcp")),
    1010: (shadowsocks("2022-blake3-chacha20-poly1305", settings["key32"]), over("tcp")),
    1011: (shadowsocks("aes-256-gcm", settings["password"]), over("tcp")),
    1012: (TROJAN, over("tcp") | tls(expired)),
}


def lend_a_handshake() -> None:
    """Serve TLS 1.3 to many at once: Reality borrows the handshake, and looks at it when it starts."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                while wrapped.recv(4096):
                    wrapped.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            connection.close()

    server = socket.create_server(("127.0.0.1", BORROWED_PORT))
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main() -> None:
    threading.Thread(target=lend_a_handshake, daemon=True).start()
    document = {
        "log": {"loglevel": "warning"},
        # By default it would hold each connection for a second after one side is through, whatever the exit does.
        "policy": {"levels": {"0": {"uplinkOnly": 0, "downlinkOnly": 10}}},
        "inbounds": [{"port": port, "streamSettings": stream, **protocol} for port, (protocol, stream) in WAYS.items()],
        "outbounds": [{"protocol": "freedom", "settings": {"domainStrategy": "UseIPv4"}}],
    }
    Path("/run/xray.json").write_text(json.dumps(document))
    xray = subprocess.Popen(["xray", "run", "-c", "/run/xray.json"])
    deadline = time.monotonic() + START_SECONDS
    for port in WAYS:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline or xray.poll() is not None:
                    raise SystemExit("xray does not start") from None
                time.sleep(0.1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        xray.wait()
        raise SystemExit("xray ended")
    finally:
        xray.terminate()


if __name__ == "__main__":
    main()
