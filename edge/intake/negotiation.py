"""A-ASSOCIATE: what a peer asks for and what it gets (PS3.8 9.3.2-9.3.4, PS3.7 D.3). pynetdicom does the encoding.

Every storage class, known or private, is accepted in the first transfer syntax that the peer proposes: objects are
kept as they were sent. Beside them only Verification is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pydicom.config
from pynetdicom import _config, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import negotiate_unrestricted
from pynetdicom.sop_class import Verification

from edge.intake.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from edge.intake.policy import Rejection
from edge.intake.upper_layer import ASSOCIATE_RQ, ProtocolError, pdu

_PROTOCOL_VERSION_BIT: Final = 1  # PS3.8 9.3.2: the only bit that is looked at
_SUPPORTED: Final = [build_context(Verification)]


@dataclass(frozen=True)
class Request:
    """What an A-ASSOCIATE-RQ says. `syntaxes`: how many transfer syntaxes each context proposes."""

    calling_ae: str
    called_ae: str
    syntaxes: tuple[int, ...]
    version_is_ours: bool
    largest_pdu_bytes: int
    primitive: Any


@dataclass(frozen=True)
class Accepted:
    """The A-ASSOCIATE-AC to send, and the transfer syntax of each accepted context."""

    content: bytes
    transfer_syntaxes: Mapping[int, str]


def quiet_libraries() -> None:
    """Their messages and warnings quote attribute values: off, in this process."""
    _config.LOG_HANDLER_LEVEL = "none"
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=UserWarning)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE


def parse(value: bytes) -> Request:
    """`value`: the PDU without its first 6 bytes. Raises ProtocolError."""
    try:
        decoded = A_ASSOCIATE_RQ()
        decoded.decode(pdu(ASSOCIATE_RQ, value))
        primitive = decoded.to_primitive()
        contexts = primitive.presentation_context_definition_list
        return Request(
            str(primitive.calling_ae_title).strip(),
            str(primitive.called_ae_title).strip(),
            tuple(len(context.transfer_syntax) for context in contexts),
            bool(decoded.protocol_version & _PROTOCOL_VERSION_BIT),
            int(primitive.maximum_length_received or 0),
            primitive,
        )
    except Exception as error:  # bytes from outside in a library that asserts; the message may quote them
        raise ProtocolError(f"an A-ASSOCIATE-RQ that cannot be read ({type(error).__name__})") from None


def accept(request: Request, pdu_bytes: int) -> Accepted:
    """The answer that accepts what it can; `pdu_bytes`: largest PDU we ask for. Raises ProtocolError."""
    try:
        return _accept(request, pdu_bytes)
    except Exception as error:  # a context without abstract syntax and the like; the message may quote them
        raise ProtocolError(f"an A-ASSOCIATE-RQ that cannot be answered ({type(error).__name__})") from None


def _accept(request: Request, pdu_bytes: int) -> Accepted:
    asked = request.primitive
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    contexts, granted_roles = negotiate_unrestricted(asked.presentation_context_definition_list, _SUPPORTED, roles)
    granted = A_ASSOCIATE()
    granted.application_context_name = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
    granted.calling_ae_title, granted.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    granted.result, granted.result_source = 0, 1
    granted.presentation_context_definition_results_list = contexts
    granted.user_information = [*_about_us(pdu_bytes), *granted_roles]
    syntaxes = {context.context_id: str(context.transfer_syntax[0]) for context in contexts if context.result == 0}
    return Accepted(bytes(A_ASSOCIATE_AC(granted).encode()), syntaxes)


def _about_us(pdu_bytes: int) -> list[Any]:
    length = MaximumLengthNotification()
    length.maximum_length_received = pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    return [length, implementation, version]


def reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    primitive = A_ASSOCIATE()
    primitive.result, primitive.result_source = rejection.result, rejection.source
    primitive.diagnostic = rejection.reason
    return bytes(A_ASSOCIATE_RJ(primitive).encode())
