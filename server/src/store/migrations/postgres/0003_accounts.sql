-- Who may administer: admins, and the secrets that let them and programs in.

-- A name is in lower case; the password is an Argon2id hash in PHC form.
CREATE TABLE admins (
    name            TEXT COLLATE "C" PRIMARY KEY,
    password_hash   TEXT COLLATE "C",
    created_at      BIGINT NOT NULL,
    password_set_at BIGINT,
    removed_at      BIGINT,
    revision        BIGINT NOT NULL
);
CREATE INDEX admins_by_revision ON admins (revision);

-- kind: set_up (a one-time link of an admin), session (a log-in of an admin) or api (a token, with a name and scopes, which
-- are words with commas between them).
CREATE TABLE credentials (
    id         TEXT COLLATE "C" PRIMARY KEY,
    digest     BYTEA  NOT NULL UNIQUE,
    kind       TEXT COLLATE "C" NOT NULL,
    admin      TEXT COLLATE "C",
    name       TEXT COLLATE "C",
    scopes     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at   BIGINT,
    revision   BIGINT NOT NULL
);
CREATE INDEX credentials_by_revision ON credentials (revision);

-- When an API token was used last, and from where; not part of the catalog, so without a revision.
CREATE TABLE credential_uses (
    credential_id TEXT COLLATE "C" PRIMARY KEY,
    used_at       BIGINT NOT NULL,
    used_from     TEXT COLLATE "C"
);
