-- The storage shards that have this database open. Each writes here every few seconds, by the database's clock, and removes its row
-- when it closes; those that have not been seen for a while are taken for dead.
CREATE TABLE servers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    schema_version bigint NOT NULL,
    started_ms bigint NOT NULL,
    seen_ms bigint NOT NULL
);
