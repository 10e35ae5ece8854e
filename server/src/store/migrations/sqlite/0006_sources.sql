-- Where nodes come from. Proxmox VE as the source of an instance's nodes, and what admins want of them.

-- active, paused (nothing of it changes) or excluded (on no list).
ALTER TABLE instances ADD COLUMN standing TEXT NOT NULL DEFAULT 'active';

-- manual, import or cluster; and when that source said so last, as far as the catalog knows.
ALTER TABLE instance_nodes ADD COLUMN origin TEXT NOT NULL DEFAULT 'manual';
ALTER TABLE instance_nodes ADD COLUMN confirmed_at INTEGER NOT NULL DEFAULT 0;
UPDATE instance_nodes SET confirmed_at = (SELECT created_at FROM instances WHERE id = instance_id);

-- Hosts of Proxmox VE that are asked for an instance's nodes, and with what. `urls` and `fingerprints` are lines; the secret is
-- sealed for this very row. They change with their instance's row, as do the two tables below.
CREATE TABLE instance_sources (
    instance_id      TEXT    PRIMARY KEY REFERENCES instances (id),
    urls             TEXT    NOT NULL,
    token_id         TEXT    NOT NULL,
    sealed_secret    BLOB    NOT NULL,
    fingerprints     TEXT    NOT NULL,
    poll_interval_ms INTEGER NOT NULL
);

-- What an admin set for a node, by its name in lower case, also for one that is not there at the moment.
CREATE TABLE node_wishes (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    name        TEXT NOT NULL,
    address     TEXT,
    standing    TEXT NOT NULL,
    PRIMARY KEY (instance_id, name)
);

-- Changes that would take away too much, and wait for an admin: the nodes that those of one origin would become (lines
-- name|address), and the names of those that would go.
CREATE TABLE held_changes (
    instance_id  TEXT    NOT NULL REFERENCES instances (id),
    origin       TEXT    NOT NULL,
    nodes        TEXT    NOT NULL,
    gone         TEXT    NOT NULL,
    held_by      TEXT    NOT NULL,
    held_at      INTEGER NOT NULL,
    is_discarded INTEGER NOT NULL,
    PRIMARY KEY (instance_id, origin)
);

-- What became of asking; not part of the catalog, so without a revision. An empty problem: there is none.
CREATE TABLE instance_polls (
    instance_id   TEXT    PRIMARY KEY,
    asked_at      INTEGER NOT NULL,
    heard_at      INTEGER,
    url           TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    cluster       TEXT    NOT NULL,
    problem       TEXT    NOT NULL,
    problem_since INTEGER
);
