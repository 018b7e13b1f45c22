"""A real mosquitto with TLS and passwords for tests, its certificate authority, and a client that listens."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.board import Board, load_board

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NEEDS_BROKER = pytest.mark.skipif(MOSQUITTO is None and "CI" not in os.environ, reason="no mosquitto")
BOX, BOX_PASSWORD = "box", "a secret of the box"
LISTENER, LISTENER_PASSWORD = "listener", "another secret"


def until(found: Callable[[], object], what: str = "something", timeout_s: float = 15.0) -> None:
    """Wait."""
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(0.02)


def make_authority(folder: Path, name: str) -> Path:
    """A CA and a server certificate for 127.0.0.1 signed by it: ca.pem (returned), server.pem, server.key."""
    folder.mkdir()
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)

    def certificate(
        whose: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(whose)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(extension, critical=True)
            .sign(ca_key, hashes.SHA256())
        )

    authority = certificate(issuer, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = certificate(subject, key.public_key(), names)
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem"


@dataclass
class Peer:
    """A broker that can be killed and started again on the same port, and loses nothing it has acknowledged."""

    folder: Path
    port: int
    ca_file: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert MOSQUITTO is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        until(self._listens, "broker")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Pull its plug."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def board(self, **mqtt: object) -> Board:
        """The simulated board, its data beside the broker's folder, speaking to this broker."""
        sim = load_board(Path(__file__).resolve().parent.parent / "board_configs" / "sim.toml")
        self.folder.mkdir(exist_ok=True)
        (self.folder / "password").write_text(BOX_PASSWORD + "\n")
        values: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "ca_file": str(self.ca_file),
            "username": BOX,
            "password_file": str(self.folder / "password"),
            **mqtt,
        }
        return replace(sim, data_dir=self.folder.parent / "data", mqtt=replace(sim.mqtt, **values))  # type: ignore[arg-type]


@contextmanager
def broker(folder: Path) -> Iterator[Peer]:
    """A broker in `folder`: TLS only, passwords only, and user BOX may publish below radbox/ and homeassistant/."""
    ca_file = make_authority(folder / "authority", "radbox test CA")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    passwords = folder / "passwords"
    passwords.touch(0o600)
    for name, word in ((BOX, BOX_PASSWORD), (LISTENER, LISTENER_PASSWORD)):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), name, word], check=True, capture_output=True)
    rights = folder / "rights"
    rights.write_text(
        f"user {BOX}\ntopic write radbox/#\ntopic write homeassistant/#\nuser {LISTENER}\ntopic readwrite #\n"
    )
    rights.chmod(0o600)
    (folder / "mosquitto.conf").write_text(
        f"""listener {port} 127.0.0.1
cafile {ca_file}
certfile {ca_file.with_name("server.pem")}
keyfile {ca_file.with_name("server.key")}
password_file {passwords}
acl_file {rights}
allow_anonymous false
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
user root
log_type all
"""
    )
    peer = Peer(folder, port, ca_file)
    peer.start()
    try:
        yield peer
    finally:
        peer.kill()


@dataclass
class Listener:
    """Everything that was published since it listens; survives the broker's restarts by connecting again."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def last(self, topic: str) -> str | None:
        """The newest message of the topic that ends in `topic`."""
        return next((text for name, text in reversed(self.messages) if name.endswith(f"/{topic}")), None)

    def all(self, topic: str) -> list[str]:
        """Every message of the topic that ends in `topic`."""
        return [text for name, text in self.messages if name.endswith(f"/{topic}")]


@contextmanager
def listening(peer: Peer) -> Iterator[Listener]:
    """A client that hears everything."""
    heard = Listener()
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=MQTTProtocolVersion.MQTTv5)
    client.tls_set_context(ssl.create_default_context(cafile=str(peer.ca_file)))
    client.username_pw_set(LISTENER, LISTENER_PASSWORD)
    client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]
    client.on_connect = lambda one, *_: one.subscribe("#", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _own, message: heard.messages.append((message.topic, message.payload.decode()))
    # A session that the broker keeps: what comes while this client is still away is not missed.
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    client.connect_async("127.0.0.1", peer.port, clean_start=False, properties=kept)
    client.loop_start()
    try:
        assert ready.wait(10)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()
