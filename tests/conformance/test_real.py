"""The same tests on a real API server: skipped here, once and visibly, where there is none."""

from almanac.kubeconfig import Access
from kube.client import Client
from kube.server import Server
from kube.upstream import Upstream


def test_a_real_api_server_stands_beside_the_embedded_one(real_api: tuple[Access, bool]) -> None:
    with Server(Upstream(real_api[0])) as server:
        assert Client(server.url).request("GET", "/version").json()["gitVersion"].startswith("v1.")
