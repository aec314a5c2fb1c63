from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from yarl import URL

from almanac.cluster import CONFIG_MAPS, DRIVERS, PODS, ApiError, Cluster
from almanac.handlers import DEAD, Pulse
from almanac.kubeconfig import REREAD, Access, AccessError, Token, find, from_kubeconfig

MAPS = "/api/v1/namespaces/default/configmaps"
MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def ask(handler: Handler, question: Callable[[Cluster], Awaitable[Any]], token: Token | None = None) -> Any:
    """Ask an API server whose every path `handler` answers."""

    async def main() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with Cluster(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", token=token)) as cluster:
                return await question(cluster)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def refused(code: int, reason: str, headers: dict[str, str] | None = None) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        status = {"kind": "Status", "reason": reason, "message": "no, and this is why"}
        return web.json_response(status, status=code, headers=headers)

    return handler


def test_requests_are_counted_those_without_an_answer_too() -> None:
    counted: list[tuple[str, int]] = []

    async def unanswered() -> None:
        access = Access("http://127.0.0.1:9")  # discard: nobody listens
        async with Cluster(access, counted=lambda verb, code: counted.append((verb, code))) as cluster:
            await cluster.get(CONFIG_MAPS, "default", "a")

    with pytest.raises(ApiError, match="127"):
        asyncio.run(unanswered())
    assert counted == [("get", 0)]


def test_creating_what_exists_and_deleting_what_does_not_is_fine() -> None:
    assert ask(refused(409, "AlreadyExists"), lambda cluster: cluster.create(MANIFEST)) is None
    ask(refused(404, "NotFound"), lambda cluster: cluster.delete(CONFIG_MAPS, "default", "a"))
    ask(refused(409, "Conflict"), lambda cluster: cluster.delete(CONFIG_MAPS, "default", "a", uid="another"))


def test_a_refusal_carries_the_words_of_the_api() -> None:
    with pytest.raises(ApiError, match="Forbidden: no, and this is why") as caught:
        ask(refused(403, "Forbidden"), lambda cluster: cluster.create(MANIFEST))
    assert (caught.value.code, caught.value.gone, caught.value.conflict) == (403, False, False)
    with pytest.raises(ApiError) as caught:
        ask(refused(429, "TooManyRequests", {"Retry-After": "7"}), lambda cluster: cluster.create(MANIFEST))
    assert caught.value.retry_after == 7


def test_what_is_no_answer_of_an_api_server_is_an_error_too() -> None:
    async def gateway(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    with pytest.raises(ApiError, match="bad gateway"):
        ask(gateway, lambda cluster: cluster.get(CONFIG_MAPS, "default", "a"))
    with pytest.raises(ApiError, match=r"GET .*configmaps/a: "):
        ask(nonsense, lambda cluster: cluster.get(CONFIG_MAPS, "default", "a"))


def test_a_list_is_read_page_by_page_and_its_items_say_what_they_are() -> None:
    async def handler(request: web.Request) -> web.Response:
        last = request.query.get("continue") == "more"
        metadata = {"resourceVersion": "5"} | ({} if last else {"continue": "more"})
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": "b" if last else "a"}}]})

    async def read(cluster: Cluster) -> list[Any]:
        return [one async for page in cluster.list(PODS, None, labelSelector="x=y") for one in page["items"]]

    items = ask(handler, read)
    assert [(one["kind"], one["metadata"]["name"]) for one in items] == [("Pod", "a"), ("Pod", "b")]


def test_a_token_that_is_refused_is_read_again_once() -> None:
    tokens = iter(["old", "new"])
    given: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        given.append(request.headers["Authorization"])
        return web.json_response({"kind": "ConfigMap"}, status=200 if given[-1] == "Bearer new" else 401)

    token = Token(lambda: (next(tokens), float("inf")))
    ask(handler, lambda cluster: cluster.get(CONFIG_MAPS, "default", "a"), token)
    assert given == ["Bearer old", "Bearer new"]


def test_nobody_but_the_api_is_told_who_we_are() -> None:
    given: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        given.append(request.headers.get("Authorization"))
        return web.json_response({})

    async def driver(cluster: Cluster) -> None:
        other = Cluster(Access("https://api.example", token=cluster.access.token))
        async with other.session() as session, session.get(f"{cluster.access.server}/progress"):
            pass

    ask(handler, driver, Token(lambda: ("secret", float("inf"))))
    assert given == [None]


def test_the_address_of_a_cluster_may_name_the_port_that_needs_no_name() -> None:
    async def main() -> str | None:
        cluster = Cluster(Access("https://10.96.0.1:443", token=Token(lambda: ("secret", float("inf")))))
        given: list[str | None] = []

        class Request:
            url = URL("https://10.96.0.1:443/apis")
            method = "GET"
            headers: ClassVar[dict[str, str]] = {}

        class Response:
            status = 200

        async def handler(request: Any) -> Any:
            given.append(request.headers.get("Authorization"))
            return Response()

        await cluster._authorized(Request(), handler)  # type: ignore[arg-type]
        return given[0]

    assert asyncio.run(main()) == "Bearer secret"


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert DRIVERS.path("a/b", "../c", "status") == "/apis/batch/v1/namespaces/a%2Fb/jobs/..%2Fc/status"
    assert PODS.path(None) == "/api/v1/pods"


def test_a_watch_is_dead_when_it_hears_nothing_and_alive_when_a_bookmark_comes() -> None:
    now = [0.0]
    pulse = Pulse(["default"], clock=lambda: now[0])
    assert pulse.dead() == []
    now[0] = DEAD + 1
    assert "/api/v1/namespaces/default/pods" in pulse.dead()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if "silent" not in request.query:
            await response.write(b'{"type": "BOOKMARK"}\n')
        return response

    async def listen(cluster: Cluster, **query: str) -> None:
        url = cluster.access.server + PODS.path("default")
        async with cluster.session(pulse.response()) as session, session.get(url, params=query) as response:
            async for _ in response.content.iter_chunked(1024):
                pass

    ask(handler, lambda cluster: listen(cluster, watch="true", silent="yes"))
    assert "/api/v1/namespaces/default/pods" in pulse.dead(), "a connection alone is no sign of life"
    ask(handler, lambda cluster: listen(cluster, watch="true"))
    assert "/api/v1/namespaces/default/pods" not in pulse.dead()


def test_a_token_file_is_read_again_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    config = tmp_path / "config"
    user = "users: [{name: u, user: {tokenFile: token}}]"
    config.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u, namespace: finance}}]\n"
        f"clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:1/'}}}}]\n{user}\n"
    )
    access = from_kubeconfig([config])
    assert (access.server, access.namespace) == ("http://127.0.0.1:1", "finance")
    assert access.token is not None
    assert access.token.get() == "first"
    (tmp_path / "token").write_text("second\n")
    assert access.token.get() == "first"
    access.token.expire()
    assert access.token.get() == "second"
    assert REREAD <= 60


