-- name: lock_first_start
-- Lets one of several instances that start together be the first; held to the end of the transaction.
SELECT pg_advisory_xact_lock(7033851120141);

-- name: any_workspace
-- Whether this installation has been set up. Every workspace counts, so none is named.
SELECT EXISTS (SELECT 1 FROM workspace);

-- name: first_workspace
-- The installation's own workspace, the one of its first start: its owners run the installation.
SELECT id AS workspace_id FROM workspace ORDER BY id LIMIT 1;

-- name: add_workspace
-- Makes a workspace, at home in the region $3 (null: there are no regions).
INSERT INTO workspace (id, name, region) VALUES ($1, $2, $3) RETURNING created_at;

-- name: get_workspace
-- One workspace.
SELECT id AS workspace_id, name, locale, region, created_at FROM workspace WHERE id = $1;

-- name: set_workspace_locale
-- Says how a workspace writes dates, numbers and money; returns how it did.
UPDATE workspace new SET locale = $2 FROM workspace old
 WHERE new.id = $1 AND old.id = new.id
RETURNING old.locale AS locale_before;

-- name: rename_workspace
-- Gives a workspace another name; returns the name it had.
UPDATE workspace new SET name = $2 FROM workspace old
 WHERE new.id = $1 AND old.id = new.id
RETURNING old.name AS name_before, new.created_at;

-- name: workspaces_of_user
-- The workspaces that a person belongs to, with the role in each, oldest first.
SELECT w.id AS workspace_id, w.name, w.locale, w.region, w.created_at, m.role
  FROM membership m JOIN workspace w ON w.id = m.workspace_id
 WHERE m.user_id = $1
 ORDER BY w.id;

-- name: add_user
-- Makes a person, or finds the one who has this address already.
INSERT INTO user_account (id, email) VALUES ($1, $2)
ON CONFLICT (email) DO UPDATE SET email = excluded.email
RETURNING id, password_hash IS NOT NULL AS has_password, created_at;

-- name: user_for_sign_in
-- The person who signs in by this address. People stand above workspaces.
SELECT id, password_hash FROM user_account WHERE email = $1;

-- name: set_password
-- Stores a new password hash. People stand above workspaces.
UPDATE user_account SET password_hash = $2 WHERE id = $1;

-- name: add_member
-- Makes a person a member of a workspace; no row when they are one already.
INSERT INTO membership (workspace_id, user_id, role) VALUES ($1, $2, $3)
ON CONFLICT (workspace_id, user_id) DO NOTHING
RETURNING created_at;

-- name: belongs_elsewhere
-- Whether a person is a member of any workspace but this one.
SELECT EXISTS (SELECT 1 FROM membership WHERE user_id = $1 AND workspace_id <> $2);

-- name: forget_ways_in
-- Removes every way in that a person had: sessions, links, the password. The sessions that were.
WITH ended AS (DELETE FROM session WHERE user_id = $1 RETURNING token_hash),
     spent AS (DELETE FROM login_link WHERE user_id = $1),
     forgotten AS (UPDATE user_account SET password_hash = NULL WHERE id = $1)
SELECT token_hash FROM ended;

-- name: lock_members
-- Locks a workspace's memberships, so that two changes cannot both remove the last owner.
SELECT user_id, role FROM membership WHERE workspace_id = $1 ORDER BY user_id FOR UPDATE;

-- name: get_member
-- One member of a workspace.
SELECT u.id AS user_id, u.email, u.password_hash IS NOT NULL AS has_password, m.role, m.created_at
  FROM membership m JOIN user_account u ON u.id = m.user_id
 WHERE m.workspace_id = $1 AND m.user_id = $2;

-- name: list_members
-- Members of a workspace after the person $2, in the order of their ids.
SELECT u.id AS user_id, u.email, u.password_hash IS NOT NULL AS has_password, m.role, m.created_at
  FROM membership m JOIN user_account u ON u.id = m.user_id
 WHERE m.workspace_id = $1 AND m.user_id > $2
 ORDER BY m.user_id
 LIMIT $3;

-- name: change_role
-- Gives a member another role.
UPDATE membership SET role = $3 WHERE workspace_id = $1 AND user_id = $2;

-- name: remove_member
-- Ends a membership.
DELETE FROM membership WHERE workspace_id = $1 AND user_id = $2;

-- name: end_sessions_of_member
-- Ends a person's sessions in one workspace.
DELETE FROM session WHERE workspace_id = $1 AND user_id = $2;

-- name: end_other_sessions
-- Ends a person's sessions everywhere except the one with the token hash $2 (a changed password).
DELETE FROM session WHERE user_id = $1 AND token_hash <> $2 RETURNING token_hash;

