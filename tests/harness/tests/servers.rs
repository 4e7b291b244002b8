//! The harness itself: what it starts works, and nothing of it is left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, test_kill_process};
use tao_harness::{Postgres, Process, Redis, TempDir, eventually, grpcurl_output};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn postgres_keeps_what_was_committed_through_a_crash() -> Result<()> {
    let mut postgres = Postgres::start()?;
    let durable = "SHOW fsync; SHOW synchronous_commit; SHOW full_page_writes; SHOW max_connections";
    let settings: Result<Vec<String>> = durable.split("; ").map(|show| postgres.execute("postgres", show)).collect();
    assert_eq!(settings?, ["on", "on", "on", "200"]);

    let url = postgres.create_database("graph")?;
    assert_eq!(url, format!("postgres://postgres@127.0.0.1:{}/graph", postgres.port()));
    let version = postgres.execute("graph", "CREATE TABLE t (n int); INSERT INTO t VALUES (7); SELECT n FROM t")?;
    assert_eq!(version, "7");

    let pid = postgres.pid()?;
    postgres.stop_immediate()?;
    assert!(is_gone(pid));
    assert!(postgres.pid().is_err());
    assert!(postgres.execute("graph", "SELECT 1").is_err());

    postgres.start_again()?;
    assert_eq!(postgres.execute("graph", "SELECT n FROM t")?, "7");
    let (pid, folder) = (postgres.pid()?, postgres.folder().to_path_buf());
    drop(postgres);
    nothing_left(&[pid], &[folder])
}

#[test]
fn postgres_says_what_it_refuses() -> Result<()> {
    let postgres = Postgres::start_with(&[("max_connections", "20")])?;
    assert_eq!(postgres.execute("postgres", "SHOW max_connections")?, "20");
    for name in ["", "a\"b", "a b", "a/b", &"x".repeat(64)] {
        assert!(postgres.create_database(name).is_err(), "{name:?}");
    }
    postgres.create_database("twice")?;
    let again = format!("{:#}", postgres.create_database("twice").unwrap_err());
    assert!(again.contains("already exists"), "{again}");
    let wrong = format!("{:#}", Postgres::start_with(&[("no_such_setting", "1")]).unwrap_err());
    assert!(wrong.contains("unrecognized configuration parameter"), "{wrong}");
    Ok(())
}

#[test]
fn redis_comes_back_empty_on_its_port() -> Result<()> {
    let mut redis = Redis::start()?;
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}/", redis.port()));
    assert_eq!(ask(redis.port(), "SET a 1")?, "+OK\r\n");
    let first = redis.pid()?;
    redis.kill()?;
    assert!(redis.pid().is_err());
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err());
    redis.restart()?;
    assert_eq!(ask(redis.port(), "GET a")?, "$-1\r\n");

    redis.pause()?;
    assert!(ask(redis.port(), "PING").is_err());
    redis.resume()?;
    assert_eq!(ask(redis.port(), "PING")?, "+PONG\r\n");

    redis.restart()?;
    let last = redis.pid()?;
    drop(redis);
    nothing_left(&[first, last], &[])
}

#[test]
fn a_process_is_heard_and_ended() -> Result<()> {
    let script = "echo starting; echo \"listening on $WHERE\"; while :; do read -r _ < fifo; done";
    let folder;
    let pid;
    {
        let mut process = Process::spawn("sh", ["-c", &format!("mkfifo fifo; {script}")], &[("WHERE", "here")])?;
        assert_eq!(process.wait_line("listening", SOON)?, "listening on here");
        let status = process.terminate()?;
        assert!(!status.success());
        let log = process.log_tail();
        assert!(log.contains("starting\n"), "{log}");

        process.start_again()?;
        assert_eq!(process.wait_line("listening", SOON)?, "listening on here");
        process.kill9()?;
        assert!(process.kill9().is_err(), "it is no longer running");

        process.start_again()?;
        folder = process.folder().to_path_buf();
        pid = process.pid()?;
    }
    nothing_left(&[pid], &[folder])
}

#[test]
fn a_process_that_ends_or_stays_silent_is_an_error_with_its_last_words() -> Result<()> {
    let mut process = Process::spawn("sh", ["-c", "echo no such database >&2; exit 3"], &[])?;
    let ended = format!("{:#}", process.wait_line("listening", SOON).unwrap_err());
    assert!(ended.contains("exit status: 3") && ended.contains("no such database"), "{ended}");
    assert_eq!(process.wait(SOON)?.code(), Some(3));

    let mut silent = Process::spawn("sleep", ["60"], &[])?;
    let late = format!("{:#}", silent.wait_line("listening", Duration::from_millis(50)).unwrap_err());
    assert!(late.contains("sleep did not print \"listening\" within 50ms"), "{late}");

    let absent = format!("{:#}", Process::spawn("no-such-program", ["run"], &[]).unwrap_err());
    assert!(absent.starts_with("cannot run no-such-program run"), "{absent}");
    Ok(())
}

