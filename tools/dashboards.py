"""Grafana's dashboards, as the chart ships them: `python -m tools.dashboards` writes them.

Made with Grafana's own SDK, whose types are those of its schema. Panels are described in words and PromQL alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

from tools.chart import CHART

FOLDER = CHART / "files" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Panel:
    """A question in PromQL (or several, by their legend), and how its answer is shown."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    help: str = ""
    kind: type[timeseries.Panel] | type[stat.Panel] | type[bargauge.Panel] = timeseries.Panel
    width: int = 8
    height: int = 7
    maximum: float | None = None


def built(uid: str, title: str, variables: dict[str, str], rows: dict[str, Sequence[Panel]]) -> str:
    """A dashboard as JSON: variables by name, each with the query of its values, and panels by the title of the row."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["almanac"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name, query in variables.items():
        # An empty label is none of ours: the operator has no job.
        values = dashboard.QueryVariable(name).label(name.capitalize()).query(query).datasource(SOURCE)
        made = made.with_variable(values.include_all(True).multi(False).all_value(".+").refresh(2).sort(1))
    for row, panels in rows.items():
        made = made.with_row(dashboard.Row(row))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    document = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return json.dumps(_said(document), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _said(value: object) -> object:
    """What a document says: null is how the SDK writes that it says nothing."""
    if isinstance(value, dict):
        return {name: _said(one) for name, one in value.items() if one is not None}
    return [_said(one) for one in value] if isinstance(value, list) else value


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | bargauge.Panel:
    made = panel.kind().title(panel.title).description(panel.help).unit(panel.unit).datasource(SOURCE)
    made = made.span(panel.width).height(panel.height).min(0)
    if panel.maximum is not None:
        made = made.max(panel.maximum)
    for legend, query in panel.queries.items():
        made = made.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(_ref(panel, legend)))
    return made


def _ref(panel: Panel, legend: str) -> str:
    return chr(ord("A") + list(panel.queries).index(legend))


def _quantiles(metric: str, by: str, chosen: str) -> dict[str, str]:
    inner = f"sum by ({by}, le) (rate({metric}_bucket{{{chosen}}}[$__rate_interval]))"
    legend = " ".join(f"{{{{{one}}}}}" for one in by.split(", "))
    return {
        f"{legend} half of them": f"histogram_quantile(0.5, {inner})",
        f"{legend} 95 %": f"histogram_quantile(0.95, {inner})",
    }


def _operator() -> str:
    ours = 'namespace=~"$namespace"'
    kinds = f'{ours}, kind=~"$kind"'
    leads = "and on (namespace, pod) almanac_leader == 1"
    by_standing = "max by (kind, phase, reason) (almanac_jobs{%s, phase=~%s})"
    return built(
        "almanac-operator",
        "Almanac / Operator",
        {
            "namespace": "label_values(almanac_build_info, namespace)",
            "kind": f"label_values(almanac_jobs{{{ours}}}, kind)",
        },
        {
            "Jobs": [
                Panel(
                    phase,
                    {phase: f'sum(max by (kind, reason) (almanac_jobs{{{kinds}, phase="{phase}"}})) or vector(0)'},
                    kind=stat.Panel,
                    width=4,
                    height=4,
                )
                for phase in ("Running", "Pending", "Succeeded", "Failed", "Suspended")
            ]
            + [
                Panel(
                    "Late by schedule",
                    {"": f"max(almanac_schedule_delay_seconds{{{kinds}}})"},
                    "s",
                    "The job that is furthest behind.",
                    kind=stat.Panel,
                    width=4,
                    height=4,
                ),
                Panel(
                    "What has failed, and what does not start, by reason",
                    {"{{kind}} {{phase}}: {{reason}}": by_standing % (kinds, '"Failed|Pending"')},
                    help="Where jobs stand at this moment; a job that is run again leaves Failed.",
                    width=12,
                ),
                Panel(
                    "Runs that end, an hour",
                    {
                        "{{phase}}: {{reason}}": "3600 * sum by (phase, reason) "
                        f"(rate(almanac_runs_finished_total{{{kinds}}}[$__rate_interval]))"
                    },
                    width=12,
                ),
            ],
            "How long": [
                Panel(
                    "From asked for to driver",
                    _quantiles("almanac_run_submit_duration_seconds", "kind", kinds),
                    "s",
                    "The operator's part.",
                ),
                Panel(
                    "From asked for to running",
                    _quantiles("almanac_run_start_duration_seconds", "kind, engine", kinds),
                    "s",
                    "With what the cluster takes: a node, an image.",
                ),
                Panel("Runs", _quantiles("almanac_run_duration_seconds", "kind, engine", kinds), "s"),
            ],
            "Work done": [
                Panel(
                    "Entities a second",
                    {
                        "{{kind}} {{outcome}}": "sum by (kind, outcome) "
                        f"(rate(almanac_run_entities_total{{{kinds}}}[$__rate_interval]))"
                    },
                    width=12,
                ),
                Panel(
                    "Rows a second",
                    {
                        "{{kind}} {{engine}}": "sum by (kind, engine) "
                        f"(rate(almanac_run_rows_total{{{kinds}}}[$__rate_interval]))"
                    },
                    width=12,
                ),
            ],
            "The operator itself": [
                Panel(
                    "Who leads",
                    {
                        "{{pod}}": f"almanac_leader{{{ours}}}",
                        "{{pod}} ready": f"almanac_ready{{{ours}}}",
                        "may not {{verb}} {{resource}}": "max by (verb, resource) "
                        f"(almanac_missing_rights{{{ours}}} > bool 0)",
                    },
                    maximum=1,
                ),
                Panel(
                    "Queue",
                    {
                        "jobs that wait": f"max(almanac_queue_depth{{{ours}}} {leads})",
                        "looks a second": "sum(rate("
                        f"almanac_reconcile_duration_seconds_count{{{ours}}}[$__rate_interval]))",
                    },
                ),
                Panel(
                    "Age of the queue, and of the longest look",
                    {
                        "first that waits": f"max(almanac_queue_age_seconds{{{ours}}} {leads})",
                        "longest look": f"max(almanac_reconcile_age_seconds{{{ours}}})",
                    },
                    "s",
                ),
                Panel("A look at a job", _quantiles("almanac_reconcile_duration_seconds", "kind", ours), "s"),
                Panel(
                    "Requests to the API a second",
                    {
                        "{{verb}} {{code}}": "sum by (verb, code) "
                        f"(rate(almanac_api_requests_total{{{ours}}}[$__rate_interval]))"
                    },
                ),
                Panel("Silence of watches", {"{{pod}} {{path}}": f"almanac_watch_silence_seconds{{{ours}}}"}, "s"),
                Panel(
                    "Looks that failed, a second",
                    {
                        "{{kind}} {{reason}}": "sum by (kind, reason) "
                        f"(rate(almanac_reconcile_errors_total{{{ours}}}[$__rate_interval]))"
                    },
                ),
                Panel(
                    "Memory",
                    {"{{pod}}": f"process_resident_memory_bytes{{{ours}}} and on (namespace, pod) almanac_build_info"},
                    "bytes",
                ),
                Panel(
                    "CPU",
                    {
                        "{{pod}}": f"rate(process_cpu_seconds_total{{{ours}}}[$__rate_interval]) "
                        "and on (namespace, pod) almanac_build_info"
                    },
                    help="Cores.",
                ),
            ],
        },
    )


def _job() -> str:
    chosen = 'namespace=~"$namespace", almanac_dev_job=~"$job"'
    return built(
        "almanac-job",
        "Almanac / One job",
        {
            "namespace": "label_values(almanac_driver_info, namespace)",
            "job": 'label_values(almanac_driver_info{namespace=~"$namespace"}, almanac_dev_job)',
        },
        {
            "Progress": [
                Panel(
                    "Done of the stage that goes on",
                    {
                        "{{pod}} {{stage}}": f"almanac_driver_stage_units_total{{{chosen}}} "
                        f"/ on (namespace, pod, stage, unit) almanac_driver_stage_expected_units "
                        "and on (namespace, pod, stage) almanac_driver_stage_active == 1"
                    },
                    "percentunit",
                    kind=bargauge.Panel,
                    width=12,
                    maximum=1,
                ),
                Panel(
                    "Time spent in each stage",
                    {"{{pod}} {{stage}}": f"almanac_driver_stage_duration_seconds{{{chosen}}}"},
                    "s",
                    kind=bargauge.Panel,
                    width=12,
                ),
                Panel(
                    "Rows, series and files a second",
                    {
                        "{{pod}} {{stage}}: {{unit}}": "rate("
                        f"almanac_driver_stage_units_total{{{chosen}}}[$__rate_interval])"
                    },
                    width=24,
                ),
            ],
            "Resources": [
                Panel(
                    "Memory of the driver",
                    {
                        "{{pod}}": f"process_resident_memory_bytes{{{chosen}}}",
                        "{{pod}} limit": f"almanac_driver_memory_limit_bytes{{{chosen}}}",
                    },
                    "bytes",
                ),
                Panel(
                    "CPU of the driver",
                    {"{{pod}}": f"rate(process_cpu_seconds_total{{{chosen}}}[$__rate_interval])"},
                    help="Cores.",
                ),
                Panel(
                    "Traffic of the driver",
                    {
                        "{{pod}} received": f"rate(almanac_driver_received_bytes_total{{{chosen}}}[$__rate_interval])",
                        "{{pod}} sent": f"rate(almanac_driver_sent_bytes_total{{{chosen}}}[$__rate_interval])",
                    },
                    "Bps",
                ),
            ],
            "Cluster": [
                Panel(
                    "Workers, or Spark's executors",
                    {"{{pod}} {{state}}": f"almanac_driver_workers{{{chosen}}}"},
                    width=12,
                ),
                Panel(
                    "Lost, an hour",
                    {"{{pod}}": f"increase(almanac_driver_workers_failed_total{{{chosen}}}[1h])"},
                    width=12,
                ),
            ],
        },
    )


def files() -> dict[str, str]:
    """The dashboards by their file names."""
    return {"operator.json": _operator(), "job.json": _job()}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
