"""One end of a plain strongSwan pair in transport mode, as a measure of what rekeying costs without anything else.

Arguments: `server` or `client`, the other end's address, the IKE version, and the lifetimes of IKE and of ESP in
seconds. The server echoes UDP on port 7. It says `ready`, the client once it is connected, and charon's own words.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

ROLE, OTHER, VERSION, IKE, ESP = sys.argv[1:]
IKE_ROOM, ESP_ROOM = round(int(IKE) / 8), round(int(ESP) / 6)
LISTEN_SECONDS, PORT = 60, 7
SELECTORS = f"local_ts = dynamic[17/{PORT}]\n      remote_ts = dynamic[17]"
if ROLE == "client":
    SELECTORS = f"local_ts = dynamic[17]\n      remote_ts = dynamic[17/{PORT}]"

Path("/run/strongswan.conf").write_text("""\
charon-systemd {
  load = random nonce openssl kernel-netlink socket-default vici
  install_routes = no
  filelog {
    out {
      path = stdout
      flush_line = yes
      default = 0
      ike = 1
    }
  }
}
swanctl {
  load = random openssl pem
}
""")
Path("/run/swanctl.conf").write_text(f"""\
connections {{
  pair {{
    version = {VERSION}
    remote_addrs = {OTHER}
    proposals = aes256-sha256-modp2048
    mobike = no
    rekey_time = {int(IKE) - IKE_ROOM}
    over_time = {IKE_ROOM}
    rand_time = {IKE_ROOM}
    local {{
      auth = psk
    }}
    remote {{
      auth = psk
    }}
    children {{
      pair {{
        mode = transport
        {SELECTORS}
        esp_proposals = aes256gcm16
        rekey_time = {int(ESP) - ESP_ROOM}
        life_time = {ESP}
        rand_time = {ESP_ROOM}
      }}
    }}
  }}
}}
secrets {{
  ike-all {{
    secret = "a pair of the test ground"
  }}
}}
""")


def until(*command: str) -> None:
    """Try until it succeeds."""
    deadline = time.monotonic() + LISTEN_SECONDS
    while subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"{' '.join(command)}: not within {LISTEN_SECONDS} s")
        time.sleep(0.2)


charon = subprocess.Popen(["charon-systemd"])
until("swanctl", "--load-all", "--file", "/run/swanctl.conf")
if ROLE == "client":
    until("swanctl", "--initiate", "--child", "pair", "--timeout", "10")
print("ready", flush=True)
if ROLE == "server":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("", PORT))
        while True:
            packet, peer = echo.recvfrom(2048)
            echo.sendto(packet, peer)
charon.wait()
