"""What containers have written, as far as a test says it: `pods/log` for pods that no kubelet runs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

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
        lines = _shown(log.text, request)
        last = request.query.get("tailLines")
        text = "".join(lines[-int(last) :] if last and int(last) else [] if last else lines)
        if request.query.get("follow") not in ("true", "1"):
            return web.Response(text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        told = len(lines)
        await response.write(text.encode())
        while not log.ended or told < len(_shown(log.text, request)):
            more = _shown(log.text, request)[told:]
            told += len(more)
            if more:
                await response.write("".join(more).encode())
            await asyncio.sleep(0.02)
        return response


_START = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)


def _shown(text: str, request: web.Request) -> list[str]:
    """The lines that are asked for; each was written a second after the one before it."""
    stamps = request.query.get("timestamps") in ("true", "1")
    since = request.query.get("sinceTime", "")
    shown: list[str] = []
    for index, line in enumerate(text.splitlines(keepends=True)):
        at = (_START + timedelta(seconds=index)).strftime("%Y-%m-%dT%H:%M:%SZ")
        if at >= since:
            shown.append(f"{at} {line}" if stamps else line)
    return shown
