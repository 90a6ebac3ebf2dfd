"""Certificates and keys of a deployment: a CA, the SuperLink's certificate, an authentication key for each SuperNode.

Each file goes to one place: `ca.pem` to everybody, `server.*` to the SuperLink, `node-NNN/` to that node's host and to
nowhere else. `ca.key` signs certificates and belongs on none of them.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 365


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def make_certificates(folder: Path, hosts: list[str]) -> None:
    """Write `ca.pem`, `ca.key`, `server.pem`, `server.key` for a SuperLink with these names or addresses."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    ca_name, name = _name("veilsum example CA"), _name("veilsum example SuperLink")
    authority = x509.BasicConstraints(ca=True, path_length=0)
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(authority, critical=True)
    server = (
        _builder(name, ca_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    for file, builder in (("ca", ca), ("server", server)):
        certificate = builder.sign(ca_key, hashes.SHA384())
        (folder / f"{file}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "ca.key", _private(ca_key, serialization.PrivateFormat.PKCS8))
    write_private(folder / "server.key", _private(key, serialization.PrivateFormat.PKCS8))


def make_node_key(folder: Path) -> Path:
    """Write a SuperNode's authentication key, `auth.key`, and return its public half, `auth.pub`."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(folder / "auth.key", _private(key, serialization.PrivateFormat.OpenSSH))
    public = folder / "auth.pub"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    return public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
