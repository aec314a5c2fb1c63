"""What containers have written, as far as a test says it: `pods/log` for pods that no kubelet runs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from aiohttp import web

_PATH = re.compile(r"^/api/v1/namespaces/([^/]+)/pods/([^/]+)/log$")


@dataclass
class Log:
    """The text of one container so far."""

    text: str = ""
    ended: bool = False


@dataclass
class Logs:
    """Logs by namespace and pod."""

    texts: dict[tuple[str, str], Log] = field(default_factory=dict)

    def write(self, namespace: str, pod: str, text: str = "", ended: bool = False) -> None:
        log = self.texts.setdefault((namespace, pod), Log())
        log.text += text
        log.ended = log.ended or ended

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """The log that is asked for; None where a test has written none."""
        found = _PATH.match(request.path)
        log = self.texts.get((found[1], found[2])) if found else None
        if log is None:
            return None
        lines = log.text.splitlines(keepends=True)
        last = request.query.get("tailLines")
        text = "".join(lines[-int(last) :] if last and int(last) else [] if last else lines)
        if request.query.get("follow") not in ("true", "1"):
            return web.Response(text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        told = len(log.text)
        await response.write(text.encode())
        while not log.ended or told < len(log.text):
            more, told = log.text[told:], len(log.text)
            if more:
                await response.write(more.encode())
            await asyncio.sleep(0.02)
        return response
