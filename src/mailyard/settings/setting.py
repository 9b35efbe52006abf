"""Every setting with its kind, its default and what it is about."""

# ruff: noqa: RUF009 (the defaults are immutable and made once, with what is said about them)

import socket
from dataclasses import dataclass
from pathlib import Path

from mailyard.core import limits
from mailyard.settings.kinds import (
    ADDRESS,
    ADDRESSES,
    BLOBS,
    BYTES,
    COUNT,
    DNS_SERVERS,
    DOMAIN,
    FILE,
    FLAG,
    FOLDER,
    HTTP,
    LANE_NAMES,
    MASTER_KEY,
    NETWORKS,
    PARTITIONS,
    PORT,
    PORT_OR_NONE,
    POSTGRES,
    POSTGRES_LIST,
    RECIPIENTS,
    REDIS,
    REGION,
    SERVERS,
    SHARDS,
    SMTP,
    SPF,
    TEXT,
    TOPIC_PREFIX,
    choice,
    number,
    parse_domain,
    parse_shards,
    setting,
    whole,
)

SUBMISSION_PORT = 2587  # as 587 and 465, which need a privilege
SUBMISSIONS_PORT = 2465
DIRECT_CONNECTIONS = 2  # of one process: LISTEN, and an advisory lock or a detach


