-- Hosts that registered without a join token wait for an admin's approval; all before them had one.
ALTER TABLE proxies ADD COLUMN is_approved INTEGER NOT NULL DEFAULT 1;

-- Times in which hosts without a join token may register. `sources` is the networks that may, joined by commas;
-- empty: every address. Ids rise with time.
CREATE TABLE join_windows (
    id        TEXT    PRIMARY KEY,
    opened_at INTEGER NOT NULL,
    closes_at INTEGER NOT NULL,
    closed_at INTEGER,
    sources   TEXT    NOT NULL,
    revision  INTEGER NOT NULL
);

-- From here on `ctrl_tokens.standing` may be `debug` too: an observer's token, which ends at `use_before`.
