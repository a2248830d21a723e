"""What the listener's files held when they were read."""

import shutil
import ssl
from pathlib import Path

import pytest

from proxy.config import ConfigError, ListenerTls
from proxy.listener_tls import LoadedTls
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
