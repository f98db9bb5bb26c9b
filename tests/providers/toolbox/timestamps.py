"""Keeps the kernel stamping packets with their time, for as long as it runs.

Each ping turns that on at its start and off at its end, and the kernel does so by changing its own code. In an emulated
machine with several processors that can end in a panic: another processor still executes what stood there meanwhile.
"""

import signal
import socket

SO_TIMESTAMP = 29  # Python's socket module does not have it

kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
kept.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
