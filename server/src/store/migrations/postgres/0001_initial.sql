-- The schema as SQLite has it after its fourth migration: the same tables under the same names, from here on in step.
-- Times are Unix milliseconds, ids of the catalog are UUIDs in their hyphenated form, truth values are 0 and 1.
-- `revision` in a row of the catalog is the fleet's revision at which that row last changed.

-- The fleet: exactly one row, made with the database.
CREATE TABLE fleet (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    server_id   TEXT COLLATE "C" NOT NULL,
    epoch       BIGINT NOT NULL,
    revision    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    -- PKCS #8 document of the key that signs lists, and the authority's key in PEM: both sealed under the key that each server is
    -- given. The second is null until a server has made it, and stays null where operators bring certificates of their own.
    signing_key   BYTEA  NOT NULL,
    authority_key BYTEA
);

-- Proxmox VE instances; a removed one stays, with removed_at.
CREATE TABLE instances (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    revision   BIGINT NOT NULL
);

-- The nodes of each instance, in the order in which they were given. They change with their instance's row.
CREATE TABLE instance_nodes (
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id),
    place       BIGINT NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    address     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (instance_id, place)
);

-- Proxies, revoked and removed ones too. The references of the catalog are checked at the end of a
-- transaction, so that the rows of one change may come in any order.
CREATE TABLE proxies (
    id               TEXT COLLATE "C" PRIMARY KEY,
    hostname         TEXT COLLATE "C" NOT NULL,
    machine_id       TEXT COLLATE "C" NOT NULL,
    kind             TEXT COLLATE "C" NOT NULL,
    proxy_url        TEXT COLLATE "C" NOT NULL,
    version          TEXT COLLATE "C" NOT NULL,
    peer             TEXT COLLATE "C",
    instance_id      TEXT COLLATE "C"    REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    scope_kind       TEXT COLLATE "C" NOT NULL,
    -- active, revoked or removed; for the last two standing_at and standing_reason say when and why.
    standing         TEXT COLLATE "C" NOT NULL,
    standing_at      BIGINT,
    standing_reason  TEXT COLLATE "C" NOT NULL,
    rotate_requested BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    registered_at    BIGINT NOT NULL,
    revision         BIGINT NOT NULL,
    -- Hosts that registered without a join token wait for an admin's approval.
    is_approved      BIGINT NOT NULL
);

-- Ctrl tokens by their SHA-256. A dropped one stays as a row that is not loaded, so that whoever reads what is
-- newer than a revision hears of it.
CREATE TABLE ctrl_tokens (
    digest     BYTEA    PRIMARY KEY,
    proxy_id   TEXT COLLATE "C" NOT NULL REFERENCES proxies (id) DEFERRABLE INITIALLY DEFERRED,
    -- current, next (good until use_before unless used), tombstone or dropped.
    standing   TEXT COLLATE "C" NOT NULL,
    use_before BIGINT,
    revision   BIGINT NOT NULL
);

-- Join tokens by their short id, with their SHA-256.
CREATE TABLE join_tokens (
    id          TEXT COLLATE "C" PRIMARY KEY,
    digest      BYTEA    NOT NULL UNIQUE,
    instance_id TEXT COLLATE "C"    REFERENCES instances (id) DEFERRABLE INITIALLY DEFERRED,
    scope_kind  TEXT COLLATE "C" NOT NULL,
    uses        BIGINT NOT NULL,
    used        BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    revoked_at  BIGINT,
    revision    BIGINT NOT NULL
);

-- Every list that was compiled and signed. `nodes` is the text that was hashed: sorted lines name|address,
-- joined by newlines, empty for the empty list.
CREATE TABLE allowlists (
    scope               TEXT COLLATE "C" NOT NULL,
    epoch               BIGINT NOT NULL,
    revision            BIGINT NOT NULL,
    hash                TEXT COLLATE "C" NOT NULL,
    updated_at          BIGINT NOT NULL,
    refresh_interval_ms BIGINT,
    key_id              TEXT COLLATE "C" NOT NULL,
    signature           BYTEA    NOT NULL,
    nodes               TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, epoch, revision)
);

-- The audit log, hash-chained from row 1 and without gaps. `detail` is JSON, exactly as it was hashed.
CREATE TABLE audit (
    seq           BIGINT PRIMARY KEY,
    at_ms         BIGINT NOT NULL,
    actor         TEXT COLLATE "C" NOT NULL,
    action        TEXT COLLATE "C" NOT NULL,
    target        TEXT COLLATE "C" NOT NULL,
    detail        TEXT COLLATE "C" NOT NULL,
    revision      BIGINT NOT NULL,
    previous_hash TEXT COLLATE "C" NOT NULL,
    hash          TEXT COLLATE "C" NOT NULL
);