#[test]
fn folders_are_removed() -> Result<()> {
    let folder = TempDir::new()?;
    let path = folder.path().to_path_buf();
    std::fs::write(folder.join("file"), "x")?;
    assert!(path.is_absolute() && path.is_dir());
    drop(folder);
    assert!(!path.exists());
    Ok(())
}

#[test]
fn grpcurl_is_found() -> Result<()> {
    let output = grpcurl_output(["-version"])?;
    assert!(output.status.success());
    Ok(())
}

/// Runs the next test in a process of its own, kills that, and looks for what it left.
#[test]
fn nothing_outlives_tests_that_are_killed() -> Result<()> {
    let arguments = ["--exact", "killed_from_outside", "--ignored", "--nocapture"];
    let mut tests = Process::spawn(std::env::current_exe()?, arguments, &[("TAO_TEST_KILLED", "yes")])?;
    let line = tests.wait_line("started ", Duration::from_mins(3))?;
    let (_, started) = line.split_once("started ").context("no list")?;
    let mut words = started.split('\t');
    let mut pids = Vec::new();
    for word in words.by_ref().take(3) {
        pids.push(word.parse()?);
    }
    let folders: Vec<PathBuf> = words.map(PathBuf::from).collect();
    ensure!(pids.len() == 3 && folders.len() == 3 && folders.iter().all(|folder| folder.is_dir()), "{line}");
    ensure!(pids.iter().all(|pid| !is_gone(*pid)), "not all run: {line}");
    tests.kill9()?;
    nothing_left(&pids, &folders)
}

#[test]
#[ignore = "runs in a process of its own, to be killed"]
fn killed_from_outside() -> Result<()> {
    if std::env::var_os("TAO_TEST_KILLED").is_none() {
        return Ok(());
    }
    let postgres = Postgres::start()?;
    let redis = Redis::start()?;
    let process = Process::spawn("sleep", ["600"], &[])?;
    let folder = TempDir::new()?;
    let (a, b, c) = (postgres.pid()?, redis.pid()?, process.pid()?);
    let folders = [postgres.folder(), process.folder(), folder.path()];
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    println!("started {a}\t{b}\t{c}\t{}", folders.join("\t"));
    std::thread::sleep(Duration::from_mins(10));
    Ok(())
}

fn nothing_left(pids: &[u32], folders: &[PathBuf]) -> Result<()> {
    eventually(SOON, || {
        for pid in pids {
            ensure!(is_gone(*pid), "{pid} still runs");
        }
        for folder in folders {
            ensure!(!folder.exists(), "{} is still there", folder.display());
        }
        let strangers = processes_in(folders)?;
        ensure!(strangers.is_empty(), "processes work in the removed folders: {strangers:?}");
        Ok(())
    })
}

fn is_gone(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_none_or(|pid| test_kill_process(pid).is_err())
}

/// Processes whose working directory is in one of the folders: a server's children, too (Linux only).
fn processes_in(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for process in processes {
        let process = process?.path();
        // Reads `/tmp/x (deleted)` for a folder that is gone.
        let Ok(folder) = std::fs::read_link(process.join("cwd")) else { continue };
        let folder = folder.to_string_lossy();
        if folders.iter().any(|removed| folder.starts_with(&*removed.to_string_lossy())) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Sends one inline command to Redis and returns the answer (in one packet, as short ones are).
fn ask(port: u16, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[test]
fn the_repository_is_found() {
    assert!(tao_harness::repository().join("proto/tao/v1").is_dir());
    assert!(Path::new(&tao_harness::repository()).join("Makefile").is_file());
}

#[test]
fn redis_comes_back_with_a_snapshot_where_there_is_one() -> Result<()> {
    let mut redis = Redis::start()?;
    ask(redis.port(), "SET a old")?;
    assert_eq!(redis.command(&["SAVE"])?, "+OK");
    ask(redis.port(), "SET a new")?;
    redis.restart()?;
    assert_eq!(ask(redis.port(), "GET a")?, "$3\r\nold\r\n");
    std::fs::remove_file(redis.snapshot())?;
    assert_eq!(redis.command(&["FLUSHALL"])?, "+OK");
    redis.restart()?;
    assert_eq!(ask(redis.port(), "GET a")?, "$-1\r\n");
    assert!(redis.command(&["NO-SUCH-COMMAND"]).is_err());
    Ok(())
}

#[test]
fn postgres_can_be_paused_as_a_whole_and_hands_out_rows() -> Result<()> {
    let postgres = Postgres::start()?;
    let mut rows = Vec::new();
    postgres.rows("postgres", "SELECT n, n * n FROM generate_series(1, 3) n", |row| {
        rows.push(row.to_owned());
        Ok(())
    })?;
    assert_eq!(rows, ["1\t1", "2\t4", "3\t9"]);
    assert!(postgres.rows("postgres", "SELECT nothing", |_| Ok(())).is_err());
    postgres.pause()?;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| postgres.execute("postgres", "SELECT 7"));
        // It can't be answered before this.
        assert!(!asked.is_finished());
        postgres.resume()?;
        assert_eq!(asked.join().unwrap()?, "7");
        Ok(())
    })
}
