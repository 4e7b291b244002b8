-- Several processes write; the file's lock orders them.
ALTER TABLE log_head DROP COLUMN owner;
