-- The storage shards that have this database open. Each writes here every few seconds, by the database's clock, and removes its row
-- when it closes; those that have not been seen for a while are taken for dead.
CREATE TABLE servers (
    id integer PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    schema_version integer NOT NULL,
    started_ms integer NOT NULL,
    seen_ms integer NOT NULL
);
