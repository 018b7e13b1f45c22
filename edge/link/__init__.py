"""Other machines of the LAN: status for an MQTT broker, a printer whose trouble is told. Nothing of patients."""

from __future__ import annotations
