"""Where the page is served, and how its address is told."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np

from robot_rl.types import RobotRLError

PORT = 8080


def address_of(where: str) -> tuple[str, int]:
    """Host and port of "", "8080", "0.0.0.0:8080" or "[::]:8080"."""
    host, _, port = where.rpartition(":")
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise RobotRLError(f"'web:{where}' names no port: use web:8080, or web:0.0.0.0:8080 for the whole network")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port or PORT)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises where none can."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RobotRLError(
            f"no page can be served at {host}:{port}: {error.strerror}. Take another port, as in web:8081; "
            "the host is this machine's own, 0.0.0.0 for all of its networks, or left out for this machine alone."
        ) from error


def is_elsewhere(listening: socket.socket) -> bool:
    """Other machines reach it."""
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def square(text: str) -> str:
    """A QR code for a phone's camera, two of its rows in one of the terminal's; drawn is what is light on paper."""
    import cv2

    light = cv2.QRCodeEncoder.create().encode(text) > 0
    light = np.pad(light, ((0, len(light) % 2), (0, 0)), constant_values=True)
    return "\n".join("".join(" ▄▀█"[two] for two in row) for row in 2 * light[::2] + light[1::2])


def reachable(listening: socket.socket) -> str:
    """The host for the page's address; where all networks are meant, this machine's number in the one it sends by."""
    host = str(listening.getsockname()[0])
    if ipaddress.ip_address(host).is_unspecified:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # nothing is sent; the address is nobody's
                host = probe.getsockname()[0]
            except OSError:
                host = socket.gethostname()
    return f"[{host}]" if ":" in host else host
