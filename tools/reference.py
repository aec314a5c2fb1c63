"""Pages of docs/reference/ that are made from the chart and the code: `python -m tools.reference` writes them."""

from __future__ import annotations

from collections.abc import Iterable

from almanac import metrics
from almanac_jobs import endpoint
from tools.chart import CHART, ROOT

FOLDER = ROOT / "docs" / "reference"


def pages() -> dict[str, str]:
    """The pages by their file names."""
    return {"chart.md": _chart(), "metrics.md": _metrics()}


def _chart() -> str:
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    return (
        "# Values of the Helm chart\n\n"
        "All values, with what they are if nobody sets them. [Install](../install.md) says which matter when.\n\n"
        f"```yaml\n{values}```\n"
    )


def _metrics() -> str:
    operator = [(one.name, one.type, one.labels, one.help) for one in metrics.METRICS.values()]
    driver = [(name, kind, labels, help_) for name, (kind, help_, labels) in endpoint.METRICS.items()]
    return (
        "# Metrics\n\n"
        "No label is a job's name: their number does not grow with jobs. [Monitoring](../monitoring.md) says how they\n"
        "are scraped, and what to alert on.\n\n"
        "## Of the operator\n\n"
        "On port 8080 of every replica, at `/metrics`. Gauges of jobs, objects and watches are the same on all of\n"
        "them; counters and histograms are those of the one that leads. Beside them are those of the process\n"
        "(`process_`, `python_`).\n\n"
        f"{_table(operator)}\n"
        "## Of a driver\n\n"
        "On port 9400 of the driver's pod, at `/metrics`, as long as it runs.\n\n"
        f"{_table(driver)}"
    )


def _table(rows: Iterable[tuple[str, str, tuple[str, ...], str]]) -> str:
    lines = [f"| `{name}` | {kind} | {', '.join(labels)} | {help_} |\n" for name, kind, labels, help_ in rows]
    return "".join(["| name | type | labels | |\n", "|---|---|---|---|\n", *lines])


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
