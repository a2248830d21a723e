"""Certificates and keys as operators get them wrong."""

import os
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.config import ConfigError, UpstreamTls
from proxy.sources import tls_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; a.crt with a.key; a.pem with both; b.key of another certificate; locked.key with a password; text.pem."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    a, b = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    a.private_key_pem.write_to_path(str(folder / "a.key"))
    b.private_key_pem.write_to_path(str(folder / "b.key"))
    a.private_key_and_cert_chain_pem.write_to_path(str(folder / "a.pem"))
    for blob in a.cert_chain_pems:
        blob.write_to_path(str(folder / "a.crt"), append=True)
    key = serialization.load_pem_private_key(a.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "locked.key").write_bytes(key.private_bytes(*form, encryption))
    (folder / "text.pem").write_text("not a certificate\n")
    return folder


@pytest.mark.parametrize(("certificate", "key"), [("a.crt", "a.key"), ("a.pem", None), ("a.pem", "a.key")])
def test_a_pair_passes(folder: Path, certificate: str, key: str | None) -> None:
    tls_files.check_pair("f.yaml:1", "tls", str(folder / certificate), key and str(folder / key))


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("none.crt", "a.key", "f.yaml:1: tls.certificate: {0}/none.crt: No such file or directory"),
        ("a.crt", "none.key", "f.yaml:1: tls.key: {0}/none.key: No such file or directory"),
        (".", "a.key", "f.yaml:1: tls.certificate: {0}/.: Is a directory"),
        ("text.pem", "a.key", "f.yaml:1: tls.certificate: {0}/text.pem: no certificate in PEM"),
        ("a.crt", "text.pem", "f.yaml:1: tls.key: {0}/text.pem: expected a private key in PEM without a password"),
        ("a.crt", "a.crt", "f.yaml:1: tls.key: {0}/a.crt: expected a private key in PEM without a password"),
        ("a.crt", None, "f.yaml:1: tls.key: {0}/a.crt: expected a private key in PEM without a password"),
        ("a.crt", "locked.key", "f.yaml:1: tls.key: {0}/locked.key: expected a private key in PEM without a password"),
        ("a.crt", "b.key", "f.yaml:1: tls.key: {0}/b.key: the key of another certificate"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said(folder: Path, certificate: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tls_files.check_pair("f.yaml:1", "tls", f"{folder}/{certificate}", key and f"{folder}/{key}")
    assert str(caught.value) == message.format(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    key.touch(mode=0)
    with pytest.raises(ConfigError, match="Permission denied"):
        tls_files.check_pair("f.yaml:1", "tls", str(folder / "a.crt"), str(key))


def test_a_ca_file(folder: Path) -> None:
    tls_files.check_ca("f.yaml:1", "tls.client_ca", str(folder / "ca.pem"))
    with pytest.raises(ConfigError, match=r"tls\.client_ca: .*no certificate in PEM"):
        tls_files.check_ca("f.yaml:1", "tls.client_ca", str(folder / "text.pem"))


def test_the_files_of_an_upstream(folder: Path) -> None:
    ca, certificate, key = (str(folder / name) for name in ("ca.pem", "a.crt", "a.key"))
    tls_files.check_upstream("f.yaml:1", "tls", UpstreamTls())
    tls_files.check_upstream("f.yaml:1", "tls", UpstreamTls(ca=ca, certificate=certificate, key=key))
    for tls, said in (
        (UpstreamTls(ca=str(folder / "text.pem")), r"tls\.ca: .*no certificate in PEM"),
        (
            UpstreamTls(certificate=certificate, key=str(folder / "b.key")),
            r"tls\.key: .*the key of another certificate",
        ),
        (UpstreamTls(key=key), "tls: a key without its certificate"),
    ):
        with pytest.raises(ConfigError, match=said):
            tls_files.check_upstream("f.yaml:1", "tls", tls)
