"""The policy of scaling as data: what makes a group of processes larger or smaller, and how fast.

`policies.toml` is what is packed with the program; a file of the operator's own replaces values of
it, group by group. A group is a role, or a role restricted to some queues (Kubernetes runs workers
per lane so).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.packed import packed_tables

ROLES = ("api", "smtp", "worker")
METRICS = (
    "cpu",
    "busy",
    "memory",
    "requests_per_s",
    "p95_s",
    "depth",
    "oldest_s",
    "processing_s",
    "connections",
)


@dataclass(frozen=True, slots=True)
class Signal:
    """One metric and what it asks for.

    Above `up_above` for `up_for_s` it asks for one more; below `down_below` (None: it never does)
    for `down_for_s` it agrees to one less. `each`: the metric is one process's share of the load,
    so with fewer processes it rises in proportion. `once`: it asks for one more and not again
    before it has fallen. `needs`, `needs_above`: it asks only while that other metric is above so
    much; else it gives `advice`, because more processes would not help.
    """

    metric: str
    up_above: float
    up_for_s: float
    down_below: float | None = None
    down_for_s: float = 0.0
    each: bool = False
    once: bool = False
    needs: str = ""
    needs_above: float = 0.0
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """One group. `least` 0: as many as the settings start; `most` 0: what the connection budget
    and the machine's cores allow.

    The rule of capacity: workers wanted = ceil((arrival rate + backlog / `drain_s`) x service time
    / (concurrency x `utilisation`)). `cores`: how much of a core one process may use, where it is
    held to a share (the CPU limit of a pod). The rule acts at once, cooldown or not, when it has
    wanted `panic_factor` times what is there for `panic_s`, or so long as the oldest work would
    miss `oldest_s`. Else the signals decide, one process at a time.
    """

    group: str
    role: str
    queues: tuple[str, ...] = ()
    deployment: str = ""
    least: int = 0
    most: int = 0
    up_cooldown_s: float = 180.0
    down_cooldown_s: float = 300.0
    drain_s: float = 60.0
    oldest_s: float = 60.0
    utilisation: float = 0.7
    cores: float = 1.0
    panic_s: float = 15.0
    panic_factor: float = 2.0
    budget_share: float = 0.8
    signals: tuple[Signal, ...] = ()


def read_policies(own: str = "", name: str = "the file") -> tuple[Policy, ...]:
    """The packed policies under the text of `own`, TOML. Raises ConfigurationError naming `name`.

    A group's values replace the packed ones; `signal` replaces the whole list of its signals;
    `[worker]\\nremove = true` leaves a group alone.
    """
    groups = packed_tables("mailyard.fleet.autoscale", "policies.toml", own, name, "remove")
    return tuple(_policy(group, table, name) for group, table in groups.items())


def _policy(group: str, table: Mapping[str, Any], name: str) -> Policy:
    where = f"{name}: [{group}]"
    signals = tuple(_signal(one, where) for one in table.get("signal", ()))
    values = {key: value for key, value in table.items() if key != "signal"}
    values["queues"] = tuple(values.get("queues", ()))
    policy: Policy = _made(Policy, {"group": group, "signals": signals, **values}, where)
    if policy.role not in ROLES:
        raise ConfigurationError(f"{where}: role is {policy.role!r}; one of {', '.join(ROLES)}")
    if policy.least < 0 or policy.most < 0 or 0 < policy.most < policy.least:
        raise ConfigurationError(f"{where}: least and most must be 0 or more, least <= most")
    if (
        not 0 < policy.utilisation <= 1
        or min(policy.drain_s, policy.cores) <= 0
        or policy.panic_factor < 1
    ):
        raise ConfigurationError(
            f"{where}: utilisation is above 0 to 1, drain_s and cores above 0, panic_factor at "
            "least 1"
        )
    return policy


def _signal(table: Mapping[str, Any], where: str) -> Signal:
    signal: Signal = _made(Signal, table, f"{where} signal")
    for metric in filter(None, (signal.metric, signal.needs)):
        if metric not in METRICS:
            raise ConfigurationError(
                f"{where}: no metric {metric!r}; known are {', '.join(METRICS)}"
            )
    if signal.down_below is not None and signal.down_below > signal.up_above:
        raise ConfigurationError(
            f"{where}: {signal.metric} goes down below {signal.down_below:g}, which is above "
            f"{signal.up_above:g}, where it goes up: it would never rest"
        )
    return signal


def _made(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass of plain values, each checked against its default's kind."""
    known = {field.name: field for field in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise ConfigurationError(f"{where}: no {key!r}; known are {', '.join(known)}")
        wanted = known[key].type
        good = (
            isinstance(value, bool)
            if wanted is bool
            else isinstance(value, str)
            if wanted is str
            else isinstance(value, int) and not isinstance(value, bool)
            if wanted is int
            else isinstance(value, tuple)
            if isinstance(value, tuple)
            else isinstance(value, (int, float)) and not isinstance(value, bool)
        )
        if not good:
            raise ConfigurationError(f"{where}: {key} is {value!r}, which is of the wrong kind")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigurationError(f"{where}: {error}") from None
