"""The connection to the broker: MQTT 5 (OASIS standard, 2019) over TLS, in a thread of its own.

Two kinds of messages leave. What is *shown* is how the box is now: retained, the newest only, told anew after every
connect. What lies in the outbox is news: durable, in order, at least once (QoS 1), and it stays there until the broker
has acknowledged it (PUBACK, section 4.3.2). Nothing waits in paho's memory: every connection is a new client, and what
it did not get acknowledged is still in the outbox.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.board import Mqtt
from edge.errors import RadboxError
from edge.link.topics import OFFLINE, ONLINE
from edge.service import Stop
from edge.store_rows import OutboxRow

CREDENTIAL: Final = "mqtt-password"  # systemd LoadCredential= or SetCredential=
KEEPALIVE_S: Final = 30  # the broker sends the last will after 1.5 times this (section 3.1.2.10)
CONNECT_TIMEOUT_S: Final = 5.0  # of TCP, and again of the TLS handshake
GREETING_TIMEOUT_S: Final = 10.0  # from TLS to CONNACK
GOODBYE_TIMEOUT_S: Final = 2.0
STEP_S: Final = 1.0
WINDOW: Final = 10  # messages of the outbox under way at once; fewer where the broker says so
SHORTEST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
STEADY_S: Final = 30.0  # a connection that held so long was a good one

# What went wrong, by code, in words for the page.
TROUBLE: Final[dict[str, str]] = {
    "mqtt.name": "The name of the MQTT broker is not known in this network.",
    "mqtt.unreachable": "The MQTT broker does not answer.",
    "mqtt.certificate": "The certificate of the MQTT broker is not one that this box trusts.",
    "mqtt.tls": "The MQTT broker does not speak TLS as this box does.",
    "mqtt.ca-file": "The file with the MQTT broker's CA certificate cannot be read.",
    "mqtt.password-file": "The file with the MQTT password cannot be read.",
    "mqtt.password": "The MQTT broker does not accept the user name or the password.",
    "mqtt.not-allowed": "The MQTT broker does not allow this box to publish here.",
    "mqtt.taken-over": "Another client uses this box's name at the MQTT broker.",
    "mqtt.refused": "The MQTT broker refuses this box.",
    "mqtt.lost": "The connection to the MQTT broker broke off.",
}
# Reason codes (section 2.4) of CONNACK, where "not authorized" is what a wrong password gets, and of DISCONNECT.
_AT_GREETING: Final[dict[int, str]] = {0x86: "mqtt.password", 0x87: "mqtt.password", 0x8C: "mqtt.password"}
_LATER: Final[dict[int, str]] = {0x87: "mqtt.not-allowed", 0x8E: "mqtt.taken-over"}
_LOG = logging.getLogger("radbox.link")


class MqttError(RadboxError):
    """No connection, or one that ended; the codes are those of TROUBLE."""

    default_code = "mqtt.lost"

    def __init__(self, code: str) -> None:
        super().__init__(TROUBLE[code], code=code)


class Outbox(Protocol):
    """What is used of the store."""

    def outbox(self, limit: int = 100) -> list[OutboxRow]:
        """What waits, oldest first."""
        ...

    def sent(self, outbox_key: int) -> None:
        """The broker has acknowledged the message."""
        ...


@dataclass(frozen=True)
class Address:
    """Where this box speaks. `status`: the topic of ONLINE and OFFLINE; all of it may be known to anybody."""

    client_id: str
    status: str


class Pauses:
    """1, 2, 4 ... 60 s, each shortened by chance so that many boxes do not come back in the same moment."""

    def __init__(self) -> None:
        self._next_s = SHORTEST_PAUSE_S

    def reset(self) -> None:
        """The next pause is the shortest again."""
        self._next_s = SHORTEST_PAUSE_S

    def next_s(self) -> float:
        """The next pause in seconds."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.5, 1.0)


