"""Figures in Prometheus' text format: `api.p95_s` is `mailyard_api_p95_seconds`.

Every API process answers with the same figures of the whole installation, beside what it has
counted itself; take the largest of several. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Sequence

from mailyard.fleet.figures import Figures
from mailyard.fleet.look import Look

_UNITS = {"_s": "_seconds", "_share": "_ratio", "_bytes": "_bytes"}
# Figures whose names are those of metrics that each process has of itself (observe/metrics.py).
_COUNTED_HERE_TOO = ("live.connections", "smtp.sessions", "redis.memory_bytes")
_SUBJECTS = {
    "queue": "queue",
    "process": "role",
    "provider": "limit",
    "region": "region",
    "replica": "replica",
}


def prometheus_name(figure: str) -> str:
    """A figure's name as Prometheus knows it."""
    name = "mailyard_" + figure.replace(".", "_")
    if figure == "process.count":  # a name that ends in _count is a histogram's
        return "mailyard_processes"
    if figure in _COUNTED_HERE_TOO:
        return name + "_all"
    if name.endswith("_per_s"):
        return name.removesuffix("_per_s") + "_per_second"
    for ours, theirs in _UNITS.items():
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs
    return name + "_ratio" if name.endswith(("_used", "_cpu")) else name


def label_of(figure: str) -> str:
    """What the subject of a figure is called."""
    return _SUBJECTS.get(figure.partition(".")[0], "subject")


def exposition(figures: Figures, look: Look, slowest: Sequence[tuple[str, float, float]]) -> bytes:
    """All that is known, with every process by itself and the queries that take most time."""
    lines = []
    for figure, values in figures.items():
        name, label = prometheus_name(figure), label_of(figure)
        lines += [f"# HELP {name} {figure} of the installation.", f"# TYPE {name} gauge"]
        for subject, value in values.items():
            if value is not None:
                labels = f'{{{label}="{_escaped(subject)}"}}' if subject else ""
                lines.append(f"{name}{labels} {value:.9g}")
    lines += _processes(look)
    lines += _queries(slowest)
    return ("\n".join(lines) + "\n").encode()


def _processes(look: Look) -> list[str]:
    families: tuple[tuple[str, str, str, list[float]], ...] = (
        (
            "resident_memory_bytes",
            "gauge",
            "Memory of a process.",
            [one.stats.memory_bytes for one in look.processes],
        ),
        (
            "cpu_seconds_total",
            "counter",
            "Time on a processor of a process.",
            [one.stats.cpu_s for one in look.processes],
        ),
        (
            "http_requests_total",
            "counter",
            "API requests of a process.",
            [one.stats.totals.http.count for one in look.processes],
        ),
        (
            "http_errors_total",
            "counter",
            "API requests of a process that went wrong on our side.",
            [one.stats.totals.http.errors for one in look.processes],
        ),
        (
            "smtp_accepted_total",
            "counter",
            "Mails that a process took by SMTP.",
            [one.stats.totals.smtp.get("accepted", 0.0) for one in look.processes],
        ),
    )
    lines = []
    for name, kind, about, values in families:
        whole = f"mailyard_process_{name}"
        lines += [f"# HELP {whole} {about}", f"# TYPE {whole} {kind}"]
        for one, value in zip(look.processes, values, strict=True):
            labels = f'role="{one.role}",host="{_escaped(one.host)}",process="{one.id}"'
            lines.append(f"{whole}{{{labels}}} {value:.9g}")
    return [*lines, *_outcomes(look)]


def _outcomes(look: Look) -> list[str]:
    """Deliveries and jobs by what became of them, as each process counts them."""
    mails = ["# HELP mailyard_process_deliveries_total Deliveries of a process by lane and state."]
    jobs = ["# HELP mailyard_process_jobs_total Jobs of a process by queue and outcome."]
    mails.append("# TYPE mailyard_process_deliveries_total counter")
    jobs.append("# TYPE mailyard_process_jobs_total counter")
    for one in look.processes:
        for name, amount in one.stats.totals.deliveries.items():
            lane, state = name.split(" ")
            labels = f'process="{one.id}",lane="{lane}",state="{state}"'
            mails.append(f"mailyard_process_deliveries_total{{{labels}}} {amount:.9g}")
        for queue, counts in one.stats.totals.jobs.items():
            for outcome in ("completed", "retried", "buried", "released", "lost"):
                if outcome in counts:
                    labels = f'process="{one.id}",queue="{queue}",outcome="{outcome}"'
                    jobs.append(f"mailyard_process_jobs_total{{{labels}}} {counts[outcome]:.9g}")
    return [*mails, *jobs]


def _queries(slowest: Sequence[tuple[str, float, float]]) -> list[str]:
    share, mean = "mailyard_query_time_ratio", "mailyard_query_mean_seconds"
    lines = [f"# HELP {share} Time that a query takes of each second.", f"# TYPE {share} gauge"]
    lines += [f'{share}{{query="{name}"}} {value:.9g}' for name, value, _ in slowest]
    lines += [f"# HELP {mean} Mean time of a query.", f"# TYPE {mean} gauge"]
    return lines + [f'{mean}{{query="{name}"}} {value:.9g}' for name, _, value in slowest]


def destinations(rows: Sequence[tuple[str, int, int, int]]) -> bytes:
    """(destination, taken, put off, refused) as counters: whom one writes to is the operator's."""
    name = "mailyard_destination_answers_total"
    lines = [f"# HELP {name} Answers of destinations to our mail.", f"# TYPE {name} counter"]
    for place, accepted, later, refused in rows:
        for outcome, amount in (("accepted", accepted), ("later", later), ("refused", refused)):
            labels = f'destination="{_escaped(place)}",outcome="{outcome}"'
            lines.append(f"{name}{{{labels}}} {amount}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
