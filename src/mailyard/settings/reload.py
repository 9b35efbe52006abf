"""Settings that change while the program runs.

What is safe takes the place of the old value; what would need another socket, pool, key or process
waits for a restart, and is named. A file that a setting names is read again with it, also when the
name has not changed.
"""

from dataclasses import dataclass, fields, replace

from mailyard.settings.setting import Settings

# In force at once, each where it is used. `drain_s` and the memory caps are the supervisor's too.
SAFE = frozenset(
    {
        "log_level",
        "rate_per_s",
        "rate_burst",
        "user_limit",
        "limit_policies_file",
        "live_connections",
        "smtp_connections",
        "smtp_connections_per_address",
        "drain_s",
        "api_memory",
        "smtp_memory",
        "worker_memory",
        "scheduler_memory",
    }
)


@dataclass(frozen=True, slots=True)
class Reload:
    """`settings`: with what is safe taken over. `taken` and `waiting`: names that differ."""

    settings: Settings
    taken: tuple[str, ...]
    waiting: tuple[str, ...]


def reloaded(one: Reload) -> str:
    """For the log: what is in force, and what waits."""
    taken = f"in force now: {', '.join(one.taken)}" if one.taken else "none has changed in force"
    if not one.taken and not one.waiting:
        return "settings read again: none has changed; files that they name were read anew"
    waiting = f"; need a restart: {', '.join(one.waiting)}" if one.waiting else ""
    return f"settings read again; {taken}{waiting}"


def reload(old: Settings, new: Settings) -> Reload:
    """What becomes of `new` in a process that runs with `old`."""
    differing = [
        field.name
        for field in fields(Settings)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    taken = tuple(name for name in differing if name in SAFE)
    return Reload(
        replace(old, **{name: getattr(new, name) for name in taken}),
        taken,
        tuple(name for name in differing if name not in SAFE),
    )
