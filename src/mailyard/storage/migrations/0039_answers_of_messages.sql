-- Which kept answer of a model an analysis comes from: a purge of the message takes it along.
ALTER TABLE message_analysis ADD COLUMN result_key bytea;
CREATE INDEX message_analysis_by_result ON message_analysis (result_key) WHERE result_key IS NOT NULL;

-- Nobody knows whose the answers of before are. They are forgotten, and asked for again when wanted.
DELETE FROM analysis_result;
