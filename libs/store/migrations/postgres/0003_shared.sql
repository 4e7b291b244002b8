-- Several processes write; the row's lock orders them. `system_id` and `timeline` are the server's that history was last seen whole
-- on: another server, or another timeline of this one, may have lost commits. Empty and 0: not known.
ALTER TABLE log_head DROP COLUMN owner;
ALTER TABLE log_head ADD COLUMN system_id text NOT NULL DEFAULT '';
ALTER TABLE log_head ADD COLUMN timeline bigint NOT NULL DEFAULT 0;
