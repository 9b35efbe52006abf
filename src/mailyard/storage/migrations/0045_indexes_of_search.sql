-- concurrently
-- One index for all that a search asks: words, parts of words, when a mail came and how large it is.
-- The parts of one query meet in the index, each skipping to where the others are: to look at the
-- newest lines, or at those of one month, costs what lies there and not what a word has in all.
CREATE INDEX CONCURRENTLY IF NOT EXISTS search_line_by_all ON search_line
    USING gin (words, parts, search_facts(message_id, size_bytes));
DROP INDEX IF EXISTS search_line_by_words;
DROP INDEX IF EXISTS search_line_by_parts;

-- What a mailbox marks is rarer than words are: a search for it begins there, of a workspace too.
CREATE INDEX CONCURRENTLY IF NOT EXISTS line_state_starred_of_workspace
    ON line_state (workspace_id, message_id) WHERE starred;
CREATE INDEX CONCURRENTLY IF NOT EXISTS line_state_labelled_of_workspace
    ON line_state (workspace_id, message_id) WHERE labels <> '{}';
-- A label that few mails have, or none, is found without a look at all that carry one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS line_state_by_label
    ON line_state USING gin (labels) WHERE labels <> '{}';
