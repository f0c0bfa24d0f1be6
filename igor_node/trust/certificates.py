"""The certificates of a cluster: its CA, and one for each node. Pure: times are arguments, in whole seconds since 1970; nothing is read or written.

    CA     EC P-256, 10 years, CN "igor cluster <id>", from the second generation on with its number behind
    node   EC P-256, 30 days, CN = the node's id, O = the cluster's id, for a server and for a client

A CA that follows another is certified twice: by itself, and by the one before (`follow`). Nodes send both with their own certificate, so that whoever
trusts only the CA of its token, or has not heard of the new one yet, can still verify them. A node asks with a signing request, which never leaves
room for more: the signer puts in the id and the cluster itself and takes nothing over but the key and the names that it finds in order.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_S = 3652 * 86_400  # ten years
NODE_S = 30 * 86_400
SKEW_S = 3_600  # a certificate counts from an hour before it was made: clocks differ
NAMES_LIMIT = 20
REQUEST_LIMIT_BYTES = 8 * 1024
CHAIN_LIMIT_BYTES = 64 * 1024
MARK_BYTES = 8
HOST_NAME = re.compile(r"(?=.{1,253}$)[0-9A-Za-z_]([0-9A-Za-z_-]{0,62})(\.[0-9A-Za-z_]([0-9A-Za-z_-]{0,62}))*")
ALWAYS = ("localhost", "127.0.0.1", "::1")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[^-]{1,20000}-----END CERTIFICATE-----\n?")

UNREADABLE = (
    ValueError, TypeError, IndexError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType, x509.InvalidVersion,
)  # fmt: skip
"""What the library raises at bytes of somebody else."""


class BadRequest(ValueError):
    """A signing request, or a certificate, that is not as it should be; the text is for a person."""


@dataclass(frozen=True)
class Authority:
    """`certificates`: PEM, its own first, then those that earlier generations gave it. `key`: PEM, without a password."""

    certificates: str
    key: str


@dataclass(frozen=True)
class Facts:
    """What a node's certificate says."""

    node: str
    cluster: str
    names: frozenset[str]
    begins_s: int
    ends_s: int
    issuer: str  # the issuing key's identifier, in hex


# --- the CA


def found_authority(cluster: str, now_s: int, generation: int = 1) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(_pem(_authority(key, _authority_name(cluster, generation), key, None, now_s)), _key_pem(key))


def follow(before: Authority, cluster: str, now_s: int, generation: int) -> Authority:
    """The next generation, certified by itself and by the one before; what that one has from its own predecessors is kept."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _authority_name(cluster, generation)
    signer = _authority_certificate(before)
    own = _authority(key, name, key, None, now_s)
    crossed = _authority(key, name, _private_key(before.key), signer, now_s)
    return Authority(_pem(own) + _pem(crossed) + "".join(split_pem(before.certificates)[1:]), _key_pem(key))


def _authority(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, signer: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, now_s: int
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False, key_cert_sign=True,
        crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(now_s - SKEW_S))
        .not_valid_after(_instant(now_s + AUTHORITY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _authority_name(cluster: str, generation: int) -> x509.Name:
    suffix = "" if generation == 1 else f" {generation}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"igor cluster {cluster}{suffix}"[:64])])


def _authority_certificate(authority: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(split_pem(authority.certificates)[0].encode())


# --- a node


def new_key() -> str:
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def ask(key: str, node: str, names: Sequence[str]) -> str:
    """The signing request of a node, PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
    return _text(builder.add_extension(_alternatives(names), critical=False).sign(_private_key(key), hashes.SHA256()))


