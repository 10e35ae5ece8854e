-- Who may administer: admins, and the secrets that let them and programs in.

-- A name is in lower case; the password is an Argon2id hash in PHC form.
CREATE TABLE admins (
    name            TEXT    PRIMARY KEY,
    password_hash   TEXT,
    created_at      INTEGER NOT NULL,
    password_set_at INTEGER,
    removed_at      INTEGER,
    revision        INTEGER NOT NULL
);
CREATE INDEX admins_by_revision ON admins (revision);

-- kind: set_up (a one-time link of an admin), session (a log-in of an admin) or api (a token, with a name and scopes, which
-- are words with commas between them).
CREATE TABLE credentials (
    id         TEXT    PRIMARY KEY,
    digest     BLOB    NOT NULL UNIQUE,
    kind       TEXT    NOT NULL,
    admin      TEXT,
    name       TEXT,
    scopes     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at   INTEGER,
    revision   INTEGER NOT NULL
);
CREATE INDEX credentials_by_revision ON credentials (revision);

-- When an API token was used last, and from where; not part of the catalog, so without a revision.
CREATE TABLE credential_uses (
    credential_id TEXT    PRIMARY KEY,
    used_at       INTEGER NOT NULL,
    used_from     TEXT
);
