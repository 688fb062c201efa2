"""The first meeting with a scheduler: who is there, and whose papers are refused, in words.

The engine would say no more than that it timed out.
"""

import socket
import ssl
from pathlib import Path

from pipeline.errors import EnvironmentFault, UsageError
from pipeline.fleet.address import Address
from pipeline.project import Project
from pipeline.shared.fleet_file import find_certificates, find_party_name
from pipeline.walls.certificates import Party, find_party

_CONNECT_S = 10.0
_SILENCE_S = 1.5


def require_scheduler(address: Address, party: Party | None) -> None:
    """Meet it once, with a word on what is wrong: nobody there, no TLS, who refuses whose papers.

    Raises EnvironmentFault.
    """
    nobody = f"no scheduler answers at {address}"
    start = "doit fleet scheduler starts one; doit fleet status shows it"
    try:
        with socket.create_connection((address.host, address.port), _CONNECT_S) as connection:
            if party is not None and address.is_encrypted:
                _shake_hands(connection, address, party)
    except ssl.SSLCertVerificationError as error:
        raise EnvironmentFault(
            f"{address} has a certificate that {party and party.authority} does not vouch for:"
            f" {error.verify_message}",
            hint="it is another fleet's, or expired: doit fleet certificates",
        ) from error
    except ssl.SSLError as error:
        raise EnvironmentFault(
            f"{address} refuses the certificate of {party and party.name}: {error.reason}",
            hint="it is of another authority, or expired, or no TLS is spoken there",
        ) from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        raise EnvironmentFault(f"{nobody}: {reason}", hint=start) from error


def _shake_hands(connection: socket.socket, address: Address, party: Party) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # any party of the fleet may be anywhere, as for the engine
    context.load_verify_locations(party.authority)
    context.load_cert_chain(party.certificate, party.key)
    with context.wrap_socket(connection, server_hostname=address.host) as stream:
        # of TLS 1.3 the other end's refusal comes after the handshake
        stream.settimeout(_SILENCE_S)
        try:
            stream.recv(1)
        except TimeoutError:
            return


def require_party(address: Address, party: Party | None) -> Party | None:
    """Who we are there: None without TLS; UsageError where TLS lacks certificates."""
    if not address.is_encrypted:
        return None
    if party is None:
        raise UsageError(
            f"{address}: TLS needs certificates", hint="doit fleet certificates makes them"
        )
    party.require_valid()
    return party


def find_own_party(project: Project, folder: Path | None, name: str | None) -> Party | None:
    """Who we are in the fleet; None where this site has no certificates, and none are asked for."""
    place = folder or find_certificates(project)
    if folder is None and not name and not (place / "ca.pem").is_file():
        return None
    return find_party(place, name or find_party_name(project))