def test_what_is_wrong_with_a_kubeconfig_is_said(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no Kubernetes API is known"):
        find({"HOME": str(tmp_path)})
    (tmp_path / "config").write_text("current-context: c\n")
    with pytest.raises(AccessError, match="has no context named 'c'"):
        find({"KUBECONFIG": str(tmp_path / "config")})


def test_fields_that_the_api_does_not_know_are_refused_and_not_dropped() -> None:
    """A misspelt field of a pod template would be left out in silence otherwise."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.query.get("fieldValidation", ""))
        return web.json_response({}, status=201)

    ask(handler, lambda cluster: cluster.create(MANIFEST))
    assert asked == ["Strict"]


def test_credentials_that_cannot_be_had_are_a_failed_request() -> None:
    """The operator goes on: a plugin that fails now may work in a minute."""

    def read() -> tuple[str, float]:
        raise AccessError("credential plugin x: no session")

    with pytest.raises(ApiError, match="no session") as caught:
        ask(refused(500, "x"), lambda cluster: cluster.create(MANIFEST), token=Token(read))
    assert caught.value.code == 0


def test_a_kubeconfig_of_nonsense_is_an_error_that_says_so(tmp_path: Path) -> None:
    for text in ("contexts: 7\ncurrent-context: c", "contexts: [1]\ncurrent-context: c"):
        (tmp_path / "config").write_text(text)
        with pytest.raises(AccessError, match="the kubeconfig cannot be used"):
            find({"KUBECONFIG": str(tmp_path / "config")})