-- What each proxy did and said last; not part of the catalog, so without a revision. The three marks
-- (pushed, applied, refused) are there whole or not at all.
CREATE TABLE proxy_status (
    proxy_id         TEXT COLLATE "C" PRIMARY KEY,
    last_seen        BIGINT,
    last_pull        BIGINT,
    pushed_epoch     BIGINT,
    pushed_revision  BIGINT,
    pushed_hash      TEXT COLLATE "C",
    pushed_at        BIGINT,
    applied_epoch    BIGINT,
    applied_revision BIGINT,
    applied_hash     TEXT COLLATE "C",
    applied_at       BIGINT,
    on_disk          BIGINT NOT NULL,
    refused_epoch    BIGINT,
    refused_revision BIGINT,
    refused_hash     TEXT COLLATE "C",
    refused_at       BIGINT,
    last_error       TEXT COLLATE "C" NOT NULL,
    list_source      TEXT COLLATE "C" NOT NULL,
    version          TEXT COLLATE "C" NOT NULL,
    peer             TEXT COLLATE "C",
    insecure_skip_verify BIGINT NOT NULL,
    -- What was wrong with the list on its disk when it started. An empty problem: nothing, and kept_list_at is NULL.
    kept_list_problem TEXT COLLATE "C" NOT NULL DEFAULT '',
    kept_list_detail  TEXT COLLATE "C" NOT NULL DEFAULT '',
    kept_list_at      BIGINT
);

-- How far the reports of each start of a proxy are stored: what tells a double.
CREATE TABLE report_sessions (
    proxy_id         TEXT COLLATE "C" NOT NULL,
    session          TEXT COLLATE "C" NOT NULL,
    durable_sequence BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    PRIMARY KEY (proxy_id, session)
);

-- Dictionary of the nodes that were ever reported, by their exact line. It outlives the catalog's rows, so it
-- refers to none of them.
CREATE TABLE nodes (
    id          BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    instance_id TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    address     TEXT COLLATE "C" NOT NULL,
    UNIQUE (instance_id, name, address)
);

-- Dictionary of series: one sensor of a node as one proxy saw it. A sensor whose chip, label, kind or limits
-- change is a new series, so that old readings keep what they were read under. Limits are thousandths of a
-- degree Celsius. `identity` is a hash of all that makes the series, with which it is found.
CREATE TABLE series (
    id             BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    identity       BYTEA    NOT NULL UNIQUE,
    node_id        BIGINT NOT NULL REFERENCES nodes (id),
    sensor         TEXT COLLATE "C" NOT NULL,
    chip           TEXT COLLATE "C" NOT NULL,
    label          TEXT COLLATE "C" NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    max_milli      BIGINT,
    critical_milli BIGINT,
    -- That of the last reading of the series.
    generation     BIGINT NOT NULL
);
CREATE INDEX series_by_generation ON series (generation);

-- Readings: one row for each node of each report, never one for a value. `proxy_id` is the UUID's 16 bytes.
-- `payload` has for each value the series' id (LEB128) and thousandths of a degree Celsius (32 bits, signed,
-- little-endian). Rising ids are the order of arrival; `generation` counts the server's starts and days, and so
-- rises with them whatever the clock does.
CREATE TABLE readings (
    id                BIGINT PRIMARY KEY,
    node_id           BIGINT NOT NULL REFERENCES nodes (id),
    proxy_id          BYTEA    NOT NULL,
    collected_at      BIGINT NOT NULL,
    received_at       BIGINT NOT NULL,
    epoch             BIGINT NOT NULL,
    revision          BIGINT NOT NULL,
    generation        BIGINT NOT NULL,
    unreadable_reason TEXT COLLATE "C" NOT NULL,
    payload           BYTEA    NOT NULL
);
CREATE INDEX readings_by_node ON readings (node_id, collected_at);

-- The newest reading of each node, by the time of its collection; such a row is never deleted. A proxy that could
-- not read a node does not take the place of another that could. `proxy_id` is the UUID's 16 bytes.
CREATE TABLE newest (
    node_id      BIGINT PRIMARY KEY REFERENCES nodes (id),
    reading_id   BIGINT NOT NULL UNIQUE REFERENCES readings (id),
    proxy_id     BYTEA    NOT NULL,
    collected_at BIGINT NOT NULL,
    is_readable  BIGINT NOT NULL
);

-- Times in which hosts without a join token may register. `sources` is the networks that may, joined by commas;
-- empty: every address. Ids rise with time.
CREATE TABLE join_windows (
    id        TEXT COLLATE "C" PRIMARY KEY,
    opened_at BIGINT NOT NULL,
    closes_at BIGINT NOT NULL,
    closed_at BIGINT,
    sources   TEXT COLLATE "C" NOT NULL,
    revision  BIGINT NOT NULL
);

