-- The oldest schema version whose programs may still have this database open. A migration after which older ones would go wrong raises
-- it, and bears it in its name ("contract 12 ..."). Programs up to 11 refuse whatever they don't know.
CREATE TABLE schema_compat (
    one integer PRIMARY KEY CHECK (one = 1),
    minimum bigint NOT NULL
);
INSERT INTO schema_compat (one, minimum) VALUES (1, 12);
