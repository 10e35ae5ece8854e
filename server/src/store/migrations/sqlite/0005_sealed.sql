-- Secrets are sealed from here on, under the key that the server is given: the signing key is sealed already when this begins. Its
-- table is made anew, so that the page on which it stood in the open is overwritten as a whole.

-- The fleet: exactly one row, made with the database.
CREATE TABLE fleet_sealed (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    server_id   TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    -- PKCS #8 document of the key that signs lists, sealed.
    signing_key BLOB    NOT NULL
);
INSERT INTO fleet_sealed (id, server_id, epoch, revision, created_at, signing_key)
    SELECT id, server_id, epoch, revision, created_at, signing_key FROM fleet;
DROP TABLE fleet;
ALTER TABLE fleet_sealed RENAME TO fleet;
