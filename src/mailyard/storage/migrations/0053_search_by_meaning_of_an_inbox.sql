-- Whether an inbox's mail can be found by meaning; null: as its workspace.
ALTER TABLE inbox ADD COLUMN by_meaning boolean;
-- Some inbox has said so for itself.
ALTER TABLE search_setting ADD COLUMN inboxes boolean NOT NULL DEFAULT false;
