//! What is made of files, and made anew when they change.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::counter;
use tokio_util::task::AbortOnDropHandle;

use crate::error::TlsError;
use crate::files::Contents;

/// Contents are compared, not times: Kubernetes swaps a link, others rename or write in place.
const EVERY: Duration = Duration::from_secs(2);

type Make<T, E> = dyn Fn(&Contents) -> Result<T, Vec<E>> + Send + Sync;

/// How changes are told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// What is made of the files, as logs call it.
    pub what: &'static str,
    /// The metric that counts how often they were taken anew, by result.
    pub counter: &'static str,
}

const CERTIFICATES: Told = Told { what: "certificates", counter: "tls_reloads_total" };

/// What is made of some files, and made anew when they change.
pub struct Reloaded<T, E = TlsError> {
    paths: Vec<PathBuf>,
    told: Told,
    make: Box<Make<T, E>>,
    now: ArcSwap<T>,
    /// What was found last, right or wrong, so that each change is told once.
    found: Mutex<Result<Contents, Vec<E>>>,
}

/// Takes files anew for as long as it is held.
#[derive(Debug)]
pub struct FollowsFiles(
    #[expect(dead_code, reason = "it is held, and ends the task when dropped")] AbortOnDropHandle<()>,
);

impl<T: Send + Sync + 'static> Reloaded<T> {
    pub(crate) fn of_certificates(
        paths: Vec<PathBuf>,
        make: impl Fn(&Contents) -> Result<T, Vec<TlsError>> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Vec<TlsError>> {
        Self::load(CERTIFICATES, paths, make)
    }
}

impl<T, E> Reloaded<T, E>
where
    T: Send + Sync + 'static,
    E: From<TlsError> + Clone + PartialEq + Display + Send + 'static,
{
    /// Reads the files; the error says everything that is wrong with them.
    pub fn load(
        told: Told,
        paths: Vec<PathBuf>,
        make: impl Fn(&Contents) -> Result<T, Vec<E>> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Vec<E>> {
        let contents = Self::read(&paths)?;
        let now = ArcSwap::from_pointee(make(&contents)?);
        Ok(Arc::new(Self { paths, told, make: Box::new(make), now, found: Mutex::new(Ok(contents)) }))
    }

    fn read(paths: &[PathBuf]) -> Result<Contents, Vec<E>> {
        Contents::read(paths).map_err(|problems| problems.into_iter().map(E::from).collect())
    }

    /// What was made of the files when they were right last.
    pub fn now(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// On the runtime that this is called on.
    pub fn follow(self: &Arc<Self>) -> FollowsFiles {
        let this = self.clone();
        FollowsFiles(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let this = this.clone();
                // A file system may take its time. A panic there is one of `make`, and told by the panic hook.
                let _ = tokio::task::spawn_blocking(move || this.look()).await;
            }
        })))
    }

    /// Takes the files anew if they are others than the last time, and says whether it did. Wrong ones are complained about, and change
    /// nothing.
    pub fn look(&self) -> bool {
        let contents = Self::read(&self.paths);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if *found == contents {
            return false;
        }
        let made = contents.as_ref().map_err(Clone::clone).and_then(|contents| (self.make)(contents));
        *found = contents;
        drop(found);
        let result = if made.is_ok() { "ok" } else { "failed" };
        counter!(self.told.counter, "result" => result).increment(1);
        match made {
            Ok(made) => {
                self.now.store(Arc::new(made));
                tracing::info!(files = self.names(), "took new {}", self.told.what);
                true
            }
            Err(problems) => {
                let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(problems, "can't take new {}, going on with those before", self.told.what);
                false
            }
        }
    }

    fn names(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl<T, E> std::fmt::Debug for Reloaded<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tao_harness::TempDir;

    use super::*;

    #[test]
    fn wrong_files_change_nothing_and_right_ones_do() {
        let folder = TempDir::new().unwrap();
        let (file, link) = (folder.join("ca"), folder.join("link"));
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
        };
        write("ca", "1");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let path = link.clone();
        let make = move |contents: &Contents| {
            let text = String::from_utf8_lossy(contents.of(&path)).into_owned();
            text.parse::<u32>().map_err(|_| vec![TlsError::lacking(&path, "number")])
        };
        let reloaded = Reloaded::of_certificates(vec![link.clone()], make).unwrap();
        assert_eq!(*reloaded.now(), 1);
        write("ca", "x");
        reloaded.look();
        assert_eq!(*reloaded.now(), 1);
        fs::remove_file(&file).unwrap();
        reloaded.look();
        assert_eq!(*reloaded.now(), 1);
        // As Kubernetes does it: another file, and the link swapped.
        write("newer", "2");
        std::os::unix::fs::symlink(folder.join("newer"), folder.join("next")).unwrap();
        fs::rename(folder.join("next"), &link).unwrap();
        reloaded.look();
        assert_eq!(*reloaded.now(), 2);
    }
}
