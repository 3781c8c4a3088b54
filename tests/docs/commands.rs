//! `docs/reference/commands.md` has every command and subcommand with its help.

use std::fmt::Write as _;
use std::process::Command;

use super::generated::{check_block, table};

#[test]
fn commands_are_those_of_the_program() {
    let mut commands = Vec::new();
    collect(&[], &mut commands);
    assert!(commands.len() > 20, "{} commands are not all", commands.len());
    let rows: Vec<_> = commands
        .iter()
        .map(|command| {
            let anchor = command.name.replace(' ', "-");
            [format!("[`{}`](#{anchor})", command.name), command.purpose.clone()]
        })
        .collect();
    check_block("docs/reference/commands.md", "list", &table(["command", "purpose"], &rows));
    let mut help = String::new();
    for command in &commands {
        write!(help, "\n## {}\n\n```text\n{}\n```\n", command.name, command.help.trim_end())
            .unwrap();
    }
    check_block("docs/reference/commands.md", "help", &(help + "\n"));
}

struct Documented {
    /// Without the name of the program.
    name: String,
    purpose: String,
    help: String,
}

/// All commands that run something, in the order of the help.
fn collect(path: &[&str], commands: &mut Vec<Documented>) {
    let help = help(path);
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return;
    };
    for line in list.lines().take_while(|line| line.starts_with("  ")) {
        let (name, purpose) = line.trim().split_once("  ").unwrap();
        let path: Vec<&str> = path.iter().copied().chain([name]).collect();
        let below = commands.len();
        collect(&path, commands);
        if commands.len() == below {
            commands.push(Documented {
                name: path.join(" "),
                purpose: purpose.trim().to_owned(),
                help: self::help(&path),
            });
        }
    }
}

/// The short help of a command. The settings have a document of their own.
fn help(path: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_inventory-api");
    let output = Command::new(program).args(path).arg("-h").output().unwrap();
    assert!(output.status.success(), "{path:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let own = text.split("\nSettings are environment variables").next().unwrap();
    // Clap pads empty lines of a wrapped text.
    own.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
