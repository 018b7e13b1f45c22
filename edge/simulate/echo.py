"""A C-ECHO client: does a DICOM receiver answer (PS3.4 A, Verification; PS3.7 9.1.5)?"""

from __future__ import annotations

import socket

from pynetdicom import AE
from pynetdicom.sop_class import Verification

SUCCESS = 0x0000


def echo(host: str, port: int, called_ae: str, calling_ae: str = "RADBOX-SIM", *, timeout_s: float = 2.0) -> bool:
    """True if the receiver takes an association and answers C-ECHO with success within `timeout_s`."""
    try:  # asked first: pynetdicom leaves its socket open where nobody listens
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    ae = AE(ae_title=calling_ae)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title=called_ae)
    if not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status") == SUCCESS)
    finally:
        association.release()
