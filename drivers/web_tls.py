"""How the page is served: with TLS or without, and where its address is told."""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from robot_rl.types import RobotRLError


@dataclass(frozen=True)
class WebConfig:
    """Of `--device web` and `--teleop web`."""

    cert: Path | None = None
    """certificate of this machine for https, PEM, with the chain above it; wants `key` too"""
    key: Path | None = None
    """its private key, PEM, without a pass phrase"""
    address: Path | None = None
    """write the addresses with their tokens to this file, which only you may read, and not to the terminal"""


PLAIN = WebConfig()


def context_of(config: WebConfig) -> ssl.SSLContext | None:
    """What serves TLS by the files of `config`, None: it names none. Raises where they serve nobody."""
    if config.cert is None and config.key is None:
        return None
    if config.cert is None or config.key is None:
        lacking, given = ("key", "cert") if config.key is None else ("cert", "key")
        raise RobotRLError(f"--web.{given} alone serves no TLS: name its --web.{lacking} too")
    for file in (config.cert, config.key):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            raise RobotRLError(f"{file} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert, config.key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise RobotRLError(_in_words(config.cert, config.key, error)) from error
    _require_valid(context, config.cert)
    return context


def refuse_unused(config: WebConfig, device: str | None) -> None:
    """Raise where `config` says something, and the device is no web page, or there is none."""
    if config != PLAIN and (device or "").partition(":")[0] != "web":
        raise RobotRLError(f"--web.* says how a web page is served, and the person's device is {device or 'none'}")


def write_private(file: Path, text: str) -> None:
    """So that nobody else reads it at any time; whatever was there is replaced. Raises where it cannot be written."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
        fresh.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise RobotRLError(f"--web.address {file} cannot be written: {error.strerror}") from error


def _in_words(cert: Path, key: Path, error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    if "MISMATCH" in reason:
        return f"{key} is not the key of {cert}: name the two that were made together"
    return (
        f"{cert} and {key} are no certificate and key in PEM without a pass phrase ({reason}). For a try: openssl req "
        "-x509 -newkey rsa:3072 -nodes -days 90 -subj /CN=$(hostname) -keyout key.pem -out cert.pem"
    )


def _require_valid(server: ssl.SSLContext, cert: Path) -> None:
    """Shake hands in memory, as a browser that trusts this very certificate: what is left to refuse is its time."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(4):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise RobotRLError(
            f"{cert} serves nobody: {error.verify_message}; renew it, or set this machine's clock"
        ) from error
