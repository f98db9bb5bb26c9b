"""A name server with a few addresses, as a resolver would give them. First argument: its address.

Second: a JSON file, name to address, which is read for each question. It prints each question with who asked.
"""

import json
import socket
import struct
import sys
from pathlib import Path

A, NO_SUCH_NAME = 1, 3
address, file = sys.argv[1], Path(sys.argv[2])


def answer(question: bytes, peer: str) -> bytes:
    at, labels = 12, []
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    name, kind, end = ".".join(labels), *struct.unpack_from("!H", question, at + 1), at + 5
    print(f"asked by {peer}: {name}", flush=True)
    found = json.loads(file.read_text()).get(name)
    data = socket.inet_aton(found) if found and kind == A else b""
    code = 0 if found else NO_SUCH_NAME
    head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if data else 0, 0, 0) + question[12:end]
    return head + (b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 1, len(data)) + data if data else b"")


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((address, 53))
    print("ready", flush=True)
    while True:
        packet, peer = server.recvfrom(4096)
        server.sendto(answer(packet, peer[0]), peer)
