//! A PostgreSQL of the tests' own, with durability on.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::watcher::EndBy;
use crate::{Process, TempDir, eventually, free_port, programs};

const OLDEST: u32 = 15;
const READY_WITHIN: Duration = Duration::from_mins(2);
/// The longest path of a Unix socket is 107 bytes, and `/.s.PGSQL.12345` comes after the folder.
const LONGEST_SOCKET_FOLDER: usize = 90;

/// A PostgreSQL cluster in a temporary folder, on a free port of 127.0.0.1 and a Unix socket in the folder. Anybody on
/// this machine's loopback may log in as `postgres`. Ends when it is dropped, as if the power had failed.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it; returns when it takes connections.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more settings, as in postgresql.conf: `[("shared_buffers", "1GB")]`.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        let programs = programs_folder()?;
        let folder = TempDir::new()?;
        let owner = Owner::of(&folder)?;
        let data = folder.join("data");
        let mut initdb = owner.command(&programs.join("initdb"), &folder);
        // No sync for the files of an empty cluster: it is the server's promises that the tests rely on.
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"]);
        programs::run(initdb.arg(&data))?;
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 trust\n")?;

        let port = free_port()?;
        let sockets = folder.path().to_str().filter(|path| path.len() <= LONGEST_SOCKET_FOLDER).unwrap_or_default();
        let mut server = owner.command(&programs.join("postgres"), &folder);
        server.arg("-D").arg(&data);
        let port_text = port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port_text),
            ("unix_socket_directories", sockets),
            ("max_connections", "200"),
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("logging_collector", "off"),
        ];
        for (name, value) in ours.iter().chain(settings) {
            server.args(["-c", &format!("{name}={value}")]);
        }
        let mut postgres = Self { process: Process::new(server, folder, EndBy::Quit)?, programs, port };
        postgres.wait_ready()?;
        Ok(postgres)
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Its port, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database and returns its URL. Any name will do that has no NUL in it and at most 63 bytes; one
    /// that is made of anything but letters, digits, `-` and `_` can't be told in a URL and is refused.
    pub fn create_database(&self, name: &str) -> Result<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!((1..=63).contains(&name.len()) && name.chars().all(plain), "not a plain database name: {name:?}");
        self.execute("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.url_of(name))
    }

    /// Makes a role that owns a database and must log in with a password (SCRAM), and returns the URL without it.
    pub fn create_protected(&self, role: &str, password: &str, database: &str) -> Result<String> {
        self.create_database(database)?;
        // The first line that fits is the one that counts.
        let rules = self.folder().join("data/pg_hba.conf");
        let others = fs::read_to_string(&rules).context("cannot read pg_hba.conf")?;
        fs::write(&rules, format!("host all {role} 127.0.0.1/32 scram-sha-256\n{others}"))?;
        let sql = format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{}'", password.replace('\'', "''"));
        self.execute("postgres", &sql)?;
        self.execute("postgres", &format!("ALTER DATABASE \"{database}\" OWNER TO \"{role}\""))?;
        self.execute("postgres", "SELECT pg_reload_conf()")?;
        let url = format!("postgres://{role}@127.0.0.1:{}/{database}", self.port);
        // The server reads its rules again some time after it was told to.
        eventually(READY_WITHIN, || {
            let mut psql = Command::new(self.programs.join("psql"));
            psql.args(["-X", "-w", "-d", &url, "-c", "SELECT 1"]).env_remove("PGPASSWORD").env_remove("PGPASSFILE");
            let output = psql.output().context("cannot run psql")?;
            ensure!(!output.status.success(), "{role} is let in without a password");
            Ok(())
        })?;
        Ok(url)
    }

    /// Runs SQL in a database through psql, and returns what it prints: rows only, columns separated by `|`.
    pub fn execute(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url_of(database), "-c", sql]);
        Ok(programs::run(&mut psql)?.trim_end().to_owned())
    }

    /// Runs a query and hands out its rows, one a line, columns separated by tabs, as they come. (COPY's text format: a backslash
    /// is doubled, NULL is `\N`.)
    pub fn rows(&self, database: &str, query: &str, mut row: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url_of(database)]);
        psql.args(["-c", &format!("COPY ({query}) TO STDOUT")]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = psql.spawn().context("cannot run psql")?;
        let out = child.stdout.take().context("psql has no output")?;
        let done = BufReader::new(out).lines().try_for_each(|line| row(&line?));
        let status = child.wait()?;
        done?;
        ensure!(status.success(), "psql failed ({status}): {query}");
        Ok(())
    }

    /// Stops all of it in its tracks (SIGSTOP): connections stay open and nothing is answered.
    pub fn pause(&self) -> Result<()> {
        // The postmaster first: it starts no more children.
        self.process.pause()?;
        self.process.signal_children(Signal::STOP)
    }

    /// Lets it go on after a pause.
    pub fn resume(&self) -> Result<()> {
        self.process.signal_children(Signal::CONT)?;
        self.process.resume()
    }

    /// Ends it at once, without a checkpoint, as a crash would (SIGQUIT); returns when all its processes are gone.
    pub fn stop_immediate(&mut self) -> Result<()> {
        self.process.end(Signal::QUIT).map(drop)
    }

    /// Starts it after a stop, on the same port; returns when it has recovered and takes connections.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.wait_ready()
    }

    /// The postmaster's process id; an error when it was stopped.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid()
    }

    /// The folder that holds all of it.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// The last few kilobytes of the server's log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn wait_ready(&mut self) -> Result<()> {
        self.process.wait_line("database system is ready to accept connections", READY_WITHIN)?;
        Ok(())
    }
}