-- name: add_session
-- Starts a session that lasts $6 seconds.
INSERT INTO session (token_hash, user_id, workspace_id, csrf_token, user_agent, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
RETURNING created_at, expires_at, (SELECT email FROM user_account WHERE id = $2) AS email;

-- name: find_session
-- A live session.
SELECT user_id, workspace_id, csrf_token, user_agent, created_at, expires_at
  FROM session WHERE token_hash = $1 AND expires_at > now();

-- name: list_sessions
-- A person's live sessions, newest first.
SELECT token_hash, workspace_id, user_agent, created_at, expires_at
  FROM session WHERE user_id = $1 AND expires_at > now()
 ORDER BY created_at DESC;

-- name: sessions_in_workspace
-- Live sessions that are in workspace $1, in the order of their ids after $2, up to $3; of the person
-- $4 unless that is null.
SELECT encode(s.token_hash, 'hex') AS id, s.user_id, u.email, s.user_agent, s.created_at, s.expires_at
  FROM session s
  JOIN user_account u ON u.id = s.user_id
 WHERE s.workspace_id = $1 AND s.token_hash > decode($2, 'hex') AND s.expires_at > now()
   AND ($4::uuid IS NULL OR s.user_id = $4)
 ORDER BY s.token_hash
 LIMIT $3;

-- name: end_session_in_workspace
-- Ends the session $2 (the hex of its token hash) that is in workspace $1.
DELETE FROM session s USING user_account u
 WHERE s.workspace_id = $1 AND s.token_hash = decode($2, 'hex') AND u.id = s.user_id
RETURNING s.user_id, u.email, s.workspace_id, s.user_agent, s.created_at;

-- name: end_session
-- Ends the session with this token hash.
DELETE FROM session s USING user_account u
 WHERE s.token_hash = $1 AND u.id = s.user_id
RETURNING s.user_id, u.email, s.workspace_id, s.user_agent, s.created_at;

-- name: end_session_of_user
-- Ends a person's own session, named by the hex of its token hash.
DELETE FROM session s USING user_account u
 WHERE s.user_id = $1 AND encode(s.token_hash, 'hex') = $2 AND u.id = s.user_id
RETURNING s.user_id, u.email, s.workspace_id, s.user_agent, s.created_at;

-- name: move_session
-- Moves a session to another workspace of the same person; whose it is, and where it was.
WITH held AS (
    SELECT s.token_hash, s.workspace_id, u.email
      FROM session s
      JOIN membership m ON m.user_id = s.user_id AND m.workspace_id = $2
      JOIN user_account u ON u.id = s.user_id
     WHERE s.token_hash = $1
       FOR UPDATE OF s
)
UPDATE session s SET workspace_id = $2
  FROM held
 WHERE s.token_hash = held.token_hash
RETURNING s.user_id, held.email, held.workspace_id AS workspace_before;

-- name: sweep_sessions
-- Removes ended sessions and links of every workspace.
WITH ended AS (DELETE FROM session WHERE expires_at <= now() RETURNING 1),
     spent AS (DELETE FROM login_link WHERE expires_at <= now() - interval '1 day' RETURNING 1)
SELECT (SELECT count(*) FROM ended) + (SELECT count(*) FROM spent);

-- name: add_login_link
-- Stores a one-time link that works for $3 seconds.
INSERT INTO login_link (token_hash, user_id, expires_at)
VALUES ($1, $2, now() + make_interval(secs => $3));

-- name: use_login_link
-- Spends a link: one row the first time and in time, none otherwise.
UPDATE login_link SET used_at = now()
 WHERE token_hash = $1 AND used_at IS NULL AND expires_at > now()
RETURNING user_id;

-- name: add_key
-- Stores an API key's hash.
INSERT INTO api_key (id, workspace_id, name, prefix, secret_hash, scopes)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING created_at;

-- name: find_key
-- The key behind a prefix: this is how a request finds its workspace.
SELECT id, workspace_id, name, secret_hash, scopes FROM api_key
 WHERE prefix = $1 AND revoked_at IS NULL;

-- name: get_key
-- One key of a workspace.
SELECT id, name, prefix, scopes, created_at, revoked_at FROM api_key
 WHERE workspace_id = $1 AND id = $2;

-- name: list_keys
-- Keys of a workspace older than the key $2, newest first.
SELECT id, name, prefix, scopes, created_at, revoked_at FROM api_key
 WHERE workspace_id = $1 AND id < $2
 ORDER BY id DESC
 LIMIT $3;

-- name: revoke_key
-- Ends a key; no row when it was revoked before or is not of this workspace.
UPDATE api_key SET revoked_at = now()
 WHERE workspace_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING name, prefix, scopes, created_at, revoked_at;
