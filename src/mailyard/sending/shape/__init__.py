"""How fast each destination may be written to, as data and as pure functions over it.

    receivers.toml, overrides -> book (strict) -> receiver of a site: limits, rules on answers
    answer -> rule (first match) -> site: slower, paused, probing -> verdict for the mail, events
    waiting mails -> dispatch: whose turn, how many -> draws and leases that hold over all workers

Nothing here does I/O. Instants are wall-clock seconds since 1970, because states travel between
processes; randomness is handed in.
"""
