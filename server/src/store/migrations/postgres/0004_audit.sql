-- Where the audit log begins once retention took rows away: the last of these, and the row that made its revision. `seal` is an
-- HMAC over both ends and the fleet, under a key made of the sealing key: without that nobody can set them.
ALTER TABLE audit_head ADD COLUMN base_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN base_hash TEXT COLLATE "C" NOT NULL
    DEFAULT '0000000000000000000000000000000000000000000000000000000000000000';
ALTER TABLE audit_head ADD COLUMN base_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN base_revision_hash TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE audit_head ADD COLUMN seal BYTEA;