/// The user that runs the server, which refuses to run as root.
struct Owner(Option<(u32, u32)>);

impl Owner {
    /// This user; or, for root, `postgres` if there is one, else `nobody`, and the folder is given to it.
    fn of(folder: &TempDir) -> Result<Self> {
        if fs::metadata(folder.path())?.uid() != 0 {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
        let (uid, gid) = user(&users, "postgres")
            .or_else(|| user(&users, "nobody"))
            .context("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")?;
        chown(folder.path(), Some(uid), Some(gid)).context("cannot give the folder of PostgreSQL away")?;
        Ok(Self(Some((uid, gid))))
    }

    fn command(&self, program: &Path, folder: &TempDir) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder.path()).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// The user and group number of a user in the text of /etc/passwd.
fn user(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The folder of PostgreSQL's programs, new enough: PATH's first, else the newest in Debian's place for them.
fn programs_folder() -> Result<PathBuf> {
    let in_path = programs::find("postgres", &[]).and_then(|program| program.canonicalize().ok());
    let mut candidates: Vec<PathBuf> = in_path.iter().filter_map(|program| program.parent()).map(Into::into).collect();
    let mut installed: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    installed.sort_by_key(|folder| std::cmp::Reverse(programs::name_of(folder).parse::<u32>().unwrap_or(0)));
    candidates.extend(installed.into_iter().map(|folder| folder.join("bin")));
    candidates
        .into_iter()
        .find(|folder| {
            let version = programs::run(Command::new(folder.join("postgres")).arg("--version"));
            let complete = folder.join("initdb").is_file() && folder.join("psql").is_file();
            complete && version.is_ok_and(|text| major(&text).is_some_and(|major| major >= OLDEST))
        })
        .with_context(|| {
            format!("PostgreSQL {OLDEST} or newer is not installed: `apt-get install postgresql` or `brew install postgresql`")
        })
}

/// The first number in `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    version.split([' ', '.']).find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), None);
        assert_eq!(major(""), None);
    }

    #[test]
    fn reads_users() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\nbroken:x\n";
        assert_eq!(user(users, "postgres"), Some((101, 104)));
        assert_eq!(user(users, "post"), None);
        assert_eq!(user(users, "broken"), None);
    }
}
