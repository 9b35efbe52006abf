-- Which inboxes a report came to: a purge of them takes along what was read from it. Null: from before
-- this was noted.
ALTER TABLE dmarc_report ADD COLUMN inbox_ids uuid[];
ALTER TABLE tls_report ADD COLUMN inbox_ids uuid[];
