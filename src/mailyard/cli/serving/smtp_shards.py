"""The SMTP role of an installation on several database clusters."""

from collections.abc import Mapping

from mailyard.app import Application
from mailyard.app.shards import Shards
from mailyard.cli.serving.smtp import Decider, acceptor_of
from mailyard.core.errors import InvalidInput, MailyardError, Unavailable
from mailyard.protocol.address import normalise
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import LoginAsked
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.shards import ShardedAcceptor, residence
from mailyard.sending.submission import Submitter
from mailyard.settings import HOME
from mailyard.storage.names import ADDRESS, DOMAIN, Named

_PREFIX = slice(3, 13)  # of an API key: my_<prefix>_<secret>
_TRY_LATER = Reply(454, "4.7.0", "Cannot be checked now, try again later")
_MOVING = Reply(451, "4.3.2", "The workspace is being moved, try again in a minute")


class SmtpShards:
    """An acceptor and a decider for each cluster, made when it was reached."""

    def __init__(self, application: Application) -> None:
        self._shards = Shards(application)
        self._acceptors: dict[str, Acceptor] = {}
        self.acceptor = ShardedAcceptor(
            acceptor_of=self._acceptor_of,
            shards=self._reached,
            directory=self._shards.directory,
            returning=self._returning,
            naming=self._naming,
        )
        self.decider = ShardedDecider(self._shards)

    async def start(self) -> None:
        """Reach for the clusters. Raises Unavailable when the home one is away."""
        await self._shards.open()

    async def close(self) -> None:
        """Wait until every message that came in whole has its reply."""
        for acceptor in self._acceptors.values():
            await acceptor.close()
        await self._shards.close()

    def _acceptor_of(self, shard: str) -> Acceptor:
        acceptor = self._acceptors.get(shard)
        if acceptor is None:
            application = self._shards.application(shard)
            acceptor = acceptor_of(application, residence(self._shards.directory, shard))
            acceptor.start()
            self._acceptors[shard] = acceptor
        return acceptor

    def _reached(self) -> Mapping[str, bool]:
        up = self._shards.up
        return {name: name in up for name in self._shards.applications}

    async def _returning(self, address: str) -> str | None:
        """The cluster of the delivery whose return-path the address is."""
        paths = self._shards.applications[HOME].return_paths
        if paths is None:
            return None
        try:
            delivery_id = paths.find([normalise(address)])
        except InvalidInput:
            return None
        if delivery_id is None:
            return None
        workspace_id = await self._shards.find("delivery", str(delivery_id))
        if workspace_id is None:
            return HOME
        place = await self._shards.place(workspace_id)
        if place.moving:
            raise Unavailable("the workspace moves")
        return place.shard

    async def _naming(self, address: str) -> tuple[str, bool] | None:
        """The cluster that the directory of names leads to; whether for all of the domain."""
        try:
            whole = normalise(address)
        except InvalidInput:
            return None
        own, domain = Named(ADDRESS, whole), Named(DOMAIN, whole.rpartition("@")[2])
        found = await self._shards.names.find([own, domain])
        workspace_id = found.get(domain) or found.get(own)
        if workspace_id is None:
            return None
        place = await self._shards.place(workspace_id)
        return place.shard, domain in found


class ShardedDecider:
    """Decides about submitted mail: the cluster of the API key does."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._deciders: dict[str, Decider] = {}

    async def authenticate(self, question: LoginAsked) -> Reply:
        """The answer to AUTH, of the cluster that has the key; of the home one if none has."""
        try:
            decider = await self._decider(question.credentials.password)
        except MailyardError:
            return _TRY_LATER
        return await decider.authenticate(question)

    def accept_recipient(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        """RCPT: any address."""
        return self._of(HOME).accept_recipient(peer, reverse_path, address)

    async def accept_message(self, envelope: Envelope, content: bytes) -> Reply:
        """The end of DATA: 250 after the commit."""
        user = envelope.peer.user
        assert isinstance(user, Submitter), "nobody gets here without signing in"
        try:
            decider = await self._decider(user.secret)
        except MailyardError:
            return _MOVING
        return await decider.accept_message(envelope, content)

    async def _decider(self, secret: str) -> Decider:
        workspace_id = await self._shards.find("key", secret[_PREFIX])
        if workspace_id is None:
            return self._of(HOME)
        place = await self._shards.place(workspace_id)
        if place.moving:
            raise Unavailable("the workspace moves")
        return self._of(place.shard)

    def _of(self, shard: str) -> Decider:
        decider = self._deciders.get(shard)
        if decider is None:
            decider = self._deciders[shard] = Decider(self._shards.application(shard))
        return decider
