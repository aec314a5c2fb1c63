"""What a driver says of its progress over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from almanac_jobs.endpoint import serve, traffic
from almanac_jobs.progress import Progress, Workers


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture
def ticks() -> Iterator[float]:
    return iter(float(second) for second in range(1000))


def test_progress_is_the_current_stage(ticks: Iterator[float]) -> None:
    progress = Progress(clock=lambda: next(ticks))
    with serve(progress, 0, "127.0.0.1") as port:
        nothing = json.loads(get(port, "/progress"))
        assert (nothing["stage"], nothing["done"], nothing["total"]) == ("", 0, None)
        progress.start("fit", 200, "series")
        progress.advance(50)
        said = json.loads(get(port, "/progress"))
    assert (said["stage"], said["done"], said["total"], said["unit"]) == ("fit", 50, 200, "series")
    assert said["secondsLeft"] > 0
    assert "workers" not in said


def test_progress_counts_workers_where_there_are_some() -> None:
    progress = Progress()
    progress.workers = Workers(4, 3, 1)
    with serve(progress, 0, "127.0.0.1") as port:
        assert json.loads(get(port, "/progress"))["workers"] == {"wanted": 4, "running": 3, "failed": 1}


def test_metrics_have_every_stage(ticks: Iterator[float]) -> None:
    progress = Progress(clock=lambda: next(ticks))
    progress.start("read", None, "rows")
    progress.advance(7)
    progress.start("fit", 3, "series")
    with serve(progress, 0, "127.0.0.1") as port:
        text = get(port, "/metrics")
    assert 'almanac_driver_stage_units_total{stage="read",unit="rows"} 7\n' in text
    assert 'almanac_driver_stage_expected_units{stage="fit",unit="series"} 3\n' in text
    assert 'almanac_driver_stage_expected_units{stage="read"' not in text
    assert 'almanac_driver_stage_active{stage="read"} 0.0\nalmanac_driver_stage_active{stage="fit"} 1.0\n' in text
    assert "almanac_driver_workers" not in text


def test_metrics_have_the_process_and_its_cluster() -> None:
    progress = Progress()
    progress.workers = Workers(4, 3, 1)
    with serve(progress, 0, "127.0.0.1") as port:
        text = get(port, "/metrics")
    said = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert (said['almanac_driver_workers{state="wanted"}'], said["almanac_driver_workers_failed_total"]) == ("4", "1")
    assert 0 < int(said["process_resident_memory_bytes"]) <= int(said["almanac_driver_memory_limit_bytes"])
    assert float(said["process_cpu_seconds_total"]) > 0


def test_traffic_is_that_of_all_networks_but_the_machines_own(tmp_path: Path) -> None:
    file = tmp_path / "proc/self/net/dev"
    file.parent.mkdir(parents=True)
    line = "{}: {} 9 0 0 0 0 0 0 {} 8 0 0 0 0 0 0\n"
    file.write_text(
        "Inter-|\n face |\n"
        + line.format("    lo", 1000, 1000)
        + line.format("  eth0", 70, 5)
        + line.format("eth1", 7, 2)
    )
    assert traffic(tmp_path) == (77, 7)
    assert traffic(tmp_path / "nowhere") == (None, None)


def test_other_paths_are_not_found() -> None:
    with serve(Progress(), 0, "127.0.0.1") as port:
        assert get(port, "/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError) as missing:
            get(port, "/etc/passwd")
    assert missing.value.code == 404


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = serve(Progress(), other.getsockname()[1], "127.0.0.1")
        with pytest.raises(OSError, match="in use"), taken:
            pass
