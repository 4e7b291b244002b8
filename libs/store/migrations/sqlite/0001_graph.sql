-- What every storage shard of a database must agree on. One row.
CREATE TABLE cluster (
    one integer PRIMARY KEY CHECK (one = 1),
    id blob NOT NULL,
    log integer NOT NULL,
    time_bits integer NOT NULL,
    shard_bits integer NOT NULL,
    sequence_bits integer NOT NULL,
    shards integer NOT NULL
);

-- The end of the log, and the process that may write to it. One row; locking it orders all commits.
CREATE TABLE log_head (
    one integer PRIMARY KEY CHECK (one = 1),
    epoch integer NOT NULL,
    lsn integer NOT NULL,
    owner text NOT NULL
);

-- Logical shards: state 1 is served here; `since` is where they began in this log; no id of a millisecond below ids_until is
-- to be made again.
CREATE TABLE shards (
    shard integer PRIMARY KEY,
    state integer NOT NULL,
    since_epoch integer NOT NULL,
    since_lsn integer NOT NULL,
    ids_until integer NOT NULL
);

-- `data`, here and below: a version byte, then encoded fields.
CREATE TABLE objects (
    id integer PRIMARY KEY,
    otype integer NOT NULL,
    version integer NOT NULL,
    created_ms integer NOT NULL,
    updated_ms integer NOT NULL,
    data blob NOT NULL
);

CREATE TABLE assocs (
    id1 integer NOT NULL,
    atype integer NOT NULL,
    id2 integer NOT NULL,
    time integer NOT NULL,
    data blob NOT NULL,
    PRIMARY KEY (id1, atype, id2)
) WITHOUT ROWID;

-- Without the data, which would double the table.
CREATE INDEX assocs_by_time ON assocs (id1, atype, time DESC, id2 DESC);

-- A row is never deleted: it keeps the position of its list's last change.
CREATE TABLE assoc_counts (
    id1 integer NOT NULL,
    atype integer NOT NULL,
    count integer NOT NULL,
    epoch integer NOT NULL,
    lsn integer NOT NULL,
    PRIMARY KEY (id1, atype)
) WITHOUT ROWID;

-- One row a commit, with all its changes.
CREATE TABLE change_log (
    epoch integer NOT NULL,
    first_lsn integer NOT NULL,
    last_lsn integer NOT NULL,
    committed_ms integer NOT NULL,
    payload blob NOT NULL,
    PRIMARY KEY (epoch, first_lsn)
) WITHOUT ROWID;

CREATE INDEX change_log_by_time ON change_log (committed_ms);

-- Inverse edges that are still to be written in another database.
CREATE TABLE intents (
    epoch integer NOT NULL,
    lsn integer NOT NULL,
    created_ms integer NOT NULL,
    payload blob NOT NULL,
    PRIMARY KEY (epoch, lsn)
);

-- Answers to writes that came with an idempotency key.
CREATE TABLE outcomes (
    key text PRIMARY KEY,
    fingerprint integer NOT NULL,
    answer blob NOT NULL,
    expires_ms integer NOT NULL
);

CREATE INDEX outcomes_by_expiry ON outcomes (expires_ms);
