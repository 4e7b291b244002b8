//! `tao schema check`: what it says, and its exit codes.

use tao_harness::{TempDir, repository};

use super::{json, tao};

#[test]
fn a_new_schema_is_judged_by_the_worst_of_its_changes() {
    let folder = TempDir::new().unwrap();
    let old = repository().join("libs/model/src/social.toml");
    let text = std::fs::read_to_string(&old).unwrap();
    let added = format!("{text}\n[[object]]\nname = \"group\"\nnumber = 90\n");
    let renamed = text.replace("\"comment\"", "\"remark\"");
    let removed = {
        let (before, after) = text.split_once("[[object]]").unwrap();
        let (_, others) = after.split_once("[[object]]").unwrap();
        format!("{before}[[object]]{others}")
    };
    // What else names the first object type must not.
    let removed = removed.replace("[\"user\"]", "[\"post\"]").replace("\"user\", ", "");
    for (name, text, verdict, code) in [
        ("same", &text, "safe", 0),
        ("added", &added, "safe", 0),
        ("renamed", &renamed, "attention", 1),
        ("removed", &removed, "unsafe", 2),
    ] {
        let new = folder.join(name);
        std::fs::write(&new, text).unwrap();
        let (said, exit) = json(&["schema", "check", &old.to_string_lossy(), &new.to_string_lossy()]);
        assert_eq!((said["verdict"].as_str(), exit), (Some(verdict), Some(code)), "{name}: {said}");
        assert_eq!(said["changes"].as_array().unwrap().is_empty(), name == "same", "{said}");
    }
    let broken = folder.join("broken");
    std::fs::write(&broken, "version = 7").unwrap();
    let output = tao(&["schema", "check", &old.to_string_lossy(), &broken.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("version: 7 is not 1"), "{output:?}");
    let text = tao(&["schema", "check", &old.to_string_lossy(), &folder.join("renamed").to_string_lossy()]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("attention  object comment: renamed"), "{text:?}");
}
