"""What the listener's files held when they were read."""

import hashlib
import logging
import os
import shutil
import ssl
from pathlib import Path

import msgspec
import pytest

from proxy.config import ClientCertificates, ConfigError, ListenerTls, TlsVersion
from proxy.listener_tls import LoadedTls, Renewals
from tests.end_to_end.certificates import Certificates, Pair


@pytest.fixture(name="certificates", scope="module")
def fixture_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def terms(pair: Pair, client_ca: Path | None = None) -> ListenerTls:
    ca = None if client_ca is None else str(client_ca)
    return ListenerTls(certificate=str(pair.certificate), key=str(pair.key), client_ca=ca)


def test_the_names_lead_to_what_was_read_whatever_lies_there_now(certificates: Certificates, tmp_path: Path) -> None:
    pair = Pair(tmp_path / "a.pem", tmp_path / "a.key")
    shutil.copyfile(certificates.good.certificate, pair.certificate)
    shutil.copyfile(certificates.good.key, pair.key)
    loaded = LoadedTls(terms(pair))
    pair.certificate.write_text("nothing")
    pair.key.unlink()
    _, certificate, key, *_ = loaded.context
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert Path(certificate).read_bytes() == certificates.good.certificate.read_bytes()
    loaded.close()


def test_equal_contents_are_equal_under_any_name(certificates: Certificates, tmp_path: Path) -> None:
    copy = Pair(tmp_path / "b.pem", tmp_path / "b.key")
    shutil.copyfile(certificates.good.certificate, copy.certificate)
    shutil.copyfile(certificates.good.key, copy.key)
    assert LoadedTls(terms(copy)) == LoadedTls(terms(certificates.good))
    assert LoadedTls(terms(certificates.client)) != LoadedTls(terms(certificates.good))
    assert LoadedTls(terms(copy, certificates.ca)) != LoadedTls(terms(copy))
    assert LoadedTls(terms(copy)) != None  # noqa: E711 - the listener before may have had no TLS


def test_client_certificates_are_wanted_where_there_is_an_authority(certificates: Certificates) -> None:
    assert LoadedTls(terms(certificates.good)).context[5:] == (None, [], False)
    *_, authorities, _, verify = LoadedTls(terms(certificates.good, certificates.ca)).context
    assert Path(authorities).read_bytes() == certificates.ca.read_bytes()
    assert verify is True