class Broker:
    """Keeps a connection; `run` is a thread's, everything else may be called by any."""

    def __init__(self, settings: Mqtt, address: Address, outbox: Outbox, moved: Callable[[], None]) -> None:
        """`moved` is called at least every few seconds while the thread works."""
        self._settings, self._address, self._outbox, self._moved = settings, address, outbox, moved
        self._lock = threading.Lock()
        self._shown: dict[str, str] = {}
        self._unsent: set[str] = set()  # topics of _shown
        self._connections = 0
        self._connected = False
        self._trouble = ""
        self._news = threading.Event()
        self._news.set()

    # --- for the other threads ---

    def show(self, topic: str, payload: str) -> None:
        """Let the topic's retained message be `payload`, now or as soon as there is a connection."""
        with self._lock:
            self._shown[topic] = payload
            self._unsent.add(topic)

    def news(self) -> None:
        """Something was put into the outbox."""
        self._news.set()

    @property
    def connected(self) -> bool:
        """True from the broker's CONNACK on."""
        return self._connected

    @property
    def connections(self) -> int:
        """How many there were."""
        return self._connections

    @property
    def trouble(self) -> str:
        """A key of TROUBLE while there is no connection; "" before the first try."""
        return self._trouble

    # --- the thread ---

    def run(self, stop: Stop) -> None:
        """Connect, serve, and after a pause again, until `stop`."""
        pauses = Pauses()
        while not stop.is_set():
            start_s = time.monotonic()
            try:
                self._serve(stop)
            except MqttError as error:
                self._lost(error)
            except RadboxError as error:  # the store: the disk is full, a repair goes on
                _LOG.error("%s: %s", error.code, error.message)
            finally:
                self._connected = False
            if time.monotonic() - start_s > STEADY_S:
                pauses.reset()
            self._pause(pauses.next_s(), stop)

    def _pause(self, pause_s: float, stop: Stop) -> None:
        end_s = time.monotonic() + pause_s
        while not stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
            self._moved()
            stop.wait(min(left_s, CONNECT_TIMEOUT_S))

    def _lost(self, error: MqttError) -> None:
        if error.code != self._trouble:
            _LOG.warning("%s: %s", error.code, error.message)
        self._trouble = error.code

    def _serve(self, stop: Stop) -> None:
        """One connection from beginning to end. Raises MqttError, and what the outbox raises."""
        session = _Session(self._settings, self._address, self._outbox)
        try:
            session.open()
            with self._lock:
                self._unsent = set(self._shown)
            self._connected, self._trouble = True, ""
            self._connections += 1
            self._news.set()
            _LOG.info("connected to the MQTT broker")
            while not stop.is_set():
                self._moved()
                for topic, payload in self._to_show():
                    session.tell(topic, payload)
                session.step(self._news)
            session.goodbye()
        finally:
            session.close()

    def _to_show(self) -> list[tuple[str, str]]:
        with self._lock:
            topics, self._unsent = sorted(self._unsent), set()
            return [(topic, self._shown[topic]) for topic in topics]


