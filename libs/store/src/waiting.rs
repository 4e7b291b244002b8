//! Opens a store when its database is not there yet: whoever starts first waits for the other.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;

use crate::open::{OpenError, OpenOptions, open};
use crate::postgres::is_passing;
use crate::store::Store;

/// Between two attempts, first and later; each attempt takes up to two seconds where nobody answers.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Opens a store as [`open`] does, and tries again for as long as its PostgreSQL can't be reached: nobody listens there or the name is
/// not known, it is starting or stopping, all of its connections are taken, or it can't be written to while it is a standby. `waiting`
/// is told of each attempt in vain, in words for an operator. What waiting does not mend is an error at once: credentials, a database
/// that does not exist, one of another cluster or of a newer version. Drop the future to give up.
pub async fn open_when_reachable(
    options: OpenOptions,
    mut waiting: impl FnMut(String),
) -> Result<Arc<dyn Store>, OpenError> {
    let mut attempts = 0;
    loop {
        let error = match open(options.clone()).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let (Some(server), Some(why)) = (server(&options.url), error.passing()) else { return Err(error) };
        waiting(format!("waiting for PostgreSQL at {server}: {why}"));
        tokio::time::sleep(PAUSES[attempts.min(PAUSES.len() - 1)]).await;
        attempts += 1;
    }
}

/// Where a PostgreSQL is, without credentials.
fn server(url: &str) -> Option<String> {
    if !url.starts_with("postgres") {
        return None;
    }
    let options: PgConnectOptions = url.parse().ok()?;
    Some(match options.get_socket() {
        Some(socket) => format!("{}, port {}", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    })
}

impl OpenError {
    /// Whether waiting may mend it.
    pub fn is_passing(&self) -> bool {
        self.passing().is_some()
    }

    /// Why a PostgreSQL could not be opened, if that may be otherwise in a moment.
    fn passing(&self) -> Option<String> {
        match self {
            Self::Database(error)
            | Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => match error {
                sqlx::Error::Io(error) if error.kind() != ErrorKind::PermissionDenied => Some(error.to_string()),
                sqlx::Error::PoolTimedOut => Some("it does not answer".to_owned()),
                sqlx::Error::Database(error) if error.code().is_some_and(|code| is_passing(&code)) => {
                    Some(error.message().to_owned())
                }
                _ => None,
            },
            Self::Fault(error @ tao_model::Error::Unavailable { .. }) => Some(error.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_its_secrets() {
        assert_eq!(server("postgres://tao:s3cret@db.example:6432/tao").unwrap(), "db.example:6432");
        assert_eq!(server("postgresql://tao@%2Frun%2Fpostgresql/tao").unwrap(), "/run/postgresql, port 5432");
        assert_eq!(server("sqlite:tao.db"), None);
    }

    #[test]
    fn what_waiting_does_not_mend_is_told_apart() {
        let io = |kind| OpenError::Database(sqlx::Error::Io(std::io::Error::new(kind, "why")));
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::NotFound, ErrorKind::UnexpectedEof, ErrorKind::Other] {
            assert_eq!(io(kind).passing().as_deref(), Some("why"), "{kind}");
        }
        assert_eq!(io(ErrorKind::PermissionDenied).passing(), None);
        assert!(OpenError::Database(sqlx::Error::PoolTimedOut).passing().is_some());
        assert_eq!(OpenError::Newer { minimum: 2, own: 1 }.passing(), None);
        assert_eq!(OpenError::OldPostgres(14).passing(), None);
        for code in ["57P03", "53300", "08006", "25006"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "42P07"] {
            assert!(!is_passing(code), "{code}");
        }
    }
}