def _host_name() -> str:
    try:
        return parse_domain(socket.gethostname())
    except ValueError:
        return "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an installation may decide. Sizes in bytes, times in seconds."""

    data: Path = setting(FOLDER, Path("data"), "where the embedded database lives")
    stage: int = setting(
        whole(1, 4),
        1,
        "what `mailyard up` starts beside the roles: 1 PostgreSQL; 2 a replica, PgBouncer, Redis, "
        "nginx too; 3 Sentinels, Kafka, S3 as well",
    )
    stage_file: Path | None = setting(FILE, None, "TOML over the packed stages")
    host: str = setting(TEXT, "127.0.0.1", "address that the API and the page listen on")
    port: int = setting(PORT, 8025, "port of the API and the page")
    smtp_host: str = setting(TEXT, "127.0.0.1", "address that the SMTP server listens on")
    smtp_port: int = setting(PORT, 2525, "port of the SMTP server")
    submission_port: int | None = setting(
        PORT_OR_NONE,
        None,
        f"port where applications submit mail, with STARTTLS (elsewhere 587): {SUBMISSION_PORT} "
        "when it is free; 0: none",
    )
    submissions_port: int | None = setting(
        PORT_OR_NONE,
        None,
        f"the same with TLS on connect (elsewhere 465): {SUBMISSIONS_PORT} when it is free; "
        "0: none",
    )
    hostname: str = setting(DOMAIN, "", "the name that SMTP greets with; the machine's when empty")
    base_url: str = setting(HTTP, "", "the page's address as people reach it")
    inbox_domain: str = setting(DOMAIN, "inbox.localhost", "domain of generated inbox addresses")
    return_domain: str = setting(
        DOMAIN,
        "",
        "domain of return-paths, whose MX is here; returns.<inbox domain> without a relay",
    )

    region: str = setting(
        REGION, "", "the region that this process works for, as eu; there is only one when empty"
    )
    regions_file: Path | None = setting(
        FILE, None, "TOML with all regions: their APIs, SMTP names and the copies kept here"
    )

    database_url: str = setting(POSTGRES, "", "PostgreSQL to use; embedded when empty")
    database_replicas: str = setting(
        POSTGRES_LIST, "", "standby servers that reads which may lag a little are sent to"
    )
    database_direct_url: str = setting(POSTGRES, "", "past the pooler; database_url when empty")
    database_pooler: bool = setting(FLAG, False, "database_url is a PgBouncer in transaction mode")
    database_connections: int = setting(whole(2, 200), 8, "pooled connections of one process")
    database_budget: int = setting(whole(4, 10_000), 100, "connections that all may use together")
    database_memory: int = setting(
        BYTES, 64 * limits.MIB, "the embedded PostgreSQL's page cache (shared_buffers)"
    )
    database_instances: int = setting(whole(0, 1000), 0, "most processes ever; 0: as started here")

    shards: str = setting(
        SHARDS, "", "other database clusters that workspaces may be in: east=postgresql://…"
    )
    shard: str = setting(
        TEXT, "", "the cluster of shards that this worker or scheduler works for; home when empty"
    )

    queue_engine: str = setting(
        choice("postgres", "kafka"), "postgres", "where jobs are kept; kafka: those of kafka_lanes"
    )
    kafka_servers: str = setting(SERVERS, "", "Kafka's brokers; a few of them will do")
    kafka_lanes: str = setting(
        LANE_NAMES,
        "email-send,email-bulk,email-events,inbound-email",
        "queues whose jobs are kept in Kafka; the others stay on PostgreSQL",
    )
    kafka_partitions: str = setting(
        PARTITIONS, "", "partitions of topics made, over email-send=100, email-bulk=50, …"
    )
    kafka_replicas: int = setting(whole(1, 9), 3, "copies of topics made, if so many brokers are")
    kafka_prefix: str = setting(TOPIC_PREFIX, "", "what stands before the names of topics")
    kafka_group: str = setting(TEXT, "mailyard", "the consumer group of the workers")
    kafka_group_protocol: str = setting(
        choice("classic", "consumer"), "classic", "how the group deals; consumer: as of KIP-848"
    )
    kafka_tls: bool = setting(FLAG, False, "connections to the brokers are encrypted")
    kafka_ca: Path | None = setting(FILE, None, "PEM of who signed the brokers' certificates")
    kafka_sasl: str = setting(
        choice("none", "plain", "scram-sha-256", "scram-sha-512"), "none", "how we sign in there"
    )
    kafka_user: str = setting(TEXT, "", "the name that we sign in with at Kafka")
    kafka_password: str = setting(TEXT, "", "the password to it")

    redis_url: str = setting(
        REDIS, "", "Redis for cache, limits and wake-ups of a fleet; PostgreSQL does it when empty"
    )

    backup: str = setting(BLOBS, "", "where backups go, all the time; no backups when empty")
    backup_passphrase: str = setting(
        TEXT,
        "",
        "what opens the backups, also when the master key is lost; the master key when empty",
    )
    backup_database_url: str = setting(
        POSTGRES, "", "the database for one who may replicate; database_direct_url when empty"
    )
    backup_every_h: float = setting(number(0.01, 720), 24.0, "hours between two base backups")
    backup_wal_s: float = setting(
        number(0.1, 3600), 10.0, "seconds of work that a lost machine may cost"
    )
    backup_keep_days: float = setting(
        number(0.01, 3650), 14.0, "days that can be restored at any instant"
    )
    backup_try_days: float = setting(
        number(0, 365), 7.0, "days between two restores on trial; 0: none"
    )

    history_months: int = setting(
        whole(0, 1200), 0, "months that deliveries and sent mails stay; 0: for ever"
    )
    audit_months: int = setting(
        whole(0, 1200), 0, "months that the record of changes stays; 0: for ever"
    )

    api_processes: int = setting(COUNT, 1, "API and page processes")
    smtp_processes: int = setting(COUNT, 1, "SMTP listener processes")
    worker_processes: int = setting(COUNT, 2, "worker processes")
    worker_lanes: str = setting(LANE_NAMES, "", "queues that workers here serve; all when empty")
    scheduler_processes: int = setting(COUNT, 1, "schedulers; one leads, others stand by")
    api_memory: int = setting(BYTES, 600 * limits.MIB, "an API process above this is replaced")
    smtp_memory: int = setting(BYTES, 400 * limits.MIB, "an SMTP process above this is replaced")
    worker_memory: int = setting(BYTES, 600 * limits.MIB, "a worker above this is replaced")
    scheduler_memory: int = setting(BYTES, 300 * limits.MIB, "a scheduler above this is replaced")
    drain_s: float = setting(
        number(0, 600), 20.0, "how long a stopping process may finish its work"
    )

    alive_file: Path | None = setting(
        FILE, None, "a file that a role process touches every 5 s, for who looks whether it turns"
    )

    relay_url: str = setting(
        SMTP, "", "where mail is handed to (smtps: TLS on connect); our own listener when empty"
    )
    relay_tls: str = setting(
        choice("none", "opportunistic", "required"),
        "opportunistic",
        "STARTTLS towards the relay; required: its certificate is verified, with smtps too",
    )
    provider_networks: str = setting(
        NETWORKS, "", "networks like 10.0.0.0/8 that providers may be in although not public"
    )
    webhook_networks: str = setting(
        NETWORKS, "", "networks like 10.0.0.0/8 that webhooks may be in although not public"
    )
    analysis_networks: str = setting(
        NETWORKS, "", "networks like 127.0.0.0/8 that model servers may be in although not public"
    )
    relay_connections: int = setting(whole(1, 200), 10, "connections of one worker to the relay")
    delivery: str = setting(
        choice("relay", "mx"),
        "relay",
        "mail goes to the relay, or by ourselves to the recipients' own mail servers",
    )
    mx_port: int = setting(PORT, 25, "port of the recipients' mail servers; 25 but in trials")
    mx_networks: str = setting(
        NETWORKS, "", "networks that own delivery may reach although they are not public"
    )
    shaping_file: Path | None = setting(
        FILE, None, "TOML over the shipped limits and rules of receivers"
    )
    sources_file: Path | None = setting(
        FILE, None, "TOML with pools of source addresses and their warm-up; none: the system's own"
    )
    tls_cert: Path | None = setting(FILE, None, "PEM certificate chain of the SMTP server")
    tls_key: Path | None = setting(FILE, None, "PEM key of the certificate")

    blobs: str = setting(
        BLOBS,
        "",
        "where mail too large for its row lies: file:///FOLDER, s3://BUCKET/PREFIX?endpoint=URL, "
        "gs://BUCKET, az://CONTAINER; in the row when empty",
    )
    blobs_before: str = setting(
        BLOBS,
        "",
        "the store that blobs move away from (mailyard blobs copy): read, not written",
    )
    blobs_above: int = setting(
        BYTES, limits.BLOB_ABOVE_BYTES, "mail above this size goes to the blob store"
    )

    dns_servers: str = setting(
        DNS_SERVERS, "", "DNS resolvers by address, in order of use; the system's when empty"
    )
    dns_validates: bool = setting(
        FLAG, False, "dns_servers check DNSSEC and nobody can change what they say: allows DANE"
    )
    remote_images: bool = setting(
        FLAG, True, "a reader of a mail's page may load its remote images, through this server"
    )
    rspamd_url: str = setting(
        HTTP, "", "where rspamd scores mail, as http://127.0.0.1:11333; our own rules when empty"
    )
    semantic_search: bool = setting(
        FLAG, False, "mail can be searched by meaning: pip install 'mailyard[semantic]', pgvector"
    )
    check_senders: bool = setting(
        FLAG, True, "who sent a mail is checked when it comes in: SPF, DKIM, DMARC, ARC"
    )
    check_loopback: bool = setting(
        FLAG, False, "SPF also of clients on this machine (a relay before us would fail it)"
    )
    public_suffix_file: Path | None = setting(
        FILE, None, "a public suffix list for DMARC; without one it asks DNS (RFC 9989)"
    )
    tls_reports_from: str = setting(
        ADDRESS,
        "",
        "the address of TLS reports on our own deliveries (RFC 8460), at a sending "
        "domain; none are sent when empty",
    )
    spf: str = setting(
        SPF, "", "what SPF must allow for our mail; by itself the addresses below, or our host"
    )
    sending_addresses: str = setting(
        ADDRESSES, "", "the addresses that our mail leaves from: their names (PTR) are checked"
    )
    master_key: str = setting(
        MASTER_KEY, "", "what keeps stored secrets, newest first; made in `data` when empty"
    )

    sign_up: bool = setting(FLAG, False, "whether people may sign up and get a workspace")
    mail_from: str = setting(
        TEXT, "", "sender of Mailyard's own mails, like Mailyard <no-reply@example.org>"
    )
    plans_file: Path | None = setting(
        FILE, None, "TOML with plans: what workspaces may use, and what it costs; none: no limits"
    )
    live_connections: int = setting(
        whole(0, 100_000),
        limits.LIVE_CONNECTIONS,
        "event streams, WebSockets and waits of one API process",
    )
    compress: bool = setting(
        FLAG, True, "answers are compressed here; false where a balancer or a CDN does it"
    )
    rate_per_s: float = setting(
        number(0, 1e6), 1000.0, "API requests a second a key, all processes; 0: unlimited"
    )
    rate_burst: int = setting(whole(1, 1_000_000), 10_000, "API requests at once a key")
    limit_policies_file: Path | None = setting(
        FILE, None, "TOML with limits by name over the shipped ones (Gmail, Graph, a person)"
    )
    user_limit: str = setting(
        TEXT, "", "the limit by which a signed-in person's API requests count, like general"
    )
    smtp_connections: int = setting(
        whole(1, 100_000), limits.SMTP_CONNECTIONS, "SMTP connections of one process"
    )
    smtp_connections_per_address: int = setting(
        whole(1, 100_000), limits.SMTP_CONNECTIONS_PER_ADDRESS, "SMTP connections from one address"
    )
    smtp_balancers: str = setting(
        NETWORKS, "", "networks whose connections to SMTP begin with the PROXY protocol"
    )
    http_balancers: str = setting(
        NETWORKS, "", "networks whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    alerts: bool = setting(FLAG, True, "alert rules are judged, and shown on a page")
    alerts_file: Path | None = setting(FILE, None, "TOML over the packed alert rules")
    alerts_mail: str = setting(
        RECIPIENTS, "", "addresses that alerts are mailed to, with commas between"
    )
    alerts_webhook: str = setting(HTTP, "", "an address that alerts are posted to as JSON")
    alerts_slack: str = setting(
        HTTP, "", "an incoming webhook of Slack, Mattermost or Rocket.Chat for alerts"
    )
    alerts_networks: str = setting(
        NETWORKS,
        "",
        "networks like 10.0.0.0/8 that alerts, series, traces and error reports may be posted to",
    )
    autoscale: str = setting(
        choice("off", "local", "kubernetes", "dry-run", "outside"),
        "off",
        "who makes more and fewer processes: the supervisor here, Kubernetes; dry-run: decides "
        "and records alone; outside: HPA or KEDA, by our metrics",
    )
    autoscale_file: Path | None = setting(FILE, None, "TOML over the packed policies of scaling")
    autoscale_kubernetes_url: str = setting(
        HTTP, "https://kubernetes.default.svc", "the Kubernetes API server"
    )
    autoscale_kubernetes_folder: Path = setting(
        FOLDER,
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        "folder with the service account's token, namespace and ca.crt",
    )
    influx_url: str = setting(
        HTTP,
        "",
        "where series are written in InfluxDB's line protocol, as "
        "http://influx:8086/write?db=mailyard or http://influx:8086/api/v2/write?org=o&bucket=b",
    )
    influx_token: str = setting(TEXT, "", "the token of an InfluxDB 2 or 3")
    otlp_url: str = setting(
        HTTP,
        "",
        "where traces are sent by OTLP, as http://collector:4318: pip install 'mailyard[otel]'",
    )
    otlp_headers: str = setting(
        TEXT, "", "headers that traces are sent with, as Authorization=Bearer x,X-Scope=y"
    )
    traces_share: float = setting(
        number(0, 1), 1.0, "of requests and mails so many begin a trace; who brings one decides"
    )
    sentry_dsn: str = setting(
        TEXT, "", "where errors of ours are reported (Sentry's protocol), without a word of mail"
    )
    log_level: str = setting(
        choice("debug", "info", "warning", "error"), "info", "least level that is logged"
    )
    log_format: str = setting(choice("text", "json"), "text", "for people or for machines")
    url: str = setting(HTTP, "", "the API that commands talk to; the one here when empty")
    api_key: str = setting(TEXT, "", "the key that commands use")

    @property
    def page_url(self) -> str:
        """Where the page is, without a slash at the end."""
        if self.base_url:
            return self.base_url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """The API that a command of this installation talks to."""
        return self.url.rstrip("/") if self.url else self.page_url

    @property
    def account_sender(self) -> str:
        """Who writes the mails of sign-up, invitations and forgotten passwords."""
        return self.mail_from or f"Mailyard <no-reply@{self.inbox_domain}>"

    @property
    def smtp_name(self) -> str:
        """The name in the SMTP greeting and in EHLO."""
        return self.hostname or _host_name()

    @property
    def returns_at(self) -> str:
        """The domain of return-paths; empty: mail goes out under its sender's own address.

        Without a relay our own listener takes the mail, and what comes back: so a fresh install
        needs no setting.
        """
        if self.return_domain or self.relay_url:
            return self.return_domain
        return f"returns.{self.inbox_domain}"

    @property
    def embedded(self) -> bool:
        """Whether the platform brings its own PostgreSQL."""
        return not self.database_url

    @property
    def replica_urls(self) -> list[str]:
        """The addresses of the standby servers."""
        return self.database_replicas.split()

    @property
    def shard_urls(self) -> dict[str, tuple[str, str]]:
        """The addresses of the clusters beside the home one, by name: pooled or not, and past the
        pooler (empty where there is none)."""
        return parse_shards(self.shards)

    @property
    def many_hosts(self) -> bool:
        """Whether the database's address names several servers, of which one takes writes."""
        return "," in self.database_url + self.database_direct_url

    @property
    def connections_each(self) -> int:
        """The most connections of one process to the primary: its pool and the direct ones."""
        return self.database_connections + DIRECT_CONNECTIONS

    @property
    def most_instances(self) -> int:
        """How many processes the budget has room for: the ceiling of whoever starts more."""
        return self.database_budget // self.connections_each

    @property
    def instances(self) -> int:
        """The most processes that may hold a pool at once, all machines together."""
        here = (
            self.api_processes
            + self.smtp_processes
            + self.worker_processes
            + self.scheduler_processes
        )
        return self.database_instances or here
