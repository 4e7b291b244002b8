-- What every storage shard of a database must agree on. One row.
CREATE TABLE cluster (
    one int PRIMARY KEY CHECK (one = 1),
    id bytea NOT NULL,
    log int NOT NULL,
    time_bits int NOT NULL,
    shard_bits int NOT NULL,
    sequence_bits int NOT NULL,
    shards int NOT NULL
);

-- The end of the log, and the process that may write to it. One row; locking it orders all commits.
CREATE TABLE log_head (
    one int PRIMARY KEY CHECK (one = 1),
    epoch bigint NOT NULL,
    lsn bigint NOT NULL,
    owner text NOT NULL
);

-- Logical shards: state 1 is served here; `since` is where they began in this log; no id of a millisecond below ids_until is
-- to be made again.
CREATE TABLE shards (
    shard int PRIMARY KEY,
    state smallint NOT NULL,
    since_epoch bigint NOT NULL,
    since_lsn bigint NOT NULL,
    ids_until bigint NOT NULL
);

-- `data`, here and below: a version byte, then encoded fields.
CREATE TABLE objects (
    id bigint PRIMARY KEY,
    otype int NOT NULL,
    version bigint NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    data bytea NOT NULL
);

CREATE TABLE assocs (
    id1 bigint NOT NULL,
    atype int NOT NULL,
    id2 bigint NOT NULL,
    time bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (id1, atype, id2)
);

-- Without the data: an index row is limited to a third of a page.
CREATE INDEX assocs_by_time ON assocs (id1, atype, time DESC, id2 DESC);

-- A row is never deleted: it keeps the position of its list's last change.
CREATE TABLE assoc_counts (
    id1 bigint NOT NULL,
    atype int NOT NULL,
    count bigint NOT NULL,
    epoch bigint NOT NULL,
    lsn bigint NOT NULL,
    PRIMARY KEY (id1, atype)
);

-- One row a commit, with all its changes.
CREATE TABLE change_log (
    epoch bigint NOT NULL,
    first_lsn bigint NOT NULL,
    last_lsn bigint NOT NULL,
    committed_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (epoch, first_lsn)
);

CREATE INDEX change_log_by_time ON change_log (committed_ms);

-- Inverse edges that are still to be written in another database.
CREATE TABLE intents (
    epoch bigint NOT NULL,
    lsn bigint NOT NULL,
    created_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (epoch, lsn)
);

-- Answers to writes that came with an idempotency key.
CREATE TABLE outcomes (
    key text PRIMARY KEY,
    fingerprint bigint NOT NULL,
    answer bytea NOT NULL,
    expires_ms bigint NOT NULL
);

CREATE INDEX outcomes_by_expiry ON outcomes (expires_ms);
