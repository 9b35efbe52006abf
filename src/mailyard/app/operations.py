"""The installation's own watch: figures, alerts, scaling."""

import os
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailyard.app.webhooks import Webhooking
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.settings import HOME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mailyard.fleet.alerts.board import AlertBoard
    from mailyard.fleet.alerts.notify import Notice, Notifier, Tell
    from mailyard.fleet.alerts.rule import Rule
    from mailyard.fleet.autoscale.actuator import Actuator
    from mailyard.fleet.autoscale.actuators.local import Wire
    from mailyard.fleet.autoscale.book import DecisionBook
    from mailyard.fleet.autoscale.policy import Policy
    from mailyard.fleet.autoscale.scaler import Autoscaler
    from mailyard.fleet.duties.watch import Sink, Watch
    from mailyard.fleet.monitor import Monitor
    from mailyard.fleet.shards.overview import Overview
    from mailyard.net.http import HttpClient

Post = Callable[[bytes], Awaitable[None]]
_REPLICAS_MOST = 50  # of a Deployment whose policy names no bound


class Operating(Webhooking):
    """What looks after the whole installation."""

    @cached_property
    def monitor(self) -> "Monitor":
        """The figures for whoever asks, in this process."""
        from mailyard.fleet.monitor import Monitor

        settings = self.settings
        return Monitor(
            database=self.database,
            engine=self.engine,
            data=settings.data if settings.data.is_dir() else None,
            budget=settings.database_budget,
            live_places=settings.live_connections,
        )

    @cached_property
    def shards_overview(self) -> "Overview":
        """All database clusters, for operators."""
        from mailyard.fleet.shards.overview import Overview

        return Overview(self.clusters, HOME)

    @cached_property
    def alert_rules(self) -> "Sequence[Rule]":
        """Raises ConfigurationError."""
        from mailyard.fleet.alerts.rule import read_rules

        file = self.settings.alerts_file
        return read_rules(_text_of(file, "MAILYARD_ALERTS_FILE"), str(file))

    @cached_property
    def alert_board(self) -> "AlertBoard":
        from mailyard.fleet.alerts.board import AlertBoard

        return AlertBoard(
            database=self.database,
            rules=self.alert_rules,
            channels=list(self.alert_channels),
            clock=self.clock,
        )

    @cached_property
    def notifier(self) -> "Notifier":
        from mailyard.fleet.alerts.notify import Notifier

        return Notifier(database=self.database, channels=self.alert_channels)

    @cached_property
    def decisions(self) -> "DecisionBook":
        from mailyard.fleet.autoscale.book import DecisionBook

        return DecisionBook(database=self.database, clock=self.clock)

    @cached_property
    def scale_policies(self) -> "Sequence[Policy]":
        """With their bounds decided. Raises ConfigurationError."""
        from mailyard.fleet.autoscale.policy import read_policies
        from mailyard.fleet.autoscale.scaler import settled

        settings = self.settings
        file = settings.autoscale_file
        policies = read_policies(_text_of(file, "MAILYARD_AUTOSCALE_FILE"), str(file))
        kubernetes = settings.autoscale == "kubernetes"
        most = _REPLICAS_MOST if kubernetes else os.cpu_count() or 1
        room = settings.most_instances
        if settings.database_instances:  # the operator has said how many there will ever be
            room = min(room, settings.database_instances)
        return settled(policies, self._starts(), most, room)

    def autoscaler(self, wire: "Wire") -> "Autoscaler | None":
        """The autoscaler that the settings ask for. `wire`: to the supervisor of this process."""
        from mailyard.fleet.autoscale.actuators.dry import DryRun
        from mailyard.fleet.autoscale.actuators.local import LocalActuator
        from mailyard.fleet.autoscale.scaler import Autoscaler

        settings = self.settings
        actuator: Actuator
        match settings.autoscale:
            case "local":
                actuator = LocalActuator(wire)
            case "kubernetes":
                actuator = self.kubernetes_actuator()
            case "dry-run":
                actuator = DryRun(None, self._starts())
            case _:
                return None
        return Autoscaler(
            policies=self.scale_policies,
            actuator=actuator,
            book=self.decisions,
            budget=settings.database_budget,
            each=settings.connections_each,
        )

    async def scaling_trouble(self) -> dict[str, str]:
        """Why groups of processes could not be scaled now, by group. Raises nothing."""
        if self.settings.autoscale == "off":
            return {}
        try:
            policies = self.scale_policies
            if self.settings.autoscale != "kubernetes":
                return {}
            actuator = self.kubernetes_actuator()
            found = {}
            for policy in policies:
                try:
                    if await actuator.instances(policy) is None:
                        found[policy.group] = f"there is no Deployment {policy.deployment}"
                except MailyardError as error:
                    found[policy.group] = error.message
            return found
        except ConfigurationError as error:
            return {"the policy": error.message}

    def scaling_most(self) -> int:
        """Processes of all groups together at their ceilings; 0 where the policy cannot be read."""
        try:
            return sum(policy.most for policy in self.scale_policies)
        except ConfigurationError:
            return 0

    def watch(self, wire: "Wire") -> "Watch":
        """What the leading scheduler does about the installation."""
        from mailyard.fleet.duties.watch import Watch

        settings = self.settings
        return Watch(
            database=self.database,
            engine=self.engine,
            data=settings.data if settings.data.is_dir() else None,
            budget=settings.database_budget,
            live_places=settings.live_connections,
            board=self.alert_board if settings.alerts else None,
            scaler=self.autoscaler(wire),
            sinks=self._sinks(),
        )

    def _starts(self) -> dict[str, int]:
        return {
            role: getattr(self.settings, f"{role}_processes")
            for role in ("api", "smtp", "worker", "scheduler")
        }

    def kubernetes_actuator(self) -> "Actuator":
        """What scales Deployments, as the settings say; a pod's own account where they do not."""
        from mailyard.fleet.autoscale.actuators.kubernetes import KubernetesActuator, authority
        from mailyard.net.guard import ANYWHERE
        from mailyard.net.http import HttpClient

        folder = self.settings.autoscale_kubernetes_folder
        http = HttpClient(
            user_agent="Mailyard (autoscaler)",
            allowed=ANYWHERE,  # the operator names it, nobody else can
            tls_context=authority(folder),
        )
        self.ends.append(http.close)
        url = self.settings.autoscale_kubernetes_url
        return KubernetesActuator(http=http, url=url, folder=folder)

    @cached_property
    def _operations_http(self) -> "HttpClient":
        from mailyard.net.guard import networks_in
        from mailyard.net.http import HttpClient

        http = HttpClient(
            user_agent="Mailyard (monitoring)",
            allowed=networks_in(self.settings.alerts_networks),
        )
        self.ends.append(http.close)
        return http

    def _sinks(self) -> "Sequence[Sink]":
        settings = self.settings
        if not settings.influx_url:
            return []
        from mailyard.fleet.influx import InfluxSink

        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if settings.influx_token:
            headers["Authorization"] = f"Token {settings.influx_token}"
        post = self.poster(settings.influx_url, headers)
        return [InfluxSink(post, installation=settings.smtp_name).write]

    @cached_property
    def alert_channels(self) -> "dict[str, Tell]":
        """How alerts are told, as far as settings say it."""
        settings = self.settings
        if not (settings.alerts_mail or settings.alerts_webhook or settings.alerts_slack):
            return {}
        from mailyard.fleet.alerts import notify

        page = settings.page_url
        channels: dict[str, Tell] = {}
        if settings.alerts_mail:
            channels[notify.MAIL] = self._mail_alert
        for name, url, body in (
            (notify.WEBHOOK, settings.alerts_webhook, notify.webhook_body),
            (notify.SLACK, settings.alerts_slack, notify.slack_body),
        ):
            if url:
                post = self.poster(url, {"Content-Type": "application/json"})
                channels[name] = lambda notice, post=post, body=body: post(body(notice, page))  # type: ignore[misc]
        return channels

    def poster(self, url: str, headers: "Mapping[str, str]") -> Post:
        """Posts bytes to `url`; raises Unavailable when they are not taken."""
        from mailyard.core.errors import Unavailable

        async def post(body: bytes) -> None:
            answer = await self._operations_http.request(
                "POST", url, headers=dict(headers), body=body, total_s=10.0
            )
            if not 200 <= answer.status < 300:
                raise Unavailable(f"{urlsplit(url).hostname} answers {answer.status}")

        return post

    async def _mail_alert(self, notice: "Notice") -> None:
        """To each address once, whoever tells it: the idempotency key is the notice's."""
        from hashlib import sha256

        from mailyard.fleet.alerts.notify import mail_text
        from mailyard.sending.answer import Idempotency
        from mailyard.sending.request import EmailRequest

        text = mail_text(notice, self.settings.page_url)
        for address in self.settings.alerts_mail.replace(",", " ").split():
            key = f"alert:{notice.alert}:{notice.id}:{address}"
            await self.emails.accept(
                await self.workspaces.first(),
                EmailRequest(
                    sender=self.settings.account_sender,
                    to=[address],
                    subject=notice.title,
                    text=text,
                    type="alert",
                ),
                Idempotency(key, sha256(text.encode()).digest()),
            )


def _text_of(file: "Path | None", setting: str) -> str:
    if file is None:
        return ""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting} cannot be read: {error}") from None
