-- What writes have left to do in other logs. Numbered by themselves: a commit that changes nothing here may leave something to do
-- elsewhere. Nothing has used the table so far.
DROP TABLE intents;

-- `shard` is the logical shard in which it is to be done; the payload: a version byte, then an encoded Intent.
CREATE TABLE intents (
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    shard integer NOT NULL,
    created_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (epoch, number)
);

-- The number of the last.
ALTER TABLE log_head ADD COLUMN intents bigint NOT NULL DEFAULT 0;

-- By other log, the last of its intents that is done here.
CREATE TABLE intents_done (
    source_log integer PRIMARY KEY,
    epoch bigint NOT NULL,
    number bigint NOT NULL
);