class _Session:
    """One connection and its client, driven by the thread that made it."""

    def __init__(self, settings: Mqtt, address: Address, outbox: Outbox) -> None:
        self._settings, self._status, self._outbox = settings, address.status, outbox
        self._window = WINDOW
        self._greeting: ReasonCode | None = None
        self._end: ReasonCode | None = None
        self._acknowledged: list[tuple[int, ReasonCode]] = []
        self._under_way: dict[int, int] = {}  # message id -> key of the outbox
        self._last_told = 0  # message id
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=address.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages = WINDOW
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.will_set(self._status, OFFLINE, qos=1, retain=True)
        self._client = client
        self._tls: _Tls | None = None

    # --- what paho calls, from inside its own calls ---

    def _on_connect(self, _client: Any, _own: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._greeting = reason
        self._window = max(1, min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW)))

    def _on_disconnect(self, _client: Any, _own: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._end = reason

    def _on_publish(self, _client: Any, _own: Any, message: int, reason: ReasonCode, _properties: Any) -> None:
        self._acknowledged.append((message, reason))

    # --- what the thread does ---

    def open(self) -> None:
        """Until the broker's CONNACK. Raises MqttError."""
        settings, client = self._settings, self._client
        if settings.tls:
            self._tls = _tls(settings.ca_file)
            client.tls_set_context(self._tls)
        if settings.username:
            client.username_pw_set(settings.username, password(settings))
        try:
            client.connect(settings.host, settings.port, keepalive=KEEPALIVE_S, clean_start=True)
        except ssl.SSLCertVerificationError:
            raise MqttError("mqtt.certificate") from None
        except ssl.SSLError:
            raise MqttError("mqtt.tls") from None
        except (socket.gaierror, UnicodeError):
            raise MqttError("mqtt.name") from None
        except OSError:
            raise MqttError("mqtt.unreachable") from None
        deadline_s = time.monotonic() + GREETING_TIMEOUT_S
        while self._greeting is None:
            if time.monotonic() > deadline_s:
                raise MqttError("mqtt.unreachable")
            self._loop()
        if self._greeting.is_failure:
            raise MqttError(_AT_GREETING.get(self._greeting.value, "mqtt.refused"))
        self.tell(self._status, ONLINE)

    def tell(self, topic: str, payload: str) -> None:
        """Publish a retained message."""
        self._last_told = self._client.publish(topic, payload, qos=1, retain=True).mid

    def step(self, news: threading.Event) -> None:
        """Send what waits, listen for a moment, forget what was acknowledged. Raises MqttError."""
        room = self._window - len(self._under_way)
        if room > 0 and news.is_set():
            news.clear()
            rows = self._outbox.outbox(self._window)
            keys = set(self._under_way.values())
            for row in [row for row in rows if row.outbox_key not in keys][:room]:
                self._under_way[self._client.publish(row.topic, row.payload, 1).mid] = row.outbox_key
        self._loop()
        acknowledged, self._acknowledged = self._acknowledged, []
        for message, reason in acknowledged:
            if reason.is_failure:
                raise MqttError("mqtt.not-allowed")
            key = self._under_way.pop(message, None)
            if key is not None:
                self._outbox.sent(key)
                news.set()  # there may be more than a window of them

    def goodbye(self) -> None:
        """Say that the box goes on purpose; a broker that does not answer any more says it by the last will."""
        self.tell(self._status, OFFLINE)
        deadline_s = time.monotonic() + GOODBYE_TIMEOUT_S
        while self._last_told not in [message for message, _ in self._acknowledged]:
            if time.monotonic() > deadline_s:
                return
            self._loop()
        self._client.disconnect()

    def close(self) -> None:
        """Without a word where `goodbye` was not said, so that the broker sends the last will."""
        for held in (self._client.socket(), self._tls.wrapped if self._tls else None):
            if held is not None:
                held.close()

    def _loop(self) -> None:
        result = self._client.loop(STEP_S)
        if self._greeting is not None and self._greeting.is_failure:
            return
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or self._end is not None:
            raise MqttError("mqtt.lost" if self._end is None else _LATER.get(self._end.value, "mqtt.lost"))


class _Tls(ssl.SSLContext):
    """Verifies certificate and host name, always. Keeps what it wrapped: paho lets go of a socket that it refused."""

    wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As SSLContext."""
        self.wrapped = super().wrap_socket(*arguments, **options)
        return self.wrapped


def _tls(ca_file: str) -> _Tls:
    """Trusts the CAs of the file, or those of the system where there is none. Raises MqttError."""
    context = _Tls(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname are its defaults
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file:
            context.load_verify_locations(ca_file)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError):
        raise MqttError("mqtt.ca-file") from None
    return context


def password(settings: Mqtt) -> str | None:
    """First line of systemd's credential, else of the board's file; None where there is neither. Raises MqttError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(folder, CREDENTIAL) if folder else None
    try:
        if credential is not None and credential.exists():
            return _first_line(credential)
        return _first_line(Path(settings.password_file)) if settings.password_file else None
    except (OSError, UnicodeError):
        raise MqttError("mqtt.password-file") from None


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
