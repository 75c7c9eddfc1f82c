"""What the certificates of a cluster prove, and who can read the keys."""

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import ClientVerifier, PolicyBuilder, Store, VerificationError

from cyxwiz_devcluster import certificates
from cyxwiz_devcluster.certificates import Certificates, KeyPair


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.issue_all(certificates.Authority(tmp_path_factory.mktemp("pki")))


def load(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def client_verifier(ca: KeyPair) -> ClientVerifier:
    return PolicyBuilder().store(Store([load(ca)])).build_client_verifier()


@pytest.mark.parametrize("name", ["kubernetes.default.svc", "localhost"])
def test_the_servers_certificate_verifies_for_its_names(issued: Certificates, name: str) -> None:
    verifier = PolicyBuilder().store(Store([load(issued.ca)])).build_server_verifier(x509.DNSName(name))
    assert len(verifier.verify(load(issued.server), [])) == 2


@pytest.mark.parametrize("address", ["127.0.0.1", "10.96.0.1"])
def test_the_servers_certificate_verifies_for_its_addresses(issued: Certificates, address: str) -> None:
    subject = x509.IPAddress(ipaddress.ip_address(address))
    verifier = PolicyBuilder().store(Store([load(issued.ca)])).build_server_verifier(subject)
    assert len(verifier.verify(load(issued.server), [])) == 2


def test_admin_is_a_master_and_the_controller_manager_is_only_itself(issued: Certificates) -> None:
    admin, manager = load(issued.admin).subject, load(issued.controller_manager).subject
    assert [each.value for each in admin.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:masters"]
    assert manager.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) == []
    assert [each.value for each in manager.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        "system:kube-controller-manager"
    ]


def test_another_clusters_ca_does_not_vouch_for_this_ones_server(issued: Certificates, tmp_path: Path) -> None:
    stranger = certificates.Authority(tmp_path)
    verifier = PolicyBuilder().store(Store([stranger.certificate])).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        verifier.verify(load(issued.server), [])


def test_each_key_belongs_to_its_certificate_and_is_its_owners_alone(issued: Certificates) -> None:
    for pair in (issued.ca, issued.server, issued.admin, issued.controller_manager, issued.etcd):
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
        assert key.public_key() == load(pair).public_key()
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(issued.service_account_key.stat().st_mode) == 0o600
