//! What a database is brought to, and which versions of tao may open it (docs/upgrades.md).
//!
//! A schema version is the number of its newest migration. Most migrations only add to what is there (expand), and older versions go on
//! beside them. One that takes something away (contract) says in its name which version everybody must have reached, and writes that
//! down for older ones to see.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;

use crate::open::OpenError;
use crate::servers::{self, Running};

pub(crate) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| beside_newer(sqlx::migrate!("migrations/postgres")));
pub(crate) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| beside_newer(sqlx::migrate!("migrations/sqlite")));

/// Of both databases, once [`check_minimum`]'s table is there.
pub(crate) const MINIMUM: &str = "SELECT minimum FROM schema_compat";
/// The table that it is in.
pub(crate) const COMPAT: &str = "schema_compat";

/// Migrations that are not known are no error: whether they may be there is what the database's minimum says. Those that are known are
/// still compared by their checksums.
fn beside_newer(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true);
    migrator
}

/// The schema version that a program with these migrations has.
pub(crate) fn version(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Whether a database with this minimum may be opened.
pub(crate) fn check_minimum(migrator: &Migrator, minimum: i64) -> Result<(), OpenError> {
    let own = version(migrator);
    if own < minimum { Err(OpenError::Newer { minimum, own }) } else { Ok(()) }
}

/// `contract 13 what it does`: the version that everybody must have reached.
fn needed(description: &str) -> Option<i64> {
    description.strip_prefix("contract ")?.split(' ').next()?.parse().ok()
}

/// The migrations without those that take away what a running storage shard needs: they wait for another opening. A program does not
/// need its own contract migrations to have run. `None`: nothing has to wait.
pub(crate) fn without_missed(migrator: &Migrator, running: &[Running]) -> Option<Migrator> {
    let older = |needed: i64| running.iter().filter(move |server| server.schema_version < needed);
    let (mut due, mut waits) = (Vec::new(), false);
    for migration in migrator.iter() {
        match needed(&migration.description) {
            Some(needed) if older(needed).next().is_some() => {
                let (migration, servers) = (migration.version, servers::list(older(needed)));
                tracing::info!(migration, needed, servers, "not applied while older storage shards run");
                waits = true;
            }
            _ => due.push(migration.clone()),
        }
    }
    waits.then(|| beside_newer(Migrator::with_migrations(due)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::migrate::{Migration, MigrationType};
    use sqlx::{Connection as _, PgConnection, SqlSafeStr as _, SqlitePool, query_scalar};
    use tao_harness::{Postgres, TempDir, eventually_async};
    use tao_model::{IdLayout, Schema, SystemClock};

    use super::*;
    use crate::open::{OpenOptions, migrate_postgres, migrate_sqlite, open, start};
    use crate::sqlite::SqliteBackend;

    /// These migrations, and one that some release after the next might have.
    fn with_contract(migrator: &Migrator) -> Migrator {
        let sql = "CREATE TABLE contracted (x bigint); UPDATE schema_compat SET minimum = 14;".into_sql_str();
        let contract = Migration::new(99, "contract 14 something".into(), MigrationType::Simple, sql, false);
        beside_newer(Migrator::with_migrations(migrator.iter().cloned().chain([contract]).collect()))
    }

    fn options(url: &str) -> OpenOptions {
        let options = OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD);
        OpenOptions { server: "shard-7".to_owned(), ..options }
    }

    #[test]
    fn what_a_running_server_needs_is_not_taken_away() {
        let migrator = with_contract(&POSTGRES);
        let server = |schema_version| Running {
            name: "shard-0".to_owned(),
            version: "0.1.0".to_owned(),
            schema_version,
            seen_ms_ago: 2_500,
        };
        assert!(without_missed(&migrator, &[]).is_none());
        assert!(without_missed(&migrator, &[server(14), server(15)]).is_none());
        let left = without_missed(&migrator, &[server(15), server(13)]).expect("it waits");
        assert!(left.ignore_missing && version(&left) == version(&POSTGRES));
        assert_eq!(server(13).to_string(), "shard-0 (tao 0.1.0, schema version 13, seen 2 s ago)");
    }

    #[tokio::test]
    async fn sqlite_keeps_what_an_older_server_needs_until_it_has_closed() {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite:{}", folder.join("tao.db").display());
        let store = open(options(&url)).await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        let minimum = async || query_scalar::<_, i64>(MINIMUM).fetch_one(&pool).await.unwrap();
        let names = query_scalar::<_, String>("SELECT name FROM servers").fetch_all(&pool).await.unwrap();
        assert_eq!(names, ["shard-7"]);
        let newer = with_contract(&SQLITE);
        migrate_sqlite(&pool, &newer).await.unwrap();
        assert_eq!(minimum().await, 12, "it waits");
        store.close().await;
        migrate_sqlite(&pool, &newer).await.unwrap();
        assert_eq!(minimum().await, 14);
        assert!(matches!(open(options(&url)).await.err(), Some(OpenError::Newer { minimum: 14, .. })));
    }

    /// It has looked at the minimum, and is not to be seen by others yet.
    #[tokio::test]
    async fn a_server_that_opens_while_a_contract_runs_is_refused() {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite:{}", folder.join("tao.db").display());
        let store = open(options(&url)).await.unwrap();
        let info = store.info();
        store.close().await;
        let pool = SqlitePool::connect(&url).await.unwrap();
        migrate_sqlite(&pool, &with_contract(&SQLITE)).await.unwrap();
        let backend = SqliteBackend { writer: pool.clone(), readers: pool, clock: Arc::new(SystemClock) };
        let opened = start(Arc::new(backend), info, Arc::default(), options(&url)).await;
        assert!(matches!(opened.err(), Some(OpenError::Newer { minimum: 14, .. })));
        let pool = SqlitePool::connect(&url).await.unwrap();
        let left = query_scalar::<_, i64>("SELECT count(*) FROM servers").fetch_one(&pool).await.unwrap();
        assert_eq!(left, 0, "nobody waits for it");
    }

    #[tokio::test]
    async fn postgres_keeps_what_an_older_server_needs_until_it_is_gone() {
        let postgres = Postgres::start().unwrap();
        let url = postgres.create_database("tao").unwrap();
        let store = open(options(&url)).await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let number = |sql| postgres.execute("tao", sql).unwrap();
        assert_eq!(number("SELECT name FROM servers"), "shard-7");
        // It shows again and again that it lives.
        number("DELETE FROM servers");
        let is_back = async || match number("SELECT name FROM servers").as_str() {
            "shard-7" => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?}")).into()),
        };
        eventually_async(6 * servers::BEAT, is_back).await.unwrap();
        let newer = with_contract(&POSTGRES);
        migrate_postgres(&mut connection, &newer).await.unwrap();
        assert_eq!(number(MINIMUM), "12", "it waits");
        store.close().await;
        assert_eq!(number("SELECT count(*) FROM servers"), "0");

        // One that was killed is waited for, too, but not for ever.
        number(
            "INSERT INTO servers VALUES (1, 'shard-8', '0.1.0', 13, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
        );
        migrate_postgres(&mut connection, &newer).await.unwrap();
        assert_eq!(number(MINIMUM), "12", "it may still run");
        number("UPDATE servers SET seen_ms = seen_ms - 120000");
        migrate_postgres(&mut connection, &newer).await.unwrap();
        assert_eq!(number(MINIMUM), "12", "nobody shows that it lives while the database is away");
        number("UPDATE servers SET seen_ms = seen_ms - 500000");
        migrate_postgres(&mut connection, &newer).await.unwrap();
        assert_eq!(number(MINIMUM), "14");
    }

    #[test]
    fn both_databases_have_the_same_migrations() {
        let names = |migrator: &Migrator| -> Vec<_> {
            migrator.iter().map(|migration| (migration.version, migration.description.to_string())).collect()
        };
        assert_eq!(names(&POSTGRES), names(&SQLITE));
        assert_eq!(version(&POSTGRES), names(&POSTGRES).last().unwrap().0);
    }

    /// A migration says in its name what it writes down, and takes nothing away otherwise.
    #[test]
    fn migrations_are_what_they_are_called() {
        assert_eq!((needed("contract 13 owners"), needed("contracts"), needed("owners")), (Some(13), None, None));
        // Those before have taken things away without being asked: their programs refuse whatever they don't know.
        for migration in POSTGRES.iter().chain(SQLITE.iter()).filter(|migration| migration.version > 12) {
            let sql = migration.sql.as_str().to_uppercase();
            let name = format!("{} {}", migration.version, migration.description);
            match needed(&migration.description) {
                Some(minimum) => {
                    assert!(sql.contains(&format!("UPDATE SCHEMA_COMPAT SET MINIMUM = {minimum};")), "{name}");
                    assert!(minimum < migration.version, "{name}: the version before could not be gone back to");
                }
                None => {
                    let taken = ["DROP ", "RENAME ", "SCHEMA_COMPAT", "SET NOT NULL", "TYPE "];
                    assert!(taken.iter().all(|word| !sql.contains(word)), "{name} takes something away");
                }
            }
        }
    }
}
