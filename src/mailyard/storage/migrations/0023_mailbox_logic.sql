-- What a mailbox adds to the lines of its mail: threads, folders, flags, drafts, and every change as
-- an event with a number. All of it lies with its inbox (storage/derived.py), cut on the inbox's id:
-- one partition holds everything of one inbox.

-- One row an inbox that has had mail or a change. Whoever changes a mailbox holds its row until the
-- commit, so that numbers have no gaps and appear in order.
CREATE TABLE mailbox (
    inbox_id        uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    seq             bigint NOT NULL,               -- of the last event
    folders         text[] NOT NULL DEFAULT '{}',  -- of its own, beside those that each has
    labels          text[] NOT NULL DEFAULT '{}',  -- that have been used in it
    PRIMARY KEY (inbox_id, retention_days)
) PARTITION BY LIST (retention_days);

CREATE TABLE mailbox_event (
    inbox_id        uuid NOT NULL,
    seq             bigint NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    kind            text NOT NULL,
    item            text NOT NULL,                 -- JSON: ids and states, never what a mail says
    PRIMARY KEY (inbox_id, seq, retention_days)
) PARTITION BY LIST (retention_days);

-- Where a line is and how it stands. The thread's id is that of one of its messages, most often its
-- first: a mail that stands alone needs no entry in the index of threads.
CREATE TABLE line_state (
    inbox_id        uuid NOT NULL,
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    thread_id       uuid NOT NULL,
    own_key         bigint,                        -- hash of its Message-ID
    subject_key     bigint,                        -- of a mail that answers none: sender, subject, time
    folder          text NOT NULL,
    back_to         text NOT NULL DEFAULT '',      -- the folder that a snoozed or deleted mail was in
    labels          text[] NOT NULL DEFAULT '{}',
    seen            boolean NOT NULL,
    starred         boolean NOT NULL DEFAULT false,
    muted           boolean NOT NULL DEFAULT false,
    snoozed_until   timestamptz,
    PRIMARY KEY (inbox_id, message_id, retention_days)
) PARTITION BY LIST (retention_days);
CREATE INDEX line_state_in_folder ON line_state (inbox_id, folder, message_id);
CREATE INDEX line_state_unseen ON line_state (inbox_id, folder, message_id) WHERE NOT seen;
CREATE INDEX line_state_starred ON line_state (inbox_id, message_id) WHERE starred;
CREATE INDEX line_state_labelled ON line_state (inbox_id, message_id) WHERE labels <> '{}';
CREATE INDEX line_state_in_thread ON line_state (inbox_id, thread_id, message_id)
    WHERE thread_id <> message_id;
CREATE INDEX line_state_by_own_key ON line_state (inbox_id, own_key) WHERE own_key IS NOT NULL;
CREATE INDEX line_state_by_subject ON line_state (inbox_id, subject_key)
    WHERE subject_key IS NOT NULL;

-- What mails of a thread name and no line has: messages that are not here (yet, or any more), and
-- the subjects of answers that name no message.
CREATE TABLE thread_key (
    inbox_id        uuid NOT NULL,
    key             bigint NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    thread_id       uuid NOT NULL,
    muted           boolean NOT NULL DEFAULT false,
    PRIMARY KEY (inbox_id, key, retention_days)
) PARTITION BY LIST (retention_days);
CREATE INDEX thread_key_by_thread ON thread_key (inbox_id, thread_id);

-- What people write in a mailbox: drafts, templates, signatures. A draft with `send_at` is on its way.
CREATE TABLE mailbox_text (
    inbox_id        uuid NOT NULL,
    text_id         uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('draft', 'template', 'signature')),
    revision        bigint NOT NULL,
    content         text NOT NULL,                 -- JSON of mailbox.draft.Content, or of a Text
    conflict_of     uuid,                          -- the draft that this is another version of
    send_at         timestamptz,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (inbox_id, text_id, retention_days)
) PARTITION BY LIST (retention_days);
