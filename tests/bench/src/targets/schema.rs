//! The tables of the baselines: tao's graph tables with the same indexes, tuned for the updates that they get.

use anyhow::Result;
use sqlx::{Connection as _, Executor as _, PgConnection};

/// Made before the rows come. Room in the pages for updates of a row in place (HOT), which need no index entry.
const TABLES: &str = "
CREATE TABLE objects (
    id bigint NOT NULL,
    otype int NOT NULL,
    version bigint NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    data bytea NOT NULL
) WITH (fillfactor = 90);
CREATE SEQUENCE object_ids CACHE 100;
CREATE TABLE assocs (
    id1 bigint NOT NULL,
    atype int NOT NULL,
    id2 bigint NOT NULL,
    time bigint NOT NULL,
    data bytea NOT NULL
);
CREATE TABLE assoc_counts (
    id1 bigint NOT NULL,
    atype int NOT NULL,
    count bigint NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE log_head (epoch bigint NOT NULL, lsn bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO log_head VALUES (1, 0);
CREATE SEQUENCE log_lsns CACHE 1;
CREATE TABLE change_log (
    epoch bigint NOT NULL,
    first_lsn bigint NOT NULL,
    last_lsn bigint NOT NULL,
    committed_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (epoch, first_lsn)
);
CREATE INDEX change_log_by_time ON change_log (committed_ms);
";

/// Made after the rows came: sorting once is quicker than inserting in any order.
const INDEXES: &str = "
ALTER TABLE objects ADD PRIMARY KEY (id);
ALTER TABLE assocs ADD PRIMARY KEY (id1, atype, id2);
CREATE INDEX assocs_by_time ON assocs (id1, atype, time DESC, id2 DESC);
ALTER TABLE assoc_counts ADD PRIMARY KEY (id1, atype);
";

/// Makes the tables, without indexes.
pub async fn create(url: &str) -> Result<()> {
    PgConnection::connect(url).await?.execute(TABLES).await?;
    Ok(())
}

/// Makes the indexes, and everything else that a graph of `nodes` objects needs once its rows are there: statistics, the visibility map,
/// and a checkpoint, so that no run pays for the load.
pub async fn finish(url: &str, nodes: u32) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute("SET maintenance_work_mem = '256MB'").await?;
    connection.execute(INDEXES).await?;
    let next = i64::from(nodes) + 1;
    sqlx::query("SELECT setval('object_ids', $1)").bind(next).execute(&mut connection).await?;
    settle(url).await
}

/// Fresh statistics, the visibility map, and nothing left to be written.
pub async fn settle(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute("VACUUM (ANALYZE)").await?;
    connection.execute("CHECKPOINT").await?;
    Ok(())
}