-- From here on `ctrl_tokens.standing` may be `debug` too: an observer's token, which ends at `use_before`.
-- Proxies that said that they hold a list which this database never made: it is older than the fleet. `epoch` and
-- `revision` are those of their list; `noticed_epoch` is the fleet's own epoch when it was noticed: a new one ends it.
CREATE TABLE proxies_ahead (
    proxy_id      TEXT COLLATE "C" PRIMARY KEY,
    epoch         BIGINT NOT NULL,
    revision      BIGINT NOT NULL,
    noticed_epoch BIGINT NOT NULL,
    noticed_at    BIGINT NOT NULL
);

-- The end of the audit log: exactly one row, changed with each row that is added. Rows taken away from the end show as
-- a gap, since the next row is chained to this one.
CREATE TABLE audit_head (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    seq  BIGINT NOT NULL,
    hash TEXT COLLATE "C" NOT NULL
);
INSERT INTO audit_head (id, seq, hash)
    VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Who made a list: the first row of the list's revision.
CREATE INDEX audit_by_revision ON audit (revision);

-- What changed after a revision: each server asks for that when another one changed something.
CREATE INDEX instances_by_revision ON instances (revision);
CREATE INDEX proxies_by_revision ON proxies (revision);
CREATE INDEX ctrl_tokens_by_revision ON ctrl_tokens (revision);
CREATE INDEX join_tokens_by_revision ON join_tokens (revision);
CREATE INDEX join_windows_by_revision ON join_windows (revision);
CREATE INDEX allowlists_by_revision ON allowlists (revision);

-- Ids of readings, which each server takes many at a time.
CREATE SEQUENCE reading_ids INCREMENT BY 4096 MINVALUE 4096 START WITH 4096;

-- Unix milliseconds of the database's own clock, as it is now and not when the transaction began.
CREATE FUNCTION unix_ms() RETURNS BIGINT LANGUAGE SQL VOLATILE
    RETURN CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT);

-- The servers on this database, each under an id that it has from its start to its end.
CREATE TABLE replicas (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    version    TEXT COLLATE "C" NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    revision   BIGINT NOT NULL,
    streams    BIGINT NOT NULL
);

-- Work that one server at a time does. `fence` rises with each new holder.
CREATE TABLE leases (
    name    TEXT COLLATE "C" PRIMARY KEY,
    holder  TEXT COLLATE "C" NOT NULL,
    fence   BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
);

-- Which server has the stream of a proxy, the one that it opened last; empty: none. A server that is gone counts for nothing.
-- `taken_from` had the one before, and has not heard yet that it is over. `written` is the transaction.
CREATE TABLE streams (
    proxy_id   TEXT COLLATE "C" PRIMARY KEY,
    replica_id TEXT COLLATE "C" NOT NULL,
    opened_at  BIGINT NOT NULL,
    taken_from TEXT COLLATE "C" NOT NULL DEFAULT '',
    written    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX streams_taken ON streams (taken_from) WHERE taken_from <> '';

-- What other servers wrote is found by the transaction that wrote it: all that a view could not see yet is at or behind the
-- oldest one that ran then. A server writes what it knows of a proxy; what is older than what another one wrote is left out.
ALTER TABLE proxy_status ADD COLUMN writer TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE proxy_status ADD COLUMN written BIGINT NOT NULL DEFAULT 0;
ALTER TABLE newest ADD COLUMN written BIGINT NOT NULL DEFAULT 0;
-- No index on `written`: these rows are written all the time, and looked through only when somebody looks at the fleet. With room
-- on its page a row is written without touching any index.
ALTER TABLE proxy_status SET (fillfactor = 70);
ALTER TABLE newest SET (fillfactor = 70);
ALTER TABLE streams SET (fillfactor = 70);

CREATE FUNCTION note_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.written := CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT);
    RETURN NEW;
END $$;
CREATE TRIGGER newest_written BEFORE INSERT OR UPDATE ON newest FOR EACH ROW EXECUTE FUNCTION note_written();
CREATE TRIGGER streams_written BEFORE INSERT OR UPDATE ON streams FOR EACH ROW EXECUTE FUNCTION note_written();

CREATE FUNCTION note_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.writer := coalesce(current_setting('pulse.replica', true), '');
    IF TG_OP = 'UPDATE' AND OLD.writer <> NEW.writer AND coalesce(NEW.last_seen, 0) < coalesce(OLD.last_seen, 0) THEN
        RETURN NULL;
    END IF;
    NEW.written := CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT);
    RETURN NEW;
END $$;
CREATE TRIGGER proxy_status_written BEFORE INSERT OR UPDATE ON proxy_status
    FOR EACH ROW EXECUTE FUNCTION note_status();
