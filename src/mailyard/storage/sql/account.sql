-- People who come by themselves: links that were mailed, invitations.

-- name: add_link
-- Stores a mailed link that works for $4 seconds.
INSERT INTO account_link (token_hash, purpose, email, expires_at)
VALUES ($1, $2, $3, now() + make_interval(secs => $4))
ON CONFLICT DO NOTHING;

-- name: find_link
-- Whom a link that still works was mailed to. It is not spent by being looked at.
SELECT email FROM account_link
WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now();

-- name: use_link
-- Spends a link: one row the first time and in time, none otherwise.
UPDATE account_link SET used_at = now()
WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now()
RETURNING email;

-- name: end_links
-- Ends all links that were mailed to an address, and its one-time sign-in links.
WITH mailed AS (DELETE FROM account_link WHERE email = $1)
DELETE FROM login_link USING user_account u WHERE u.email = $1 AND login_link.user_id = u.id;

-- name: sweep_links
-- Removes links and invitations that ran out a day ago, of every workspace.
WITH links AS (DELETE FROM account_link WHERE expires_at <= now() - interval '1 day' RETURNING 1),
     asked AS (DELETE FROM invitation WHERE expires_at <= now() - interval '30 days' RETURNING 1)
SELECT (SELECT count(*) FROM links) + (SELECT count(*) FROM asked);

-- name: find_person
-- Who has this address, and whether it opens anything. People stand above workspaces.
SELECT u.id, u.password_hash IS NOT NULL AS has_password, u.verified_at IS NOT NULL AS verified,
       EXISTS (SELECT FROM membership m WHERE m.user_id = u.id) AS belongs
FROM user_account u WHERE u.email = $1;

-- name: verify_person
-- Whoever holds the account reads the mail of its address.
UPDATE user_account SET verified_at = coalesce(verified_at, now()) WHERE id = $1;

-- name: doubt_person
-- Somebody else was given a way in.
UPDATE user_account SET verified_at = NULL WHERE id = $1;

-- name: mark_sign_up
-- A workspace that was made by signing up, and its plan.
UPDATE workspace SET plan = $2, signed_up_at = now() WHERE id = $1;

-- name: invite
-- Asks a person into a workspace, or asks again: the mails of before lead nowhere then.
INSERT INTO invitation (id, workspace_id, email, role, invited_by, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
ON CONFLICT (workspace_id, email) DO UPDATE
SET role = excluded.role, invited_by = excluded.invited_by, token_hash = NULL,
    expires_at = excluded.expires_at
RETURNING id, expires_at;

-- name: is_member
-- Whether the person of this address is a member of a workspace.
SELECT EXISTS (
    SELECT FROM membership m JOIN user_account u ON u.id = m.user_id
    WHERE m.workspace_id = $1 AND u.email = $2
);

-- name: list_invitations
-- Those of a workspace after the one $2, in the order of their ids, also those that ran out.
SELECT id, email, role, invited_by, expires_at FROM invitation
WHERE workspace_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: withdraw_invitation
-- Takes an invitation back; no row when there is none.
DELETE FROM invitation WHERE workspace_id = $1 AND id = $2 RETURNING email, role;

-- name: write_invitation
-- The invitation that a mail is written for now, by its workspace and id; its link gets the token.
UPDATE invitation i SET token_hash = $3 FROM workspace w
WHERE i.workspace_id = $1 AND i.id = $2 AND w.id = i.workspace_id AND i.expires_at > now()
RETURNING i.email, i.role, i.invited_by, w.name AS workspace;

-- name: find_invitation
-- The invitation behind a mailed token: the token says which workspace_id it is.
SELECT i.id, i.workspace_id, i.email, i.role, i.invited_by, w.name AS workspace
FROM invitation i JOIN workspace w ON w.id = i.workspace_id
WHERE i.token_hash = $1 AND i.expires_at > now();

-- name: take_invitation
-- Spends the invitation behind a mailed token; the token says which workspace_id it is.
DELETE FROM invitation WHERE token_hash = $1 AND expires_at > now()
RETURNING id, workspace_id, email, role, invited_by;
