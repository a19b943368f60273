"""TLS, and logging in by a certificate, at a RabbitMQ that asks for one."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from common.host.clock import SystemClock
from common.testing.servers import RabbitServer, free_port
from common.transport.port import BusUnavailable, Queue, Transport
from common.transport.rabbit_settings import RabbitSettings, Tls, tls_version
from common.transport.url import open_transport
from tests.conformance.transport.support import consume, send, to_queue

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(120, func_only=True)]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """An authority `ca`, a broker's certificate for the name localhost, and a client's for the user guest."""
    openssl(
        folder,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
        "-days",
        "2",
    )
    for name, common_name in (("broker", "localhost"), ("client", "guest")):
        extension = folder / f"{name}.ext"
        extension.write_text(f"subjectAltName = DNS:{common_name}\n")
        openssl(
            folder,
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={common_name}",
        )
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", extension.name, "-out", f"{name}.pem",
        )  # fmt: skip


class TlsRabbit(RabbitServer):
    """One that speaks TLS at a port of its own, and takes a certificate for a password."""

    scheme = "rabbit"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tls_port = free_port()

    def _prepare(self) -> None:
        super()._prepare()
        make_certificates(self.folder)
        with (self.folder / "rabbit.conf").open("a") as conf:
            conf.write(
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {self.folder}/ca.pem\n"
                f"ssl_options.certfile = {self.folder}/broker.pem\n"
                f"ssl_options.keyfile = {self.folder}/broker.key\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = false\n"
                "auth_mechanisms.1 = PLAIN\n"
                "auth_mechanisms.2 = EXTERNAL\n"
                "ssl_cert_login_from = common_name\n"
            )
        (self.folder / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRabbit]:
    with TlsRabbit(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(params=["rabbit", "amqp"])
def scheme(request: pytest.FixtureRequest, broker: TlsRabbit) -> str:
    """What tests connect by; the broker is told, for it knows where it is."""
    broker.scheme = str(request.param)
    return broker.scheme


pytestmark.append(pytest.mark.usefixtures("scheme"))


@asynccontextmanager
async def connected(
    broker: TlsRabbit, settings: RabbitSettings, *, place: str = "guest:guest@localhost:{port}/"
) -> AsyncIterator[Transport]:
    where = f"{broker.scheme}://{place.format(port=broker.tls_port, folder=broker.folder)}"
    transport = await open_transport(where, clock=SystemClock(), connection_name="suite", rabbit=settings)
    try:
        yield transport
    finally:
        await transport.close()


async def works(transport: Transport) -> bool:
    inbox, _ = await consume(transport, Queue("q"))
    await send(transport, to_queue("q", b"1"))
    return await inbox.bodies(1) == [b"1"]


def settings_of(broker: TlsRabbit, **others: object) -> RabbitSettings:
    tls = Tls(ca_file=f"{broker.folder}/ca.pem")
    return RabbitSettings(tls=replace(tls, **others))  # type: ignore[arg-type]  # its fields


async def test_the_broker_is_known_by_its_certificate(broker: TlsRabbit) -> None:
    async with connected(broker, settings_of(broker)) as transport:
        assert await works(transport)
    async with connected(broker, settings_of(broker, version=tls_version("TLSv1_2"))) as transport:
        assert await works(transport)


async def test_tls_in_the_url_wins_over_settings_without_it(broker: TlsRabbit) -> None:
    place = "guest:guest@localhost:{port}/?ssl=true&ssl_ca_file={folder}/ca.pem"
    async with connected(broker, RabbitSettings(), place=place) as transport:
        assert await works(transport)


async def test_a_broker_of_an_unknown_authority_is_not_trusted(broker: TlsRabbit) -> None:
    with pytest.raises(BusUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        async with connected(broker, RabbitSettings(tls=Tls())):
            pass


async def test_a_broker_of_another_name_is_not_trusted(broker: TlsRabbit) -> None:
    with pytest.raises(BusUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        async with connected(broker, settings_of(broker), place="guest:guest@127.0.0.1:{port}/"):
            pass


async def test_external_logs_in_by_our_certificate_whatever_the_password(broker: TlsRabbit) -> None:
    client = {"cert_file": f"{broker.folder}/client.pem", "key_file": f"{broker.folder}/client.key"}
    settings = replace(settings_of(broker, **client), login_method="EXTERNAL")
    async with connected(broker, settings, place="nobody:wr0ng@localhost:{port}/") as transport:
        assert await works(transport)
    with pytest.raises(BusUnavailable):
        async with connected(broker, replace(settings, login_method="PLAIN"), place="nobody:wr0ng@localhost:{port}/"):
            pass
