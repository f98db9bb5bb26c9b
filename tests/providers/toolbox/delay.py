"""Holds UDP packets back for a while in both directions: a longer way to a server in the same container.

Arguments: the port that it listens on, the port of the server, milliseconds for each direction.
"""

import contextlib
import select
import socket
import sys
import time
from collections import deque

PORT, SERVER_PORT, DELAY = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1e3
BUFFER = 1 << 22

Address = tuple[str, int]


def opened(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    made.setblocking(False)  # noqa: FBT003 - the socket module's signature
    made.bind(address)
    return made


public = opened(("0.0.0.0", PORT))
customers: dict[Address, socket.socket] = {}  # each has a socket of its own towards the server
waiting: deque[tuple[float, socket.socket, bytes, Address]] = deque()
customer_of: dict[int, Address | None] = {public.fileno(): None}
sockets: dict[int, socket.socket] = {public.fileno(): public}
poll = select.epoll()
poll.register(public, select.EPOLLIN)


def hear(heard: socket.socket, customer: Address | None) -> None:
    """Take all packets that a socket has. `customer`: whose answers they are; None: they come from customers."""
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, sender = heard.recvfrom(2048)
            due = time.monotonic() + DELAY
            if customer:
                waiting.append((due, public, packet, customer))
                continue
            if sender not in customers:
                customers[sender] = made = opened(("127.0.0.1", 0))
                sockets[made.fileno()], customer_of[made.fileno()] = made, sender
                poll.register(made, select.EPOLLIN)
            waiting.append((due, customers[sender], packet, ("127.0.0.1", SERVER_PORT)))


print("ready", flush=True)
while True:
    for number, _ in poll.poll(max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None):
        hear(sockets[number], customer_of[number])
    while waiting and waiting[0][0] <= time.monotonic():
        way, packet, target = waiting.popleft()[1:]
        with contextlib.suppress(OSError):  # the server is not there, or refuses: lost, as on any way
            way.sendto(packet, target)
