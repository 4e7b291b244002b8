//! What callers are judged by: a policy, and the keys of tokens. Both are taken anew while a follower runs, and each time all callers
//! are judged again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tao_model::Schema;
use tao_tls::{Reloaded, Told};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::crypto;
use crate::fetched::{Fetched, JwksUrl};
use crate::keys::Keys;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::token::Expected;

/// As often as certificates.
const EVERY: Duration = Duration::from_secs(2);
const POLICY: Told = Told { what: "grants", counter: "access_policy_reloads_total" };
const KEYS: Told = Told { what: "keys of tokens", counter: "access_key_reloads_total" };

/// Each set of rules has a number of its own in the process; 0 is that of none.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// Where the rules are.
#[derive(Debug, Clone)]
pub struct AccessOptions {
    /// A TOML file of grants.
    pub policy: PathBuf,
    /// Which tokens are taken; `None`: certificates alone say who asks.
    pub jwt: Option<JwtOptions>,
}

/// Which tokens are taken.
#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// What they may be signed with.
    pub keys: KeySource,
    /// What they must say.
    pub expected: Expected,
}

/// Where keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set, or public keys in PEM.
    File(PathBuf),
    /// A JWK set.
    Url(JwksUrl),
}

/// The rules as they are now.
#[derive(Debug)]
pub struct Rules {
    policy: Arc<Reloaded<Policy, Problem>>,
    jwt: Option<Jwt>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
}

/// How tokens are judged.
#[derive(Debug)]
pub struct Jwt {
    keys: Source,
    /// What they must say.
    pub expected: Expected,
}

#[derive(Debug)]
enum Source {
    File(Arc<Reloaded<Keys, Problem>>),
    Url(Fetched),
}

/// Takes rules anew for as long as it is held.
#[derive(Debug)]
pub struct FollowsRules(
    #[expect(dead_code, reason = "it is held, and ends the tasks when dropped")] Vec<AbortOnDropHandle<()>>,
);

impl Jwt {
    /// Whatever tokens may be signed with. `None` until they were first fetched.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        match &self.keys {
            Source::File(file) => Some(file.now()),
            Source::Url(url) => url.now(),
        }
    }

    /// A token was signed with a key that is not known: perhaps there is a newer set.
    pub fn miss(&self) {
        if let Source::Url(url) = &self.keys {
            url.want();
        }
    }
}

impl Rules {
    /// Reads them; the error says everything that is wrong.
    pub fn load(options: AccessOptions, schema: Arc<Schema>) -> Result<Self, Vec<Problem>> {
        crypto::install();
        let path = options.policy.clone();
        let policy = Reloaded::load(POLICY, vec![options.policy], move |contents| {
            let text = std::str::from_utf8(contents.of(&path));
            let text = text.map_err(|_| vec![Problem(format!("{}: no text", path.display()))])?;
            Policy::parse(&path, text, &schema)
        });
        let jwt = options.jwt.map(|jwt| jwt.load()).transpose();
        let (policy, jwt) = match (policy, jwt) {
            (Ok(policy), Ok(jwt)) => (policy, jwt),
            (policy, jwt) => return Err(policy.err().into_iter().chain(jwt.err()).flatten().collect()),
        };
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { policy, jwt, generation: generation.into(), changes: watch::Sender::new(generation) })
    }

    /// Another one each time that the rules have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Who may do what.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.now()
    }

    /// How tokens are judged, if they are taken.
    pub const fn jwt(&self) -> Option<&Jwt> {
        self.jwt.as_ref()
    }

    /// Looks at the files.
    pub(crate) fn look(&self) {
        let policy = self.policy.look();
        let keys = matches!(&self.jwt, Some(Jwt { keys: Source::File(file), .. }) if file.look());
        if policy || keys {
            self.changed();
        }
    }

    fn changed(&self) {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Release);
        self.changes.send_replace(generation);
    }

    /// Takes changes, on the runtime that this is called on.
    pub fn follow(self: &Arc<Self>) -> FollowsRules {
        let this = self.clone();
        let files = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let this = this.clone();
                // A file system may take its time.
                let _ = tokio::task::spawn_blocking(move || this.look()).await;
            }
        });
        let mut tasks = vec![AbortOnDropHandle::new(files)];
        if matches!(&self.jwt, Some(Jwt { keys: Source::Url(_), .. })) {
            let this = self.clone();
            let fetches = tokio::spawn(async move {
                if let Some(Jwt { keys: Source::Url(url), .. }) = &this.jwt {
                    url.keep_fetching(|| this.changed()).await;
                }
            });
            tasks.push(AbortOnDropHandle::new(fetches));
        }
        FollowsRules(tasks)
    }
}

impl JwtOptions {
    fn load(self) -> Result<Jwt, Vec<Problem>> {
        let keys = match self.keys {
            KeySource::Url(url) => Source::Url(Fetched::new(url)?),
            KeySource::File(path) => {
                let file = path.clone();
                let make = move |contents: &tao_tls::Contents| {
                    let of_file = |problem| Problem(format!("{}: {problem}", path.display()));
                    Keys::parse(contents.of(&path)).map_err(|problems| problems.into_iter().map(of_file).collect())
                };
                Source::File(Reloaded::load(KEYS, vec![file], make)?)
            }
        };
        Ok(Jwt { keys, expected: self.expected })
    }
}
