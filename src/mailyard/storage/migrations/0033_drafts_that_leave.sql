-- A draft that is being handed to sending can no longer be taken back; why one came back stands with it.
ALTER TABLE mailbox_text
    ADD COLUMN leaving boolean NOT NULL DEFAULT false,
    ADD COLUMN problem text NOT NULL DEFAULT '';
