-- Moves whenever a row of `shards` comes, goes or changes its state, in the same transaction: whoever holds the log's end sees by it
-- whether the states that it remembers still hold.
ALTER TABLE log_head ADD COLUMN shards_version integer NOT NULL DEFAULT 0;
