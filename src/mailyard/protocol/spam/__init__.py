"""How much a mail looks like spam: a few readable rules, each with its points. Pure."""
