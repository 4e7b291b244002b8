//! What a storage shard can be told: in a file, in the environment, by flags; the later wins.

use clap::Args;
use serde::Deserialize;
use std::net::SocketAddr;

use tao_model::IdLayout;
use tao_store::MemoryDatabase;

/// Options of a storage shard, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where leaders connect to [default: 127.0.0.1:50053]
    #[arg(long, env = "TAO_SHARD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The database: sqlite:FILE, postgres://USER@HOST/DATABASE, or memory: (lost at the end) [default: sqlite:tao.db]
    #[arg(long, env = "TAO_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<String>,
    /// Connections to PostgreSQL, or readers of SQLite; 2 to 200 [default: 8]
    #[arg(long, env = "TAO_STORE_CONNECTIONS", value_name = "N")]
    pub store_connections: Option<u32>,
    /// Logical shards of the cluster, 1 to 1024; fixed when its database is created [default: 1024]
    #[arg(long, env = "TAO_SHARDS", value_name = "N")]
    pub shards: Option<u32>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where leaders connect to.
    pub listen: SocketAddr,
    /// The database.
    pub store: String,
    /// What `memory:` is: a simulation's database, which outlives its storage shards.
    pub memory: Option<MemoryDatabase>,
    /// Connections to it.
    pub store_connections: u32,
    /// The cluster's ids.
    pub layout: IdLayout,
}

impl Options {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            store: self.store.or(lower.store),
            store_connections: self.store_connections.or(lower.store_connections),
            shards: self.shards.or(lower.shards),
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let store = self.store.unwrap_or_else(|| "sqlite:tao.db".to_owned());
        if !["sqlite:", "postgres://", "postgresql://", "memory:"].iter().any(|scheme| store.starts_with(scheme)) {
            problems.push("store: an URL begins with sqlite:, postgres:// or memory:".to_owned());
        }
        if store.contains(',') {
            problems.push("store: one database; several databases are not supported yet".to_owned());
        }
        let store_connections = self.store_connections.unwrap_or(8);
        if !(2..=200).contains(&store_connections) {
            problems.push(format!("store_connections: {store_connections} is not within 2 to 200"));
        }
        let layout =
            IdLayout::new(42, 10, 12, self.shards.unwrap_or(1024)).map_err(|e| problems.push(format!("shards: {e}")));
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50053)));
        match layout {
            Ok(layout) if problems.is_empty() => Ok(Config { listen, store, memory: None, store_connections, layout }),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_and_flags_win() {
        let wrong = Options {
            store: Some("mysql://x,y".to_owned()),
            store_connections: Some(1),
            shards: Some(0),
            listen: None,
        };
        assert_eq!(wrong.check().unwrap_err().len(), 4);
        let file = Options { shards: Some(16), store_connections: Some(4), ..Default::default() };
        let flags = Options { shards: Some(32), ..Default::default() };
        let config = flags.over(file).check().unwrap();
        assert_eq!((config.layout.shards(), config.store_connections, config.listen.port()), (32, 4, 50053));
    }
}
