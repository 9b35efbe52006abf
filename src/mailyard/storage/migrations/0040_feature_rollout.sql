-- How far each feature that comes gradually has come; no row: as the program says.
CREATE TABLE feature_rollout (
    name       text PRIMARY KEY,
    percent    smallint NOT NULL CHECK (percent BETWEEN 0 AND 100),
    changed_at timestamptz NOT NULL DEFAULT now()
);
