-- Moves with every commit of a storage shard, also with those that move no position: whoever finds it where it was knows that nothing
-- was written meanwhile.
ALTER TABLE log_head ADD COLUMN commits integer NOT NULL DEFAULT 0;
