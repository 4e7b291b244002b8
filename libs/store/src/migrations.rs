//! What a database is brought to, and which versions of tao may open it (docs/upgrades.md).
//!
//! A schema version is the number of its newest migration. Most migrations only add to what is there (expand), and older versions go on
//! beside them. One that takes something away (contract) says in its name which version everybody must have reached, and writes that
//! down for older ones to see.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;

use crate::open::OpenError;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// `contract 13 what it does`: the version that everybody must have reached.
    fn needed(description: &str) -> Option<i64> {
        description.strip_prefix("contract ")?.split(' ').next()?.parse().ok()
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
