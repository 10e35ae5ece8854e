-- The first schema. The same tables, under the same names, are to stand on PostgreSQL: so plain SQL only.
-- Times are Unix milliseconds, ids of the catalog are UUIDs in their hyphenated form, truth values are 0 and 1.
-- `revision` in a row of the catalog is the fleet's revision at which that row last changed.

-- The fleet: exactly one row, made with the database.
CREATE TABLE fleet (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    server_id   TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    -- PKCS #8 document of the key that signs lists. Until secrets are sealed at rest, the mode of the
    -- database file (0600) is all that guards it: this is the place to seal.
    signing_key BLOB    NOT NULL
);

-- Proxmox VE instances; a removed one stays, with removed_at.
CREATE TABLE instances (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    revision   INTEGER NOT NULL
);

-- The nodes of each instance, in the order in which they were given. They change with their instance's row.
CREATE TABLE instance_nodes (
    instance_id TEXT    NOT NULL REFERENCES instances (id),
    place       INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    PRIMARY KEY (instance_id, place)
);

-- Proxies, revoked and removed ones too. The references of the catalog are checked at the end of a
-- transaction, so that the rows of one change may come in any order.
CREATE TABLE proxies (
    id               TEXT    PRIMARY KEY,
    hostname         TEXT    NOT NULL,
    machine_id       TEXT    NOT NULL,
    kind             TEXT    NOT NULL,
    proxy_url        TEXT    NOT NULL,
    version          TEXT    NOT NULL,
    peer             TEXT,
    instance_id      TEXT    REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    scope_kind       TEXT    NOT NULL,
    -- active, revoked or removed; for the last two standing_at and standing_reason say when and why.
    standing         TEXT    NOT NULL,
    standing_at      INTEGER,
    standing_reason  TEXT    NOT NULL,
    rotate_requested INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    registered_at    INTEGER NOT NULL,
    revision         INTEGER NOT NULL
);

-- Ctrl tokens by their SHA-256. A dropped one stays as a row that is not loaded, so that whoever reads what is
-- newer than a revision hears of it.
CREATE TABLE ctrl_tokens (
    digest     BLOB    PRIMARY KEY,
    proxy_id   TEXT    NOT NULL REFERENCES proxies (id) DEFERRABLE INITIALLY DEFERRED,
    -- current, next (good until use_before unless used), tombstone or dropped.
    standing   TEXT    NOT NULL,
    use_before INTEGER,
    revision   INTEGER NOT NULL
);

-- Join tokens by their short id, with their SHA-256.
CREATE TABLE join_tokens (
    id          TEXT    PRIMARY KEY,
    digest      BLOB    NOT NULL UNIQUE,
    instance_id TEXT    REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    scope_kind  TEXT    NOT NULL,
    uses        INTEGER NOT NULL,
    used        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    revoked_at  INTEGER,
    revision    INTEGER NOT NULL
);

-- Every list that was compiled and signed. `nodes` is the text that was hashed: sorted lines name|address,
-- joined by newlines, empty for the empty list.
CREATE TABLE allowlists (
    scope               TEXT    NOT NULL,
    epoch               INTEGER NOT NULL,
    revision            INTEGER NOT NULL,
    hash                TEXT    NOT NULL,
    updated_at          INTEGER NOT NULL,
    refresh_interval_ms INTEGER,
    key_id              TEXT    NOT NULL,
    signature           BLOB    NOT NULL,
    nodes               TEXT    NOT NULL,
    PRIMARY KEY (scope, epoch, revision)
);

-- The audit log, hash-chained from row 1 and without gaps. `detail` is JSON, exactly as it was hashed.
CREATE TABLE audit (
    seq           INTEGER PRIMARY KEY,
    at_ms         INTEGER NOT NULL,
    actor         TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    revision      INTEGER NOT NULL,
    previous_hash TEXT    NOT NULL,
    hash          TEXT    NOT NULL
);

-- What each proxy did and said last; not part of the catalog, so without a revision. The three marks
-- (pushed, applied, refused) are there whole or not at all.
CREATE TABLE proxy_status (
    proxy_id         TEXT    PRIMARY KEY,
    last_seen        INTEGER,
    last_pull        INTEGER,
    pushed_epoch     INTEGER,
    pushed_revision  INTEGER,
    pushed_hash      TEXT,
    pushed_at        INTEGER,
    applied_epoch    INTEGER,
    applied_revision INTEGER,
    applied_hash     TEXT,
    applied_at       INTEGER,
    on_disk          INTEGER NOT NULL,
    refused_epoch    INTEGER,
    refused_revision INTEGER,
    refused_hash     TEXT,
    refused_at       INTEGER,
    last_error       TEXT    NOT NULL,
    list_source      TEXT    NOT NULL,
    version          TEXT    NOT NULL,
    peer             TEXT,
    insecure_skip_verify INTEGER NOT NULL
);

-- How far the reports of each start of a proxy are stored: what tells a double.
CREATE TABLE report_sessions (
    proxy_id         TEXT    NOT NULL,
    session          TEXT    NOT NULL,
    durable_sequence INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    PRIMARY KEY (proxy_id, session)
);

-- Dictionary of the nodes that were ever reported, by their exact line. It outlives the catalog's rows, so it
-- refers to none of them.
CREATE TABLE nodes (
    id          INTEGER PRIMARY KEY,
    instance_id TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    UNIQUE (instance_id, name, address)
);

-- Dictionary of series: one sensor of a node as one proxy saw it. A sensor whose chip, label, kind or limits
-- change is a new series, so that old readings keep what they were read under. Limits are thousandths of a
-- degree Celsius. `identity` is a hash of all that makes the series, with which it is found.
CREATE TABLE series (
    id             INTEGER PRIMARY KEY,
    identity       BLOB    NOT NULL UNIQUE,
    node_id        INTEGER NOT NULL REFERENCES nodes (id),
    sensor         TEXT    NOT NULL,
    chip           TEXT    NOT NULL,
    label          TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    max_milli      INTEGER,
    critical_milli INTEGER,
    -- That of the last reading of the series.
    generation     INTEGER NOT NULL
);
CREATE INDEX series_by_generation ON series (generation);

-- Readings: one row for each node of each report, never one for a value. `proxy_id` is the UUID's 16 bytes.
-- `payload` has for each value the series' id (LEB128) and thousandths of a degree Celsius (32 bits, signed,
-- little-endian). Rising ids are the order of arrival; `generation` counts the server's starts and days, and so
-- rises with them whatever the clock does.
CREATE TABLE readings (
    id                INTEGER PRIMARY KEY,
    node_id           INTEGER NOT NULL REFERENCES nodes (id),
    proxy_id          BLOB    NOT NULL,
    collected_at      INTEGER NOT NULL,
    received_at       INTEGER NOT NULL,
    epoch             INTEGER NOT NULL,
    revision          INTEGER NOT NULL,
    generation        INTEGER NOT NULL,
    unreadable_reason TEXT    NOT NULL,
    payload           BLOB    NOT NULL
);
CREATE INDEX readings_by_node ON readings (node_id, collected_at);

-- The newest reading of each node, by the time of its collection; such a row is never deleted. A proxy that could
-- not read a node does not take the place of another that could. `proxy_id` is the UUID's 16 bytes.
CREATE TABLE newest (
    node_id      INTEGER PRIMARY KEY REFERENCES nodes (id),
    reading_id   INTEGER NOT NULL UNIQUE REFERENCES readings (id),
    proxy_id     BLOB    NOT NULL,
    collected_at INTEGER NOT NULL,
    is_readable  INTEGER NOT NULL
);
