//! A cluster's databases, for commands that work on them directly.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tao_model::{ClusterId, IdLayout, Schema, ShardId, ShardSet};
use tao_store::direct::{DirectDatabase, DirectError};

use crate::commands::Failure;

/// Where the databases are.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// The cluster's databases, each as its storage shards have it: sqlite:FILE or postgres://USER@HOST/DATABASE; all of them, with commas between them
    #[arg(long, env = "TAO_STORE", value_name = "URL", value_delimiter = ',', required = true, hide_env_values = true)]
    pub store: Vec<String>,
    /// The schema: a TOML file (docs/schema.md) [default: a built-in social network]
    #[arg(long, env = "TAO_SCHEMA", value_name = "FILE")]
    schema: Option<PathBuf>,
}

/// All databases of one cluster.
pub struct Databases {
    /// By log.
    pub all: Vec<DirectDatabase>,
    /// The types.
    pub schema: Arc<Schema>,
    /// The cluster's ids.
    pub layout: IdLayout,
    /// The cluster.
    pub cluster: ClusterId,
}

impl From<DirectError> for Failure {
    fn from(error: DirectError) -> Self {
        if error.is_passing() { Self::unreachable(error) } else { Self::other(error) }
    }
}

impl DatabaseArgs {
    /// At these addresses, where types don't matter.
    pub const fn of(store: Vec<String>) -> Self {
        Self { store, schema: None }
    }

    /// Reads the schema.
    pub fn schema(&self) -> Result<Arc<Schema>, Failure> {
        let Some(path) = &self.schema else { return Ok(Arc::new(Schema::social())) };
        let said = |problem: String| Failure::bad_input(format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| said(format!("can't be read: {error}")))?;
        Ok(Arc::new(Schema::parse(&text).map_err(said)?))
    }

    /// Opens all of them; changes nothing.
    pub async fn open(&self) -> Result<Databases, Failure> {
        let schema = self.schema()?;
        let mut all = Vec::with_capacity(self.store.len());
        for (n, url) in self.store.iter().enumerate() {
            let opened = DirectDatabase::open(url, schema.clone()).await;
            // Not by its URL, which may hold a password.
            all.push(opened.map_err(|error| Failure::from(error).within(format!("database {}", n + 1)))?);
        }
        Databases::new(all, schema)
    }
}

impl Databases {
    fn new(mut all: Vec<DirectDatabase>, schema: Arc<Schema>) -> Result<Self, Failure> {
        all.sort_by_key(|database| database.info().log);
        let first = all.first().ok_or_else(|| Failure::bad_input("no database is named"))?.info();
        let mut shards = ShardSet::empty();
        for (n, database) in all.iter().enumerate() {
            let info = database.info();
            if (info.cluster, info.layout) != (first.cluster, first.layout) {
                let (one, other) = (first.cluster, info.cluster);
                return Err(Failure::bad_input(format!("the databases are of different clusters: {one} and {other}")));
            }
            if n > 0 && all[n - 1].info().log == info.log {
                return Err(Failure::bad_input(format!("two of the databases are log {}", info.log.0)));
            }
            if !shards.is_disjoint(database.shards()) {
                return Err(Failure::bad_input(format!("log {} has shards of another one", info.log.0)));
            }
            shards = shards.union(database.shards());
        }
        let missing = ShardSet::all(&first.layout).difference(&shards);
        if !missing.is_empty() {
            return Err(Failure::bad_input(format!("no database has shards {missing}: name all of the cluster's")));
        }
        Ok(Self { all, schema, layout: first.layout, cluster: first.cluster })
    }

    /// The place of the database that a shard lives in.
    pub fn place_of(&self, shard: ShardId) -> Option<usize> {
        self.all.iter().position(|database| database.shards().contains(shard))
    }

    /// The storage shards that have one of them open.
    pub async fn servers(&self) -> Result<Vec<String>, Failure> {
        let mut servers = Vec::new();
        for database in &self.all {
            servers.extend(database.servers().await?);
        }
        Ok(servers)
    }
}

/// Runs a command's work on threads of its own, beside which connections are served.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
    runtime.block_on(work)
}
