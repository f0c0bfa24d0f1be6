"""Certificates of a cluster: who is certified for what, how long, and what is refused; verified by OpenSSL itself where it counts."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from igor_node.trust import certificates
from igor_node.trust.certificates import AUTHORITY_S, NODE_S, BadRequest
from tests.unit.trust.authorities import NOW_S

AUTHORITY = certificates.found_authority("c1", NOW_S)
KEY = certificates.new_key()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param(b"\x55\x1d\x0f", b"\x55\x1d\x13", "Duplicate", id="an extension twice"),
        pytest.param(b"\x55\x1d\x23", b"\x55\x1d\x2c", "AuthorityKeyIdentifier", id="an extension is missing"),
        pytest.param(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", "", id="no such version"),
    ],
)
def test_a_certificate_that_is_spoiled_cannot_be_read(before: bytes, after: bytes, said: str) -> None:
    authority = certificates.found_authority("c", 0)
    der = base64.b64decode("".join(certificates.split_pem(authority.certificates)[0].splitlines()[1:-1]))
    pem = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der.replace(before, after)).decode() + "-----END CERTIFICATE-----\n"
    with pytest.raises(certificates.BadRequest, match=f"cannot be read.*{said}"):
        certificates.facts(pem)


def request(node: str = "node-1", names: tuple[str, ...] = ("localhost",)) -> str:
    return certificates.ask(KEY, node, names)


def test_a_node_gets_what_it_is_and_nothing_more() -> None:
    made = certificates.certify(AUTHORITY, request(names=("localhost", "10.0.0.7")), node="node-1", cluster="c1", now_s=NOW_S)
    known = certificates.facts(made)
    assert (known.node, known.cluster, known.names) == ("node-1", "c1", {"localhost", "10.0.0.7"})
    assert (known.ends_s - NOW_S, known.issuer) == (NODE_S, certificates.identifier(AUTHORITY.certificates))
    read = x509.load_pem_x509_certificate(made.encode())
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificates.fits_key(made, KEY) and not certificates.fits_key(made, certificates.new_key())


def test_it_is_renewed_with_a_third_of_its_life_left() -> None:
    known = certificates.facts(certificates.certify(AUTHORITY, request(), node="node-1", cluster="c1", now_s=NOW_S))
    left = known.ends_s - certificates.renew_at_s(known)
    assert 10 * 86_400 <= left <= 10 * 86_400 + 3_600


def test_the_authority_lives_ten_years_and_is_named_by_its_digest() -> None:
    read = x509.load_pem_x509_certificate(AUTHORITY.certificates.encode())
    assert int(read.not_valid_after_utc.timestamp()) == NOW_S + AUTHORITY_S
    assert certificates.fingerprint(AUTHORITY.certificates) == read.fingerprint(hashes.SHA256()).hex()
    assert read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def other_kind(key: object, name: str = "node-1", extension: object = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def damaged() -> str:
    lines = request().splitlines()
    return "\n".join([lines[0], lines[1][::-1], *lines[2:]])


@pytest.mark.parametrize(
    "asked, word",
    [
        pytest.param("", "cannot be read", id="nothing"),
        pytest.param("x" * 10_000, "more than", id="too long"),
        pytest.param(request("node-2"), "not for node-1", id="another node's name"),
        pytest.param(other_kind(rsa.generate_private_key(65537, 2048)), "P-256", id="an RSA key"),
        pytest.param(other_kind(ec.generate_private_key(ec.SECP384R1())), "P-256", id="another curve"),
        pytest.param(request(names=tuple(f"n{n}.example" for n in range(21))), "more than 20 names", id="too many names"),
        pytest.param(damaged(), "signing request", id="damaged"),
    ],
)
def test_what_is_not_in_order_is_not_signed(asked: str, word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        certificates.certify(AUTHORITY, asked, node="node-1", cluster="c1", now_s=NOW_S)


def test_nobody_becomes_an_authority_by_asking() -> None:
    """What a request says besides key and host names is not taken over."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = certificates.certify(
        AUTHORITY, other_kind(key, extension=x509.BasicConstraints(ca=True, path_length=None)), node="node-1", cluster="c1", now_s=NOW_S
    )
    assert not x509.load_pem_x509_certificate(made.encode()).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    mail = other_kind(key, extension=x509.SubjectAlternativeName([x509.RFC822Name("a@b.example"), x509.DNSName("ok.example"), x509.DNSName("*.b")]))
    assert certificates.facts(certificates.certify(AUTHORITY, mail, node="node-1", cluster="c1", now_s=NOW_S)).names == {"ok.example"}


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_whatever_a_machine_is_called_its_request_can_be_made_and_signed(advertised: str, listening: str, machine: str) -> None:
    names = certificates.names_of(advertised, listening, machine)
    made = certificates.certify(AUTHORITY, certificates.ask(KEY, "n", names), node="n", cluster="c1", now_s=NOW_S)
    assert certificates.facts(made).names == set(names) >= {"localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize("nobody", ["0.0.0.0", "::", "", "*.example", "a b", "-x"])
def test_every_address_is_no_name(nobody: str) -> None:
    assert nobody not in certificates.names_of(nobody, "10.0.0.7", "machine")


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x" * 70_000])
def test_what_is_no_certificate_is_said_so(text: str) -> None:
    with pytest.raises(BadRequest):
        certificates.facts(text)
    assert not certificates.fits_key(text, KEY)
