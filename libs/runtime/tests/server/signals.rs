//! SIGINT and SIGTERM, to a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use tao_runtime::Shutdown;

#[test]
fn the_first_signal_begins_the_shutdown_and_the_second_exits() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["signals::child", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    assert!(lines.any(|line| line.ends_with("waiting")));
    signal("TERM");
    assert!(lines.any(|line| line.ends_with("draining")));
    signal("INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[tokio::test]
#[ignore = "run by the test above, as a process of its own"]
async fn child() {
    let shutdown = Shutdown::on_signal().unwrap();
    println!("waiting");
    shutdown.wait().await;
    println!("draining");
    std::future::pending::<()>().await;
}
