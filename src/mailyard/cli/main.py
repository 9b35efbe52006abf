"""The `mailyard` command. Each command is a module of its own, imported when it is asked for.

A module in COMMANDS has `app`, a Typer with one command, or with several, which then are its
sub-commands. So `mailyard worker` pays for what a worker needs and nothing else.
"""

import difflib
import sys
from importlib import import_module

from mailyard.cli import exit_code
from mailyard.core.errors import MailyardError

# name -> (module, what `mailyard --help` says)
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("mailyard.cli.up", "Start the whole platform on this machine."),
    "api": ("mailyard.cli.api", "Run one API and page process against a shared database."),
    "smtp": ("mailyard.cli.smtp", "Run one SMTP listener against a shared database."),
    "worker": ("mailyard.cli.worker", "Run one worker against a shared database."),
    "scheduler": ("mailyard.cli.scheduler", "Run one scheduler against a shared database."),
    "migrate": ("mailyard.cli.migrate", "Bring the database to this version."),
    "shard": ("mailyard.cli.shard", "Database clusters: list, make ready, move a workspace."),
    "blobs": ("mailyard.cli.blobs", "The store of large mail: make, try, count, move it."),
    "backup": ("mailyard.cli.backup", "Take backups, list them, restore one on trial."),
    "restore": ("mailyard.cli.restore", "Make the database as it was at an instant."),
    "doctor": ("mailyard.cli.doctor", "Check the machine and the configuration."),
    "demo": ("mailyard.cli.demo", "Send a campaign to inboxes of its own and prove the result."),
    "experiment": (
        "mailyard.cli.experiment",
        "Put a platform of its own under load and see it scale itself.",
    ),
    "send": ("mailyard.cli.send", "Send one mail."),
    "email": ("mailyard.cli.email", "Look at a sent email, withdraw what has not left."),
    "region": ("mailyard.cli.region", "List regions; take over a lost one."),
    "feature": ("mailyard.cli.feature", "Let features come to workspaces gradually."),
    "limits": ("mailyard.cli.limits", "Show and set the workspace's sending limits."),
    "plan": ("mailyard.cli.plan", "Show what the workspace uses; list plans, give them."),
    "inbox": ("mailyard.cli.inbox", "Make inboxes, list and read their mail, wait for it."),
    "address": ("mailyard.cli.address", "Hold addresses, with or without an inbox; let them go."),
    "search": ("mailyard.cli.search", "Search received mail; index anew what lies there."),
    "mailbox": ("mailyard.cli.mailbox", "Threads, folders, undo; write from an inbox."),
    "analysis": ("mailyard.cli.analysis", "What mail means: find, ask, models, budget."),
    "import": ("mailyard.cli.import_", "Import contacts from a CSV file."),
    "import history": (
        "mailyard.cli.import_history",
        "Import what another system has sent, from CSV or Parquet.",
    ),
    "template": ("mailyard.cli.template", "Write, publish, preview and test templates."),
    "campaign": ("mailyard.cli.campaign", "Start, pause, resume, cancel and watch campaigns."),
    "domain": ("mailyard.cli.domain", "Sending domains: their DNS records, checks and keys."),
    "receiving-domain": (
        "mailyard.cli.receiving_domain",
        "Receive for domains of your own: proof, MX, routes.",
    ),
    "segment": ("mailyard.cli.segment", "Make segments of contacts, estimate and count them."),
    "topic": ("mailyard.cli.topic", "Make and list topics; show and set what a contact gets."),
    "tracking-domain": ("mailyard.cli.tracking_domain", "Names of your own that links go by."),
    "suppression": ("mailyard.cli.suppression", "Whom nobody writes to: add, remove, files."),
    "provider-hook": (
        "mailyard.cli.provider_hook",
        "Addresses to which providers send what became of mail.",
    ),
    "webhook": ("mailyard.cli.webhook", "Tell programs of events: endpoints, log, replay."),
    "monitoring": (
        "mailyard.cli.monitoring",
        "Figures, alerts, scaling; rules for Prometheus, a Grafana page.",
    ),
    "queue": ("mailyard.cli.queue", "Show depths and dead letters, pause, resume, redrive."),
    "provider": ("mailyard.cli.provider", "Add, change, try and remove providers."),
    "route": ("mailyard.cli.route", "Say which providers may have which mail."),
    "report": ("mailyard.cli.report", "Show what receivers report of the domains' mail."),
    "shaping": ("mailyard.cli.shaping", "Show destinations as they are written to, pause, resume."),
    "mcp": ("mailyard.cli.mcp", "Serve inboxes to AI agents (Model Context Protocol)."),
    "member": ("mailyard.cli.member", "List members and their sessions; ask people in by mail."),
    "key": ("mailyard.cli.key", "Make, list and revoke API keys."),
    "version": ("mailyard.cli.version", "Print the version."),
}

_HELP = """\
Usage: mailyard COMMAND [OPTIONS]

  A self-hosted email platform that sends, receives, and proves that it lost nothing.

Commands:
{commands}

Example:
  mailyard up
  mailyard demo --recipients 1000

Each command has --help with an example. Settings come from MAILYARD_* variables and an optional
TOML file named by MAILYARD_CONFIG; `mailyard doctor --settings` lists them.

Exit codes: 0 done; 1 refused, or a verdict that is not clean; 2 wrong usage; 69 a part is away
(the database, the server); 78 a setting or the machine is wrong; 130 interrupted.
"""


def help_text() -> str:
    """What `mailyard --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{about}" for name, (_, about) in COMMANDS.items()]
    return _HELP.format(commands="\n".join(lines))


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if " ".join(arguments[:2]) in COMMANDS:  # one of two words
        name, arguments = " ".join(arguments[:2]), arguments[1:]
    if name in ("", "--help", "-h", "help"):
        print(help_text(), end="")
        return exit_code.DONE if name else exit_code.USAGE
    if name == "--version":
        name = "version"
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"mailyard: no command {name!r}.{hint} See mailyard --help.", file=sys.stderr)
        return exit_code.USAGE
    try:
        app = import_module(COMMANDS[name][0]).app
        app.pretty_exceptions_enable = False  # it would print local variables, secrets included
        app(args=arguments[1:], prog_name=f"mailyard {name}")
    except MailyardError as error:
        print(f"mailyard: {error.message}", file=sys.stderr)
        return exit_code.of(error)
    except OSError as error:
        if error.filename is None:
            raise  # not a file's fault, so ours
        print(f"mailyard: {error.filename}: {error.strerror}", file=sys.stderr)
        return exit_code.REFUSED
    except KeyboardInterrupt:
        return exit_code.INTERRUPTED
    return exit_code.DONE


if __name__ == "__main__":
    main()
