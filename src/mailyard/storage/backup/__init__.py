"""Backup and restore: base backups and the write-ahead log, sealed, in a store that is elsewhere.

    backup.json                 how the store is protected; the only plain file
    base/ID/manifest            what a base backup is made of; written last: without it, it is none
    base/ID/00000001 …          its tar stream, in pieces
    wal/SEGMENT                 a whole segment of the log; SEGMENT.history a timeline's history
    wal/SEGMENT-OFFSET          what had been written of the segment under way, from OFFSET on

Everything but `backup.json` is compressed and sealed (`seal.py`). Who reads the store learns names,
sizes and times, and nothing of what they hold.
"""
