//! `docs/reference/settings.md` lists what `inventory-api serve --help` lists.

use std::process::Command;

use super::generated::{check_block, table};

#[test]
fn settings_are_those_of_the_program() {
    let (tables, count) = tables(&help());
    assert!(count > 30, "{count} settings are not all: the format of the help has changed");
    check_block("docs/reference/settings.md", "settings", &tables);
}

fn help() -> String {
    let program = env!("CARGO_BIN_EXE_inventory-api");
    let output = Command::new(program).args(["serve", "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One table per group of settings, and the number of settings. Help shows a group at two spaces; a variable
/// at four, with its default and purpose two spaces apart; below it, deeper, the values that it accepts.
fn tables(help: &str) -> (String, usize) {
    let (_, list) = help.split_once("environment variables:\n").unwrap();
    let mut text = String::new();
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut foreign: Vec<[String; 2]> = Vec::new();
    let mut count = 0;
    let flush = |text: &mut String, rows: &mut Vec<[String; 4]>, foreign: &mut Vec<[String; 2]>| {
        if !rows.is_empty() {
            text.push_str(&table(["variable", "default", "value", "purpose"], rows));
        }
        if !foreign.is_empty() {
            text.push_str(&table(["variable", "purpose"], foreign));
        }
        rows.clear();
        foreign.clear();
    };
    for line in list.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        match indent {
            _ if line.is_empty() => {}
            2 => {
                flush(&mut text, &mut rows, &mut foreign);
                let gap = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}## {line}\n\n"));
            }
            4 => {
                let cells: Vec<&str> =
                    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
                if let [name, default, purpose] = cells[..] {
                    let default =
                        if default == "-" { "–".to_owned() } else { format!("`{default}`") };
                    rows.push([format!("`{name}`"), default, String::new(), purpose.to_owned()]);
                    count += 1;
                } else {
                    let (names, purpose) = line.split_once(": ").unwrap();
                    foreign
                        .push([format!("`{}`", names.replace(", ", "`, `")), purpose.to_owned()]);
                }
            }
            0 => break,
            _ => line.clone_into(&mut rows.last_mut().unwrap()[2]),
        }
    }
    flush(&mut text, &mut rows, &mut foreign);
    (text.replace("`...`", "…"), count)
}
