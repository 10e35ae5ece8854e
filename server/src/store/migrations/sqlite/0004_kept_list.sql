-- What each proxy said of the list on its disk when it started. An empty problem: nothing was wrong, and kept_list_at is
-- NULL.
ALTER TABLE proxy_status ADD COLUMN kept_list_problem TEXT NOT NULL DEFAULT '';
ALTER TABLE proxy_status ADD COLUMN kept_list_detail TEXT NOT NULL DEFAULT '';
ALTER TABLE proxy_status ADD COLUMN kept_list_at INTEGER;