def certify(authority: Authority, request: str, *, node: str, cluster: str, now_s: int) -> str:
    """The certificate of `node`, PEM. Raises BadRequest."""
    asked = _read_request(request)
    if _common_name(asked.subject) != node:
        raise BadRequest(f"the signing request is for {_common_name(asked.subject)[:100]!r}, not for {node}")
    signer = _private_key(authority.key)
    issuer = _authority_certificate(authority)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False, key_cert_sign=False,
        crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster), x509.NameAttribute(NameOID.COMMON_NAME, node)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(now_s - SKEW_S))
        .not_valid_after(_instant(now_s + NODE_S))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(_alternatives(sorted(_names_of(asked.extensions))), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(made)


def _read_request(request: str) -> x509.CertificateSigningRequest:
    try:
        if len(request) > REQUEST_LIMIT_BYTES:
            raise BadRequest(f"the signing request has more than {REQUEST_LIMIT_BYTES} bytes")
        asked = x509.load_pem_x509_csr(request.encode())
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise BadRequest("the signing request is for a key of another kind; expected EC P-256")
        if not asked.is_signature_valid:
            raise BadRequest("the signing request is not signed with its own key")
        if len(_names_of(asked.extensions)) > NAMES_LIMIT:
            raise BadRequest(f"the signing request asks for more than {NAMES_LIMIT} names")
    except BadRequest:
        raise
    except UNREADABLE as problem:
        raise BadRequest(f"the signing request cannot be read: {problem}") from None
    return asked


def names_of(advertised: str, listening: str, machine: str) -> tuple[str, ...]:
    """The names under which a node may be asked: hosts, without a port; whatever is no name and no address is left out, and so is "every address"."""
    given = dict.fromkeys([*ALWAYS, advertised, listening, machine])
    return tuple(name for name in given if _is_usable(name))[:NAMES_LIMIT]


def _is_usable(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return HOST_NAME.fullmatch(name) is not None


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general(name) for name in names])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(extensions: x509.Extensions) -> frozenset[str]:
    """Host names and addresses alone: nothing else is ever certified."""
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return frozenset(name for name in [*found.get_values_for_type(x509.DNSName), *addresses] if _is_usable(name))


# --- reading


def facts(pem: str) -> Facts:
    """Of the first certificate in the text. Raises BadRequest."""
    try:
        read = x509.load_pem_x509_certificate(split_pem(pem)[0].encode())
        issuer = read.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
        organizations = read.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return Facts(
            node=_common_name(read.subject),
            cluster=str(organizations[0].value) if organizations else "",
            names=_names_of(read.extensions),
            begins_s=int(read.not_valid_before_utc.timestamp()),
            ends_s=int(read.not_valid_after_utc.timestamp()),
            issuer=issuer.hex(),
        )
    except UNREADABLE as problem:
        raise BadRequest(f"the certificate cannot be read: {problem}") from None


def identifier(authority_pem: str) -> str:
    """The identifier of the key of a CA's own certificate, which `Facts.issuer` names."""
    read = x509.load_pem_x509_certificate(split_pem(authority_pem)[0].encode())
    return read.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier.hex()


def trust_mark(issuer: str, trusted: Sequence[str]) -> bytes:
    """Names a CA that issued a certificate (`Facts.issuer`) together with the CAs that its node trusts, each PEM."""
    return hashlib.sha256(" ".join([issuer, *map(fingerprint, trusted)]).encode()).digest()[:MARK_BYTES]


def fits_key(certificate: str, key: str) -> bool:
    """Whether a certificate is that of the key; False where one of the two cannot be read."""
    try:
        read = x509.load_pem_x509_certificate(split_pem(certificate)[0].encode()).public_key()
        own = _private_key(key).public_key()
    except UNREADABLE:
        return False
    return isinstance(read, ec.EllipticCurvePublicKey) and read.public_numbers() == own.public_numbers()


def renew_at_s(known: Facts) -> int:
    """When a certificate is to be renewed: with a third of its life left, in which every voter may be down for a while."""
    return known.ends_s - (known.ends_s - known.begins_s) // 3


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate's DER, 64 hex digits: how a token names its CA."""
    read = x509.load_pem_x509_certificate(split_pem(pem)[0].encode())
    return hashlib.sha256(read.public_bytes(serialization.Encoding.DER)).hexdigest()


def split_pem(text: str) -> list[str]:
    """Each certificate of a text with several. Raises BadRequest where there is none."""
    if len(text) > CHAIN_LIMIT_BYTES:
        raise BadRequest(f"more than {CHAIN_LIMIT_BYTES} bytes of certificates")
    found = [piece if piece.endswith("\n") else piece + "\n" for piece in PEM.findall(text)]
    if not found:
        raise BadRequest("there is no certificate in it")
    return found


def chain(certificate: str, authorities: Sequence[str]) -> str:
    """What a node sends: its own certificate, then each CA's from the newest to the oldest, those of other CAs before its own.

    The order counts: whoever trusts an older CA alone takes the first issuer that fits, and must not end at a CA that is signed by itself.
    """
    crossed = [piece for authority in authorities for piece in split_pem(authority)[1:]]
    own = [split_pem(authority)[0] for authority in authorities]
    return split_pem(certificate)[0] + "".join(dict.fromkeys([*crossed, *own]))


# --- forms


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic one")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _text(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _instant(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
