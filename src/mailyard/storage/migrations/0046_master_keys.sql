-- Which master keys an installation uses, by their ids (access/master_key.py): a process with another
-- would sign what no other process knows.

CREATE TABLE master_key (
    id         bytea PRIMARY KEY,
    noted_at   timestamptz NOT NULL DEFAULT now()
);
