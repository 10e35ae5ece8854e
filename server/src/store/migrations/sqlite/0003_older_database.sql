-- Proxies that said that they hold a list which this database never made: it is older than the fleet. `epoch` and
-- `revision` are those of their list; `noticed_epoch` is the fleet's own epoch when it was noticed: a new one ends it.
CREATE TABLE proxies_ahead (
    proxy_id      TEXT    PRIMARY KEY,
    epoch         INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    noticed_epoch INTEGER NOT NULL,
    noticed_at    INTEGER NOT NULL
);

-- The end of the audit log: exactly one row, changed with each row that is added. Rows taken away from the end show as
-- a gap, since the next row is chained to this one.
CREATE TABLE audit_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash TEXT    NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (
    1,
    coalesce((SELECT max(seq) FROM audit), 0),
    coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1),
        '0000000000000000000000000000000000000000000000000000000000000000')
);

-- Who made a list: the first row of the list's revision.
CREATE INDEX audit_by_revision ON audit (revision);
