"""Backups, wired: which server, which store, which key."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from mailyard.access.master_key import FILE_NAME, ensure_master_key, parse_master_keys
from mailyard.access.vault import Vault
from mailyard.app.foundation import blob_store, database_address
from mailyard.core.errors import ConfigurationError
from mailyard.settings import Settings
from mailyard.storage import cluster
from mailyard.storage.hosts import for_writes

if TYPE_CHECKING:
    from mailyard.app.application import Application
    from mailyard.storage.backup.keeper import BackupPlace, Backups
    from mailyard.storage.backup.store import Store

_PURPOSE = "backup"


def backups_of(application: "Application") -> "Backups":
    """The backups of this installation. Made without connecting."""
    from mailyard.storage.backup.keeper import Backups

    return Backups(
        database=application.database,
        place=place_of(application.settings),
        clock=application.clock,
    )


def place_of(settings: Settings) -> "BackupPlace":
    from mailyard.storage.backup.keeper import BackupPlace

    if settings.shard:
        url = database_address(settings).direct_url
        role = urlsplit(url).username or "postgres"
    elif settings.embedded:
        url = cluster.url_of(settings.data, role=cluster.SUPERUSER)
        role = cluster.SUPERUSER
    else:
        url = for_writes(
            settings.backup_database_url or settings.database_direct_url or settings.database_url
        )
        role = urlsplit(url).username or "postgres"
    return BackupPlace(
        store=lambda: store_of(store_url(settings)),
        name=_name_of(store_url(settings)),
        passphrase=settings.backup_passphrase,
        master_keys=lambda: master_keys_of(settings),
        keys_file=lambda: _keys_file(settings),
        url=url,
        role=role,
        data=settings.data,
        keep_days=settings.backup_keep_days,
        part_every_s=settings.backup_wal_s,
    )


def store_url(settings: Settings) -> str:
    """Where the backups of this database cluster lie: those of a shard in a folder of its own."""
    if not settings.shard:
        return settings.backup
    parts = urlsplit(settings.backup)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/shard-{settings.shard}"))


def store_of(url: str) -> "Store":
    """Where the backups lie. Raises ConfigurationError."""
    from mailyard.storage.backup.store import Store

    return Store(blob_store(url))


def master_keys_of(settings: Settings, *, make: bool = True) -> Sequence[bytes]:
    """Keys for backups, made from the master keys. Raises ConfigurationError when there are none
    and none may be made: a new one opens no old backup."""
    keys = parse_master_keys(settings.master_key)
    if not keys and not make and not (settings.data / FILE_NAME).exists():
        raise ConfigurationError(
            f"there is no master key to open the backup with: put {FILE_NAME} of then back into "
            f"{settings.data}, or set MAILYARD_MASTER_KEY"
        )
    return Vault(lambda: keys or ensure_master_key(settings.data)).keys_for(_PURPOSE)


def _name_of(url: str) -> str:
    """The store's address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _keys_file(settings: Settings) -> bytes:
    """The master keys as the file in the data folder has them."""
    if settings.master_key:
        return (settings.master_key.replace(",", "\n") + "\n").encode()
    ensure_master_key(settings.data)
    return Path(settings.data / FILE_NAME).read_bytes()
