//! What tests call beyond cargo, `tests/run` installs.

use std::fs;
use std::path::Path;

/// The names in `find("...")` below `folder`.
fn tools_of(folder: &Path, tools: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tools_of(&path, tools);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let named = text.split("tools::find(\"").skip(1);
            tools.extend(named.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn each_program_that_a_test_looks_for_is_one_that_the_test_command_installs() {
    let run = fs::read_to_string("tests/run").unwrap();
    let mut tools = Vec::new();
    tools_of(Path::new("tests/blackbox"), &mut tools);
    tools_of(Path::new("tests/support"), &mut tools);
    assert!(tools.iter().any(|tool| tool == "curl"), "{tools:?}");
    for tool in tools {
        assert!(run.contains(&format!("[{tool}]=")), "{tool} has no package in install_tools of tests/run");
    }
}