def test_files_that_are_no_pair_are_refused_and_leave_nothing_open(certificates: Certificates, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigError, match="another certificate"):
        LoadedTls(terms(Pair(certificates.good.certificate, certificates.client.key)))
    with pytest.raises(ConfigError, match="No such file"):
        LoadedTls(terms(Pair(tmp_path / "absent", certificates.good.key)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_client_certificate_may_be_left_to_the_client(certificates: Certificates) -> None:
    required = terms(certificates.good, certificates.ca)
    optional = msgspec.structs.replace(required, client_certificates=ClientCertificates.OPTIONAL)
    *_, authorities, _, verify = LoadedTls(optional).context
    assert Path(authorities).read_bytes() == certificates.ca.read_bytes()
    assert verify is False
    assert LoadedTls(optional) != LoadedTls(required)


def test_the_oldest_version_is_told_to_granian_and_a_difference(certificates: Certificates) -> None:
    old = terms(certificates.good)
    new = msgspec.structs.replace(old, min_version=TlsVersion.TLS_1_3)
    assert [LoadedTls(each).context[4] for each in (old, new)] == ["tls1.2", "tls1.3"]
    assert LoadedTls(new) != LoadedTls(old)


def test_the_fingerprint_is_that_of_the_certificate_and_not_of_its_chain(
    certificates: Certificates, tmp_path: Path
) -> None:
    whole = certificates.good.certificate.read_text()
    leaf = whole[: whole.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
    expected = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf)).hexdigest()
    pair = Pair(tmp_path / "chain.pem", certificates.good.key)
    pair.certificate.write_text(f"a comment\r\n{leaf}\n{certificates.ca.read_text()}")
    assert LoadedTls(terms(pair)).fingerprint == LoadedTls(terms(certificates.good)).fingerprint == expected


def test_a_certificate_by_another_name_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    """OpenSSL takes it; Granian would find nothing, and its worker end."""
    pair = Pair(tmp_path / "x509.pem", certificates.good.key)
    pair.certificate.write_text(certificates.good.certificate.read_text().replace(" CERTIFICATE", " X509 CERTIFICATE"))
    with pytest.raises(ConfigError, match="no -----BEGIN CERTIFICATE-----"):
        LoadedTls(terms(pair))


# ---- renewals -------------------------------------------------------------------------------------------------------


@pytest.fixture(name="pair")
def fixture_pair(certificates: Certificates, tmp_path: Path) -> Pair:
    return put(certificates.good, Pair(tmp_path / "live.pem", tmp_path / "live.key"))


@pytest.fixture(name="renewed", scope="module")
def fixture_renewed(certificates: Certificates) -> Pair:
    return certificates.issue("renewed", "127.0.0.1")


def put(source: Pair, place: Pair) -> Pair:
    shutil.copyfile(source.certificate, place.certificate)
    shutil.copyfile(source.key, place.key)
    return place


def looked(renewals: Renewals, times: int) -> list[LoadedTls | None]:
    return [renewals.look() for _ in range(times)]


def test_files_that_stay_are_never_read_again(pair: Pair) -> None:
    renewals = Renewals(LoadedTls(terms(pair)))
    assert looked(renewals, 3) == [None] * 3


def test_a_renewed_pair_is_taken_once_when_it_has_settled(pair: Pair, renewed: Pair) -> None:
    renewals = Renewals(LoadedTls(terms(pair)))
    put(renewed, pair)
    assert looked(renewals, 4) == [None, LoadedTls(terms(renewed)), None, None]


def test_what_is_still_being_written_is_waited_for(pair: Pair, renewed: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Half of a chain would do for a certificate, and clients would not trust it."""
    whole = renewed.certificate.read_bytes() + renewed.certificate.read_bytes()
    renewals = Renewals(LoadedTls(terms(pair)))
    shutil.copyfile(renewed.key, pair.key)
    for length in (100, len(whole) // 2, len(whole)):
        pair.certificate.write_bytes(whole[:length])
        assert renewals.look() is None
    assert renewals.look() == LoadedTls(terms(pair))
    assert caplog.records == []


def test_half_a_pair_is_left_alone_until_it_is_whole_and_told_once(
    pair: Pair, renewed: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    renewals = Renewals(LoadedTls(terms(pair)))
    shutil.copyfile(renewed.certificate, pair.certificate)
    assert looked(renewals, 5) == [None] * 5
    pair.key.unlink()
    assert looked(renewals, 5) == [None] * 5
    (line,) = caplog.records
    assert (line.levelno, "another certificate" in line.getMessage()) == (logging.WARNING, True)
    shutil.copyfile(renewed.key, pair.key)
    assert looked(renewals, 3) == [None, LoadedTls(terms(renewed)), None]
    pair.certificate.unlink()
    looked(renewals, 3)
    assert len(caplog.records) == 2


def test_authorities_are_looked_at_too(certificates: Certificates, pair: Pair, tmp_path: Path) -> None:
    authorities = tmp_path / "clients.pem"
    shutil.copyfile(certificates.ca, authorities)
    renewals = Renewals(LoadedTls(terms(pair, authorities)))
    shutil.copyfile(certificates.stranger_ca, authorities)
    assert looked(renewals, 2) == [None, LoadedTls(terms(pair, certificates.stranger_ca))]


def test_a_link_that_leads_elsewhere_is_a_change(certificates: Certificates, renewed: Pair, tmp_path: Path) -> None:
    """Also one of a directory, as Kubernetes swaps secrets, and back again. The files are equally old and long."""
    links = Pair(tmp_path / "live" / "tls.crt", tmp_path / "live" / "tls.key")
    for name, source in (("1", certificates.good), ("2", renewed)):
        (tmp_path / name).mkdir()
        for file in (put(source, Pair(tmp_path / name / "tls.crt", tmp_path / name / "tls.key")).__dict__).values():
            file.write_bytes(file.read_bytes().ljust(4000, b"\n"))
            os.utime(file, (1, 1))
    swap(tmp_path / "live", "1")
    renewals = Renewals(LoadedTls(terms(links)))
    swap(tmp_path / "live", "2")
    assert looked(renewals, 3) == [None, LoadedTls(terms(links)), None]
    swap(tmp_path / "live", "1")
    assert looked(renewals, 3) == [None, LoadedTls(terms(links)), None]


def swap(link: Path, target: str) -> None:
    """In one step, as `ln -sfn` does not."""
    beside = link.with_name("beside")
    beside.symlink_to(target)
    beside.replace(link)
